"""Raw bytes against an edge-like server: what aiohttp alone would let through, and what must still work."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from time import monotonic

import pytest
import websockets
from aiohttp import ClientSession, WSMsgType, web

from harness.rawsocket import (
    ACCEPT,
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Frame,
    RawSocket,
    close_frame,
    connect,
    frame,
    request_head,
)
from innkeeper.close_codes import INVALID_UTF8, CloseCode
from innkeeper_edge.frames import encode_binary, encode_close, encode_text
from innkeeper_edge.guard import is_utf8
from innkeeper_edge.guarded_socket import install
from innkeeper_edge.handshake import Rejection, check_handshake, check_origin, room_address, wants_socket

LIMIT_BYTES = 1_000
LINGER_S = 1.0
# Less than a closed socket lingers: an answer this fast did not come from a timeout.
PROMPT_S = 0.8


class EchoEdge:
    """A room that sends everything back, joined the way the edge joins sockets."""

    def __init__(self) -> None:
        self.port = 0
        self.received: list[bytes] = []
        self.codes: list[CloseCode] = []
        self.finished = asyncio.Semaphore(0)
        self.read_next = asyncio.Event()
        self.read_next.set()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        address = room_address(request)
        if isinstance(address, Rejection):
            return address.response()
        if not wants_socket(request):
            return web.Response(text=f"plain {address}")
        if refused := check_handshake(request) or check_origin(request, frozenset({"https://app.test"})):
            return refused.response()
        return await self.join(request)

    async def join(self, request: web.BaseRequest) -> web.StreamResponse:
        """Echo until the socket closes."""
        ws = web.WebSocketResponse(compress=False, decode_text=False, max_msg_size=LIMIT_BYTES + 1, heartbeat=30)
        socket = await install(
            request, ws, max_message_bytes=LIMIT_BYTES, on_violation=self.codes.append, linger_s=LINGER_S
        )
        try:
            async for message in ws:
                await self.read_next.wait()
                if message.type is WSMsgType.TEXT and not is_utf8(message.data):
                    socket.close(INVALID_UTF8.code, INVALID_UTF8.reason)
                    break
                if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    self.received.append(bytes(message.data))
                    if socket.closing_code is None:
                        self.echo(request, message.type, message.data)
            if socket.closing_code is not None:
                await socket.wait_closed()
        finally:
            self.finished.release()
        return ws

    def echo(self, request: web.BaseRequest, kind: WSMsgType, payload: bytes) -> None:
        """Send one message back as a frame encoded here."""
        if request.transport is not None and not request.transport.is_closing():
            encode = encode_text if kind is WSMsgType.TEXT else encode_binary
            request.transport.write(encode(bytes(payload)))


@pytest.fixture(name="edge")
async def running_edge() -> AsyncIterator[EchoEdge]:
    """Run an echo edge on a free port."""
    edge = EchoEdge()
    runner = web.ServerRunner(web.Server(edge.answer, access_log=None, keepalive_timeout=5))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    edge.port = runner.addresses[0][1]
    yield edge
    await runner.cleanup()


async def finished(edge: EchoEdge) -> None:
    """Wait until one more handler has returned."""
    async with asyncio.timeout(5):
        await edge.finished.acquire()


OPEN = frame(TEXT, b"a", fin=False)
# Frames so long, or so many, that the peer's own close frame drowns in them.
ENDLESS: dict[str, tuple[bytes, int]] = {
    "too big, announced": (frame(TEXT, claimed_bytes=LIMIT_BYTES + 1), 1009),
    "far too big, announced": (frame(TEXT, claimed_bytes=2**62), 1009),
    "top bit": (frame(TEXT, claimed_bytes=2**63), 1002),
    "200000 empty fragments": (OPEN + frame(CONTINUATION, fin=False) * 200_000, 1008),
}
VIOLATIONS: dict[str, tuple[bytes, int]] = {
    **ENDLESS,
    "unmasked text": (frame(TEXT, b"hi", masked=False), 1002),
    "unmasked binary": (frame(BINARY, b"hi", masked=False), 1002),
    "unmasked ping": (frame(PING, masked=False), 1002),
    "unmasked close": (frame(CLOSE, b"\x03\xe8", masked=False), 1002),
    "rsv1": (frame(TEXT, b"hi", rsv=4), 1002),
    "rsv2": (frame(TEXT, b"hi", rsv=2), 1002),
    "rsv3": (frame(TEXT, b"hi", rsv=1), 1002),
    "rsv1 on a ping": (frame(PING, rsv=4), 1002),
    "rsv on a continuation": (OPEN + frame(CONTINUATION, rsv=1), 1002),
    **{f"opcode {opcode}": (frame(opcode, b"x"), 1002) for opcode in (3, 7, 11, 15)},
    "fragmented ping": (frame(PING, fin=False), 1002),
    "fragmented close": (frame(CLOSE, fin=False), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "long close": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "text in a message": (OPEN + frame(TEXT, b"b"), 1002),
    "binary in a message": (OPEN + frame(BINARY, b"b"), 1002),
    "text after an empty fragment": (frame(TEXT, fin=False) + frame(TEXT, b"b"), 1002),
    "binary after an empty fragment": (frame(TEXT, fin=False) + frame(BINARY, b"b", fin=False), 1002),
    "65 fragments": (OPEN + frame(CONTINUATION, fin=False) * 64, 1008),
    "too big": (frame(TEXT, b"x" * (LIMIT_BYTES + 1)), 1009),
    "much too big": (frame(BINARY, b"x" * 2_000_000), 1009),
    "too big in two": (frame(TEXT, b"x" * LIMIT_BYTES, fin=False) + frame(CONTINUATION, b"x"), 1009),
    "too big in many": (frame(TEXT, b"x" * 100, fin=False) + frame(CONTINUATION, b"x" * 100, fin=False) * 10, 1009),
    "long form of a short length": (frame(TEXT, b"hi", length_bytes=2), 1002),
    "longest form of a short length": (frame(TEXT, b"hi", length_bytes=8), 1002),
    "longest form of a middle length": (frame(TEXT, b"x" * 200, length_bytes=8), 1002),
    **{
        f"close {code}": (close_frame(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
    },
    "close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close with a broken reason": (close_frame(1000, b"\xc3\x28"), 1007),
    "broken text": (frame(TEXT, b"\xff\xfe\xfd"), 1007),
    "overlong text": (frame(TEXT, b"\xc0\x80"), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text broken at the seam's end": (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"("), 1007),
    "cut off character": (frame(TEXT, b"ok\xe2\x82"), 1007),
}


@pytest.mark.parametrize("delivery", ["after the handshake", "with the handshake", "after a message", "in one byte"])
@pytest.mark.parametrize(("stream", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
async def test_violation_closes_with_its_code(edge: EchoEdge, delivery: str, stream: bytes, code: int) -> None:
    """A forbidden stream ends the socket with its code, at once for a polite peer, and the room sees nothing."""
    if delivery == "in one byte" and len(stream) > 5_000:
        delivery = "after the handshake"  # the same bytes, only slower
    async with connect(edge.port, join=delivery != "with the handshake") as socket:
        before: list[bytes] = []
        if delivery == "with the handshake":
            await socket.send(request_head() + stream)
            assert (await socket.answer()).status == 101
        elif delivery == "after a message":
            before = [b"first"]
            await socket.send(frame(TEXT, b"first"))
            assert await socket.frame() == Frame(TEXT, b"first")
            await socket.send(stream)
        elif delivery == "in one byte":
            await socket.dribble(stream)
        else:
            await socket.send(stream)
        assert await socket.close_code() == code
        assert edge.received == before
        if (stream, code) not in ENDLESS.values():
            started_s = monotonic()
            await socket.send(close_frame(code))
            assert await socket.rest() == b""
            assert monotonic() - started_s < PROMPT_S
    await finished(edge)
    assert len(edge.codes) <= 1


async def test_violation_is_told_to_the_peer_in_words(edge: EchoEdge) -> None:
    """The close frame carries the reason of the table and nothing else."""
    async with connect(edge.port, join=True) as socket:
        await socket.send(frame(TEXT, b"x" * (LIMIT_BYTES + 1)))
        assert await socket.frame() == Frame(CLOSE, b"\x03\xf1message too big")


async def test_polite_peer_is_let_go_at_once(edge: EchoEdge) -> None:
    """A peer that answers the close is not kept until the close deadline, although its message was refused."""
    async with connect(edge.port, join=True) as socket:
        started_s = monotonic()
        await socket.send(frame(BINARY, b"x" * 100_000))
        assert await socket.close_code() == 1009
        await socket.send(close_frame(1009))
        assert await socket.rest() == b""
        assert monotonic() - started_s < PROMPT_S
    await finished(edge)


async def test_silent_peer_is_let_go_at_the_deadline(edge: EchoEdge) -> None:
    """A peer that never answers the close, and goes on sending, is cut off at the deadline of the close."""
    async with connect(edge.port, join=True) as socket:
        await socket.send(frame(TEXT, claimed_bytes=2**40))
        assert await socket.close_code() == 1009
        await socket.send(b"x" * 10_000)
        assert await socket.rest() == b""
    await finished(edge)
    assert edge.received == []


async def test_real_client_learns_that_its_message_was_too_big(edge: EchoEdge) -> None:
    """A library's client sees code and reason, without waiting for a timeout."""
    async with websockets.connect(f"ws://127.0.0.1:{edge.port}/parties/chat/lobby", compression=None) as client:
        started_s = monotonic()
        await client.send("x" * 500_000)
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1009, "message too big")
        assert monotonic() - started_s < PROMPT_S
    await finished(edge)


