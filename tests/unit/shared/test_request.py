"""Requests and responses: what they hold, what they refuse, and how they travel."""

from typing import Any

import pytest

from innkeeper import OutputInvalid, Request, RequestInvalid, Response, Room, User
from innkeeper.request import failure, new_request, response_of


def test_a_request_travels_whole() -> None:
    """Everything of a request comes back from an event's data, line breaks in its body too."""
    sent = Request(
        "POST", "/a%20b", query_all=[("q", "1"), ("q", "2\n")], headers={"x": "é"}, body=b"a\nb\x00",
        user=User("u", "n"),
    )  # fmt: skip
    got = Request.decode(sent.encode())
    assert [getattr(got, name) for name in Request.__slots__] == [getattr(sent, name) for name in Request.__slots__]
    assert got.query == {"q": "2\n"}


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"\x00", {}, (b"\x00", {})),
        (b"", {"X-A": "1"}, (b"", {"x-a": "1"})),
        (None, {}, (b"", {})),
        ("é", {}, ("é".encode(), {"content-type": "text/plain; charset=utf-8"})),
        ([1], {}, (b"[1]", {"content-type": "application/json"})),
        ([1], {"Content-Type": "a/b"}, (b"[1]", {"content-type": "a/b"})),
    ],
)
def test_a_request_of_a_program(body: Any, headers: dict[str, str], expected: Any) -> None:
    """What it gives as a body tells its type, unless the program does."""
    made = new_request("POST", "/a/b", body=body, headers=headers)
    assert (made.body, made.headers) == expected
    assert (made.method, made.path, made.query_all, made.user) == ("POST", "/a/b", [], User("", ""))


def test_the_query_of_a_request_of_a_program() -> None:
    """It stands in the path, or is given; what is given follows, as text."""
    made = new_request("GET", "/a?x=1&y=%20", query={"x": 2})
    assert (made.path, made.query_all, made.query) == ("/a", [("x", "1"), ("y", " "), ("x", "2")], {"x": "2", "y": " "})
    assert new_request("GET", "/", query=[("x", "1"), ("x", "2")]).query_all == [("x", "1"), ("x", "2")]


@pytest.mark.parametrize(
    ("method", "path", "headers", "named"),
    [
        ("", "/", {}, "^method ''"),
        ("G T", "/", {}, "^method 'G T'"),
        (5, "/", {}, "^method 5"),
        ("GET", "a", {}, "^path 'a'"),
        ("GET", "/a b", {}, "^path"),
        ("GET", "/#a", {}, "^path"),
        ("GET", "/\ud800", {}, "^path"),
        ("GET", None, {}, "^path None"),
        ("GET", "/", 5, "^headers 5"),
        ("GET", "/", {"x y": "1"}, "^headers: 'x y'"),
        ("GET", "/", {5: "1"}, "^headers: 5"),
        ("GET", "/", {"X": "a\r\nb: c"}, "^headers: X"),
        ("GET", "/", {"X": b"a"}, "^headers: X"),
        ("GET", "/", {"X": 5}, "^headers: X"),
    ],
)
def test_requests_that_no_program_can_make(method: Any, path: Any, headers: Any, named: str) -> None:
    """They would not pass as HTTP; the error names what is wrong."""
    with pytest.raises(ValueError, match=named):
        new_request(method, path, headers=headers)


def test_bodies_that_no_program_can_send() -> None:
    """The error speaks of the body."""
    for body in (object(), "\ud800", ["x" * 1_048_576]):
        with pytest.raises(OutputInvalid, match=r"^a body "):
            new_request("POST", "/", body=body)


def test_headers_of_a_connection_end_at_it() -> None:
    """What a program hands on of another request loses them, as at an edge."""
    assert new_request("GET", "/", headers={"Connection": "close", "Proxy-Connection": "x", "Via": "é"}).headers == {
        "via": "é"
    }


