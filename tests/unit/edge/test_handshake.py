"""Targets, handshakes and origins, without a socket."""

import orjson
import pytest
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from harness.rawsocket import KEY
from innkeeper.address import Address
from innkeeper_edge.handshake import (
    Rejection,
    check_handshake,
    check_origin,
    is_allowed_origin,
    request_target,
    room_address,
    wants_socket,
)

Headers = list[tuple[str, str]]
GOOD: Headers = [
    ("Host", "rooms.test"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
]


def request_with(*changes: tuple[str, str | None], method: str = "GET", old: bool = False) -> web.Request:
    """Return a good handshake in which the named headers are replaced, given twice, or left out."""
    names = {name.lower() for name, _ in changes}
    kept = [pair for pair in GOOD if pair[0].lower() not in names]
    added = [(name, value) for name, value in changes if value is not None]
    version = HttpVersion10 if old else HttpVersion11
    return make_mocked_request(method, "/parties/chat/a", headers=CIMultiDict(kept + added), version=version)


def target(raw: str) -> Address | Rejection:
    """Return what becomes of a raw request target."""
    return room_address(make_mocked_request("GET", raw))


@pytest.mark.parametrize("name", ["a", "A.b_c:d~e-9", "...a", "x" * 128])
def test_plain_names_are_rooms(name: str) -> None:
    """Every character a room name may have is taken as it stands, with and without a query."""
    assert target(f"/parties/chat/{name}") == Address("chat", name)
    assert target(f"/parties/chat/{name}?_pk=1&x=/../%2e") == Address("chat", name)
    assert target(f"/parties/chat/{name}?") == Address("chat", name)


@pytest.mark.parametrize("below", ["", "/", "/b%20c/../d", "//x"])
def test_requests_may_go_below_their_room(below: str) -> None:
    """What follows the room is given on undecoded, without the query."""
    found = request_target(make_mocked_request("POST", f"/parties/chat/a{below}?x=/y"))
    assert found == (Address("chat", "a"), below)


@pytest.mark.parametrize(
    ("raw", "status"), [("/parties/chat/%41/b", 400), ("/parties/../a/b", 400), ("/parties/a", 404)]
)
def test_the_room_of_a_request_is_judged_as_for_sockets(raw: str, status: int) -> None:
    """Nothing of kind and name is decoded."""
    refused = request_target(make_mocked_request("POST", raw))
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.error) == (status, "invalid_room")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("/parties/chat/%7E", 400),
        ("/parties/chat/a%3Ab", 400),
        ("/parties/chat/%2e%2e", 400),
        ("/parties/chat/..", 400),
        ("/parties/chat/a%20b", 400),
        ("/parties/chat/a%00", 400),
        ("/parties/chat/a+b", 400),
        ("/parties/chat/{a}", 400),
        ("/parties/chat/a;b", 400),
        ("/parties/chat/a%0d%0a", 400),
        ("/parties/chat/" + "x" * 129, 400),
        ("/parties/chat/", 400),
        ("/parties//a", 400),
        ("/parties/Chat/a", 400),
        ("/parties/9/a", 400),
        ("/parties/" + "k" * 33 + "/a", 400),
        ("/parties/chat/a\\b", 400),
        ("/parties/chat/a*", 400),
        ("/parties/chat/a/b", 404),
        ("/parties/chat/a/", 404),
        ("/parties/chat/../x/y", 404),
        ("/parties/chat", 404),
        ("/parties", 404),
        ("/parties/chat/a#f", 404),
        ("/parties/chat/a?x#f", 404),
        ("//host/parties/chat/a", 404),
        ("//parties/chat/a", 404),
        ("/Parties/chat/a", 404),
        ("/%70arties/chat/a", 404),
        ("http://rooms.test/parties/chat/a", 404),
    ],
)
def test_other_targets_are_no_rooms(raw: str, status: int) -> None:
    """What is not plainly /parties/kind/name is refused on its raw text."""
    refused = target(raw)
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.error) == (status, "invalid_room")


def test_refusal_is_json_and_closes() -> None:
    """A refusal has a JSON body with error and message, its headers, and ends the connection."""
    answer = Rejection(426, "unsupported_version", "no", (("Sec-WebSocket-Version", "13"),)).response()
    assert isinstance(answer.body, bytes)
    assert orjson.loads(answer.body) == {"error": "unsupported_version", "message": "no"}
    assert (answer.status, answer.content_type, answer.keep_alive) == (426, "application/json", False)
    assert answer.headers["Sec-WebSocket-Version"] == "13"
    assert answer.headers["Innkeeper-Refusal"] == "unsupported_version: no"
    assert Rejection(404, "x", "nö\n").response().headers["Innkeeper-Refusal"] == "x: n\\xf6\\n"