async def test_real_clients_are_served(edge: EchoEdge) -> None:
    """Two libraries' clients that offer deflate get their messages back, in text, binary and pieces."""
    url = f"ws://127.0.0.1:{edge.port}/parties/chat/lobby?_pk=1"
    async with websockets.connect(url) as client:
        for message in ("é", b"\x00\xff", "x" * LIMIT_BYTES, ""):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["in ", "three ", "pieces"])
        assert await client.recv() == "in three pieces"
        await (await client.ping(b"there"))
    async with ClientSession() as session, session.ws_connect(url, compress=15, max_msg_size=0) as other:
        await other.send_str("hello")
        assert await other.receive_str() == "hello"
        await other.close(code=4001)
    await finished(edge)
    await finished(edge)


GOOD: dict[str, tuple[bytes, list[Frame]]] = {
    "exactly the limit": (frame(TEXT, b"x" * LIMIT_BYTES), [Frame(TEXT, b"x" * LIMIT_BYTES)]),
    "exactly the limit in pieces": (
        frame(BINARY, b"x" * 500, fin=False) + frame(CONTINUATION, b"y" * 499, fin=False) + frame(CONTINUATION, b"z"),
        [Frame(BINARY, b"x" * 500 + b"y" * 499 + b"z")],
    ),
    "empty": (frame(TEXT) + frame(BINARY), [Frame(TEXT, b""), Frame(BINARY, b"")]),
    "64 fragments": (
        frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) * 62 + frame(CONTINUATION, b"c"),
        [Frame(TEXT, b"a" + b"b" * 62 + b"c")],
    ),
    "empty first fragment": (frame(TEXT, fin=False) + frame(CONTINUATION, b"x"), [Frame(TEXT, b"x")]),
    "ping in a message": (
        frame(TEXT, b"a", fin=False) + frame(PING, b"p" * 125) + frame(CONTINUATION, b"b"),
        [Frame(PONG, b"p" * 125), Frame(TEXT, b"ab")],
    ),
    "pong nobody asked for": (frame(PONG, b"x") + frame(TEXT, b"y"), [Frame(TEXT, b"y")]),
    "character over two fragments": (
        frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\xa9"),
        [Frame(TEXT, "é".encode())],
    ),
    "300 in one write": (frame(TEXT, b"n") * 300, [Frame(TEXT, b"n")] * 300),
    "close 1000": (close_frame(1000, b"bye"), [Frame(CLOSE, b"\x03\xe8")]),
    "close 4999": (frame(TEXT, b"x") + close_frame(4999), [Frame(TEXT, b"x"), Frame(CLOSE, b"\x03\xe8")]),
    "close without a code": (frame(CLOSE), [Frame(CLOSE, b"\x03\xe8")]),
}