def test_bodies_that_are_not_what_is_asked_for_say_so() -> None:
    """text() and json() raise RequestInvalid, which is a ValueError."""
    with pytest.raises(RequestInvalid, match="not UTF-8"):
        Request("POST", "/", body=b"\xff").text()
    with pytest.raises(RequestInvalid, match="not JSON"):
        Request("POST", "/", body=b"{").json()
    assert issubclass(RequestInvalid, ValueError)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (204, "", b"")),
        ({"a": [1]}, (200, "application/json", b'{"a":[1]}')),
        (False, (200, "application/json", b"false")),
        ("é", (200, "text/plain; charset=utf-8", "é".encode())),
        (memoryview(b"\x00"), (200, "application/octet-stream", b"\x00")),
        (Response("x", 201, content_type="a/b"), (201, "a/b", b"x")),
        (Response(), (200, "", b"")),
    ],
)
def test_what_a_handler_returns(value: Any, expected: tuple[int, str, bytes]) -> None:
    """Each value has its status, type and bytes, before and after the way through Redis."""
    response = response_of(value)
    for seen in (response, Response.decode(response.encode())):
        assert (seen.status, seen.content_type, seen.body) == expected


@pytest.mark.parametrize("status", [99, 199, 600, "200", True, 2.5, None])
def test_statuses_that_http_does_not_have(status: Any) -> None:
    """Only whole numbers from 200 to 599 are statuses."""
    with pytest.raises(ValueError, match="200 to 599"):
        Response("x", status)


@pytest.mark.parametrize(
    "header",
    [("a b", "x"), ("", "x"), ("x", "a\r\nb: c"), ("x", "é"), ("Content-Length", "1"), ("upgrade", "h2c"), ("x", 1),
     ("Proxy-Connection", "x"), ("Content-Type", "a\r\nb: c"), "x", 5, ("x",)],
)  # fmt: skip
def test_headers_that_must_not_leave(header: Any) -> None:
    """No header breaks the line, none that the edge writes itself, and nothing that is no header."""
    with pytest.raises(ValueError, match="header"):
        Response("x", headers=[header])


def test_a_content_type_among_the_headers() -> None:
    """It is the content type, before and after the way through Redis; with a second one it is refused."""
    response = Response("<p>", headers={"X-A": "1", "Content-Type": "text/html"})
    for seen in (response, Response.decode(response.encode())):
        assert (seen.content_type, [tuple(pair) for pair in seen.headers]) == ("text/html", [("X-A", "1")])
        assert seen.header("content-type") == "text/html"
    assert Response("x", headers=[("content-type", "")]).content_type == "text/plain; charset=utf-8"
    with pytest.raises(ValueError, match=r"content types .*: give one"):
        Response("x", headers={"content-type": "a/b"}, content_type="c/d")
    with pytest.raises(ValueError, match=r"content types .*: give one"):
        Response("x", headers=[("content-type", "a/b"), ("Content-Type", "c/d")])


def test_bodies_that_cannot_be_sent() -> None:
    """Neither a value that JSON lacks, nor half a surrogate, nor more than 1 MiB."""
    for body in (object(), {1, 2}, "\ud800", b"x" * 1_048_577):
        with pytest.raises(OutputInvalid):
            Response(body)


def test_answers_are_read() -> None:
    """A response tells its JSON, text and headers."""
    response = Response({"a": 1}, headers={"X-A": "1"})
    assert (response.json(), response.text(), response.header("x-a"), response.header("x-b")) == (
        {"a": 1}, '{"a":1}', "1", None,
    )  # fmt: skip
    assert (failure(404, "no_requests").status, failure(404, "x").json()) == (404, {"error": "x"})


@pytest.mark.parametrize("seconds", [0, -1, 301, float("nan"), "3"])
def test_a_class_with_a_deadline_that_is_none(seconds: Any) -> None:
    """request_s is above 0 and at most 300 seconds."""
    with pytest.raises(ValueError, match="request_s"):
        type("Late", (Room,), {"request_s": seconds})