@pytest.mark.parametrize(
    "changes",
    [
        [],
        [("Upgrade", "WebSocket")],
        [("Connection", "keep-alive, Upgrade")],
        [("Connection", "keep-alive"), ("Connection", "upgrade")],
        [("Content-Length", "0")],
        [("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")],
        [("Sec-WebSocket-Extensions", "permessage-deflate")],
        [("X-Name", "é")],
    ],
)
def test_good_handshakes_pass(changes: Headers) -> None:
    """The ways browsers and libraries write a handshake are all accepted."""
    assert check_handshake(request_with(*changes)) is None


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ([("Host", None)], 400),
        ([("Host", "")], 400),
        ([("Host", "a"), ("Host", "a")], 400),
        ([("Upgrade", None)], 426),
        ([("Upgrade", "h2c")], 426),
        ([("Upgrade", "websocket, h2c")], 426),
        ([("Upgrade", "websocket"), ("Upgrade", "websocket")], 426),
        ([("Connection", None)], 400),
        ([("Connection", "keep-alive")], 400),
        ([("Connection", "upgraded")], 400),
        ([("Sec-WebSocket-Version", None)], 426),
        ([("Sec-WebSocket-Version", "8")], 426),
        ([("Sec-WebSocket-Version", "7")], 426),
        ([("Sec-WebSocket-Version", "14")], 426),
        ([("Sec-WebSocket-Version", "013")], 426),
        ([("Sec-WebSocket-Version", "13, 8")], 426),
        ([("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Version", "13")], 426),
        ([("Sec-WebSocket-Key", None)], 400),
        ([("Sec-WebSocket-Key", "")], 400),
        ([("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Key", KEY)], 400),
        ([("Sec-WebSocket-Key", KEY[:-2])], 400),
        ([("Sec-WebSocket-Key", KEY[:-1])], 400),
        ([("Sec-WebSocket-Key", KEY + "=")], 400),
        ([("Sec-WebSocket-Key", KEY[:10] + " " + KEY[10:])], 400),
        ([("Sec-WebSocket-Key", KEY[:10] + "*" + KEY[10:])], 400),
        ([("Sec-WebSocket-Key", KEY.replace("Q==", "R=="))], 400),
        ([("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j")], 400),
        ([("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZXh4")], 400),
        ([("Sec-WebSocket-Key", KEY.replace("d", "é"))], 400),
        ([("Sec-WebSocket-Version", "1³")], 400),
        ([("Upgrade", "websocketé")], 400),
        ([("Connection", "upgrade, é")], 400),
        ([("Host", "é")], 400),
        ([("Content-Length", "1")], 400),
        ([("Content-Length", "00")], 400),
        ([("Transfer-Encoding", "chunked")], 400),
        ([("Transfer-Encoding", "")], 400),
    ],
)
def test_bad_handshakes_do_not(changes: list[tuple[str, str | None]], status: int) -> None:
    """Each departure from the handshake of RFC 6455 has its refusal."""
    refused = check_handshake(request_with(*changes))
    assert refused is not None
    assert refused.status == status


@pytest.mark.parametrize("method", ["HEAD", "POST", "CONNECT", "OPTIONS", "BREW"])
def test_only_get_opens(method: str) -> None:
    """Any other method is answered with the one that is allowed."""
    refused = check_handshake(request_with(method=method))
    assert refused is not None
    assert (refused.status, refused.headers) == (405, (("Allow", "GET"),))


def test_only_http11_opens() -> None:
    """A handshake over HTTP/1.0 is refused."""
    refused = check_handshake(request_with(old=True))
    assert refused is not None
    assert refused.status == 400


def test_refused_version_names_the_spoken_one() -> None:
    """A client with another version learns which one to use, as RFC 6455 4.4 wants."""
    refused = check_handshake(request_with(("Sec-WebSocket-Version", "8")))
    assert refused is not None
    assert refused.response().headers["Sec-WebSocket-Version"] == "13"


def test_plain_http_is_told_from_sockets() -> None:
    """A request without any sign of a handshake is plain HTTP; a half handshake is a bad one, not plain."""
    bare = [(name, None) for name, _ in GOOD[1:]]
    assert not wants_socket(request_with(*bare))
    assert not wants_socket(request_with(*bare, ("Upgrade", "h2c")))
    for sign in GOOD[1], GOOD[3], GOOD[4]:
        assert wants_socket(request_with(*[pair for pair in bare if pair[0] != sign[0]]))