@pytest.mark.parametrize("delivery", ["after the handshake", "with the handshake", "in one byte"])
@pytest.mark.parametrize(("stream", "answers"), GOOD.values(), ids=GOOD)
async def test_what_is_allowed_is_echoed(edge: EchoEdge, delivery: str, stream: bytes, answers: list[Frame]) -> None:
    """A stream within the rules is answered frame by frame however it arrives."""
    async with connect(edge.port, join=delivery != "with the handshake") as socket:
        if delivery == "with the handshake":
            await socket.send(request_head() + stream)
            assert (await socket.answer()).headers["sec-websocket-accept"] == ACCEPT
        elif delivery == "in one byte":
            await socket.dribble(stream)
        else:
            await socket.send(stream)
        assert [await socket.frame() for _ in answers] == answers
    await finished(edge)
    assert edge.codes == []


async def test_messages_before_a_violation_were_echoed(edge: EchoEdge) -> None:
    """What was answered before a violation stays answered; the close comes after it."""
    async with connect(edge.port, join=True) as socket:
        await socket.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        assert [await socket.frame(), await socket.frame()] == [Frame(TEXT, b"1"), Frame(TEXT, b"2")]
        await socket.send(frame(TEXT, b"3", masked=False) + frame(TEXT, b"4"))
        assert await socket.frame() == Frame(CLOSE, encode_close(1002, "protocol error")[2:])
    await finished(edge)
    assert edge.received == [b"1", b"2"]


async def test_slow_room_loses_nothing(edge: EchoEdge) -> None:
    """While the room does not read, back-pressure holds the rest; afterwards all of it arrives, in order."""
    edge.read_next.clear()
    bodies = [str(number).encode().rjust(800, b".") for number in range(3_000)]
    async with connect(edge.port, join=True) as socket:
        sending = asyncio.ensure_future(socket.send(b"".join(frame(BINARY, body) for body in bodies)))
        await socket.send(b"")
        edge.read_next.set()
        for body in bodies:
            assert await socket.frame() == Frame(BINARY, body)
        await sending
    await finished(edge)
    assert edge.received == bodies


async def test_vanished_peer_ends_the_handler(edge: EchoEdge) -> None:
    """A connection that is cut inside a frame ends the handler, in the good state and after a violation."""
    for stream in (frame(TEXT, b"x" * 500)[:50], frame(3, b"x" * 500)[:50]):
        async with connect(edge.port, join=True) as socket:
            await socket.send(stream)
        await finished(edge)


BAD_HANDSHAKES: dict[str, tuple[bytes, int]] = {
    "HEAD": (request_head(method="HEAD"), 405),
    "POST": (request_head(method="POST"), 405),
    "HTTP/1.0": (request_head(version=" HTTP/1.0"), 400),
    "HTTP/0.9": (request_head(version=" HTTP/0.9"), 400),
    "no version of HTTP": (request_head(version=""), 400),
    "HTTP/2.0": (request_head(version=" HTTP/2.0"), 400),
    "version 7": (request_head(headers={"Sec-WebSocket-Version": "7"}), 426),
    "version 8": (request_head(headers={"Sec-WebSocket-Version": "8"}), 426),
    "version 14": (request_head(headers={"Sec-WebSocket-Version": "14"}), 426),
    "version 13 and 8": (request_head(headers={"Sec-WebSocket-Version": ["13", "8"]}), 426),
    "version 13 twice": (request_head(headers={"Sec-WebSocket-Version": ["13", "13"]}), 426),
    "no version": (request_head(headers={"Sec-WebSocket-Version": None}), 426),
    "no key": (request_head(headers={"Sec-WebSocket-Key": None}), 400),
    "two keys": (request_head(headers={"Sec-WebSocket-Key": [KEY, KEY]}), 400),
    "key of 15": (request_head(headers={"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA"}), 400),
    "key of 17": (request_head(headers={"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAAA="}), 400),
    "key with rubbish": (request_head(headers={"Sec-WebSocket-Key": KEY[:5] + "!!" + KEY[5:]}), 400),
    "key with a blank": (request_head(headers={"Sec-WebSocket-Key": KEY[:5] + " " + KEY[5:]}), 400),
    "key with spare bits": (request_head(headers={"Sec-WebSocket-Key": KEY.replace("Q==", "R==")}), 400),
    "key with more": (request_head(headers={"Sec-WebSocket-Key": KEY + KEY}), 400),
    "key above 127": (request_head(headers={"Sec-WebSocket-Key": KEY + "\xff"}), 400),
    "version above 127": (request_head(headers={"Sec-WebSocket-Version": "13\xe9"}), 400),
    "upgrade above 127": (request_head(headers={"Upgrade": "websocket\xff"}), 400),
    "connection above 127": (request_head(headers={"Connection": "Upgrade, \xff"}), 400),
    "host above 127": (request_head(headers={"Host": "r\xffm"}), 400),
    "other upgrade": (request_head(headers={"Upgrade": "h2c"}), 426),
    "no upgrade": (request_head(headers={"Upgrade": None}), 426),
    "no connection": (request_head(headers={"Connection": None}), 400),
    "connection without upgrade": (request_head(headers={"Connection": "keep-alive"}), 400),
    "no host": (request_head(headers={"Host": None}), 400),
    "two hosts": (request_head(headers={"Host": ["rooms.test", "rooms.test"]}), 400),
    "body": (request_head(headers={"Content-Length": "5"}) + b"hello", 400),
    "chunked body": (request_head(headers={"Transfer-Encoding": "chunked"}) + b"0\r\n\r\n", 400),
    "chunked body in HTTP/1.0": (
        request_head(headers={"Transfer-Encoding": "chunked"}, version=" HTTP/1.0") + b"0\r\n\r\n",
        400,
    ),
    "foreign origin": (request_head(headers={"Origin": "https://evil.test"}), 403),
    "origin null": (request_head(headers={"Origin": "null"}), 403),
    "origin that starts well": (request_head(headers={"Origin": "https://rooms.test.evil.test"}), 403),
    "two origins": (request_head(headers={"Origin": ["https://rooms.test", "https://rooms.test"]}), 403),
    "origin above 127": (request_head(headers={"Origin": "https://rooms.test\xff"}), 403),
}