ALLOWED = [
    (None, "rooms.test"),
    ("https://rooms.test", "rooms.test"),
    ("http://rooms.test", "rooms.test"),
    ("https://rooms.test:443", "rooms.test"),
    ("https://rooms.test", "rooms.test:443"),
    ("http://rooms.test:80", "rooms.test"),
    ("http://rooms.test", "rooms.test:80"),
    ("http://localhost:8787", "localhost:8787"),
    ("HTTPS://Rooms.TEST", "rooms.test"),
    ("https://rooms.test", "ROOMS.test"),
    ("https://rooms.test.", "rooms.test."),
    ("http://127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://[::1]:8000", "[::1]:8000"),
    ("https://app.example.com", "rooms.test"),
    ("https://APP.example.com:443", "rooms.test"),
    ("https://dev.example.com:8443", "rooms.test"),
    ("capacitor://localhost", "rooms.test"),
]
REFUSED = [
    ("", "rooms.test"),
    ("null", "rooms.test"),
    ("NULL", "null"),
    ("rooms.test", "rooms.test"),
    ("//rooms.test", "rooms.test"),
    ("https://rooms.test.evil.com", "rooms.test"),
    ("https://evil-rooms.test", "rooms.test"),
    ("https://evil.com/rooms.test", "rooms.test"),
    ("https://evil.com?rooms.test", "rooms.test"),
    ("https://evil.com#rooms.test", "rooms.test"),
    ("https://rooms.test/", "rooms.test"),
    ("https://rooms.test@evil.com", "rooms.test"),
    ("https://evil.com@rooms.test", "rooms.test"),
    ("https://user:pw@rooms.test", "rooms.test"),
    ("https://rooms.test:pw@evil.com", "rooms.test"),
    ("https://rooms.test.", "rooms.test"),
    ("https://rooms.test", "rooms.test."),
    ("https://sub.rooms.test", "rooms.test"),
    ("https://test", "rooms.test"),
    ("https://rooms.test:8443", "rooms.test"),
    ("https://rooms.test", "rooms.test:8443"),
    ("https://rooms.test:80", "rooms.test:443"),
    ("https://rooms.test", "rooms.test:80"),
    ("https://rooms.test:", "rooms.test"),
    ("https://rooms.test:0443", "rooms.test"),
    ("https://rooms.test:99999", "rooms.test:99999"),
    ("https://rooms.test:443:443", "rooms.test"),
    ("https://rooms.test\\@evil.com", "rooms.test"),
    ("https://rooms.test https://evil.com", "rooms.test"),
    ("https://rooms.test, https://rooms.test", "rooms.test"),
    (" https://rooms.test", "rooms.test"),
    ("https://rooms.test\n", "rooms.test"),
    ("https://rooms%2etest", "rooms.test"),
    ("https://rooms.te\u017ft", "rooms.test"),
    ("ftp://rooms.test", "rooms.test"),
    ("file://", "rooms.test"),
    ("wss://rooms.test", "rooms.test"),
    ("javascript://rooms.test", "rooms.test"),
    ("https://rooms.test", ""),
    ("https://rooms.test", "rooms.test/x"),
    ("https://rooms.test", "evil.com@rooms.test"),
    ("https://rooms.test", "\udcffrooms.test"),
    ("http://app.example.com", "rooms.test"),
    ("https://app.example.com:8443", "rooms.test"),
    ("https://app.example.com.evil.com", "rooms.test"),
    ("https://dev.example.com", "rooms.test"),
    ("ionic://localhost", "rooms.test"),
]
EXTRA = frozenset({"https://app.example.com", "https://dev.example.com:8443", "capacitor://localhost", "nonsense"})


@pytest.mark.parametrize(("origin", "host"), ALLOWED)
def test_same_host_and_listed_origins_pass(origin: str | None, host: str) -> None:
    """The host itself, a listed origin and no origin at all may open sockets."""
    assert is_allowed_origin(origin, host, EXTRA)


@pytest.mark.parametrize(("origin", "host"), REFUSED)
def test_origin_tricks_fail(origin: str, host: str) -> None:
    """What only looks like the host or a listed origin may not."""
    assert not is_allowed_origin(origin, host, EXTRA)


def test_everything_can_be_allowed() -> None:
    """A star takes any origin, null too."""
    assert is_allowed_origin("https://evil.com", "rooms.test", frozenset({"*"}))
    assert is_allowed_origin("null", "rooms.test", frozenset({"*"}))
    assert not is_allowed_origin("null", "rooms.test", frozenset({"null"}))


def test_origin_is_taken_from_the_request_only_if_it_is_one() -> None:
    """Two Origin headers are refused even if both are good or all are allowed; so are two Hosts."""
    good = ("Origin", "https://rooms.test")
    assert check_origin(request_with(), frozenset()) is None
    assert check_origin(request_with(good), frozenset()) is None
    assert check_origin(request_with(("Host", None)), frozenset()) is None
    for changes in ([good, good], [good, ("Host", "rooms.test"), ("Host", "x")], [good, ("Host", None)]):
        refused = check_origin(request_with(*changes), frozenset())
        assert refused is not None
        assert (refused.status, refused.error) == (403, "origin_not_allowed")
    assert check_origin(request_with(good, good), frozenset({"*"})) is not None