@pytest.mark.parametrize(("head", "status"), BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
async def test_bad_handshake_is_refused(edge: EchoEdge, head: bytes, status: int) -> None:
    """A handshake outside RFC 6455 gets its status, and the connection ends: what hides behind it is never read."""
    async with connect(edge.port) as socket:
        await socket.send(head + request_head() + frame(TEXT, b"smuggled"))
        raw = await socket.rest()
        assert raw.split(b" ")[1] == str(status).encode(), raw
        assert b" 101 " not in raw
        assert (b"Sec-WebSocket-Version: 13" in raw) == (b'"unsupported_version"' in raw)
    assert edge.received == []


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ({}, "/parties/chat/lobby"),
        ({"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket"}, "/parties/chat/a:b~c.d"),
        ({"Connection": ["keep-alive", "Upgrade"]}, "/parties/chat/lobby?_pk=%2e%2e&x=%00"),
        ({"Content-Length": "0"}, "/parties/c-h_4/lobby?"),
        ({"Origin": "https://rooms.test"}, "/parties/chat/" + "x" * 128),
        ({"Origin": "https://app.test", "X-Name": "\xff"}, "/parties/chat/...x"),
        ({"Sec-WebSocket-Extensions": "permessage-deflate"}, "/parties/chat/lobby"),
        ({"Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=99"}, "/parties/chat/lobby"),
    ],
)
async def test_good_handshake_joins(edge: EchoEdge, headers: dict[str, str | list[str] | None], target: str) -> None:
    """Every way a client may rightly ask is answered with 101, never with deflate, and the socket works."""
    async with connect(edge.port) as socket:
        await socket.send(request_head(target, headers))
        answer = await socket.answer()
        assert (answer.status, answer.headers["sec-websocket-accept"]) == (101, ACCEPT)
        assert "sec-websocket-extensions" not in answer.headers
        await socket.send(frame(TEXT, b"hi"))
        assert await socket.frame() == Frame(TEXT, b"hi")
    await finished(edge)


BAD_TARGETS = [
    "/parties",
    "/parties/chat",
    "/partiesX/chat/a",
    "/parties//a",
    "/parties/Chat/a",
    "/parties/%63hat/a",
    "/%70arties/chat/a",
    "/parties/../parties/chat/a",
    "/parties/chat/../../etc/passwd",
    "http://rooms.test/parties/chat/a",
]
BAD_NAMES = (
    ". .. %2e%2e %2E ...%2e a%20b a%2Fb a%00 a%0d%0aX:%20y %ff%fe % %7E a%3Ab {name} a;b a+b a,b a@b a=b"
    " a&b a$b a!b a*b a\\b a|b a'b a\"b a(b) <a> [a] ^ ` a/b a/ a#b"
)
UNPARSED_TARGETS = [
    "/parties/chat/a b",
    "/parties/chat/a\x00",
    "/parties/chat/a\x01",
    "/parties/chat/a\tb",
    "/parties/chat/a\x7f",
    "/parties/chat/\xff",
    "/parties/chat/\xc3\xa9",
    "parties/chat/a",
    "*",
    "rooms.test:443",
]


@pytest.mark.parametrize(
    "target", BAD_TARGETS + [f"/parties/chat/{name}" for name in ["", "x" * 129, "x" * 5_000, *BAD_NAMES.split()]]
)
async def test_bad_room_is_refused(edge: EchoEdge, target: str) -> None:
    """A target that is not plainly a room's is refused in JSON on its raw text, for sockets and for plain requests."""
    for head in (request_head(target), request_head(target, {"Upgrade": None, "Connection": None}, method="POST")):
        async with connect(edge.port) as socket:
            await socket.send(head)
            answer = await socket.answer()
            assert answer.status in {400, 404}
            assert json.loads(answer.body)["error"] == "invalid_room"
            assert await socket.rest() == b""


@pytest.mark.parametrize("target", [*UNPARSED_TARGETS, "//parties/chat/a", "//h/parties/chat/a", "/other"])
async def test_target_outside_the_rooms_is_refused(edge: EchoEdge, target: str) -> None:
    """What aiohttp's parser or router refuses before our check is refused too, and with no 500."""
    async with connect(edge.port) as socket:
        await socket.send(request_head(target))
        assert (await socket.answer()).status in {400, 404}
    assert edge.received == []


async def test_plain_http_reaches_the_room(edge: EchoEdge) -> None:
    """The same URL without a handshake is plain HTTP."""
    async with ClientSession() as session, session.post(f"http://127.0.0.1:{edge.port}/parties/chat/a") as answer:
        assert (answer.status, await answer.text()) == (200, "plain chat/a")


async def drain(socket: RawSocket) -> int:
    """Return the code a socket ends with, 0 if it ends without one."""
    try:
        return await socket.close_code()
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return 0


@pytest.mark.parametrize("seed", range(40))
async def test_noise_ends_every_socket(edge: EchoEdge, seed: int) -> None:
    """Whatever noise comes, the socket ends with a code of the table and its handler returns."""
    source = random.Random(seed)
    noise = source.randbytes(source.randrange(1, 3_000))
    async with connect(edge.port) as socket:
        await socket.send(request_head() + noise)
        assert (await socket.answer()).status == 101
        await socket.send(frame(3) * 2_000)
        assert await drain(socket) in {1000, 1002, 1007, 1008, 1009}
    await finished(edge)
