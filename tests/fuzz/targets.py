"""What is fuzzed: each target draws an input, feeds it to the real code, and lets only documented errors pass."""

import asyncio
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from aiohttp.http_websocket import WebSocketReader

from fuzz.noise import mutate, pieces, shuffled_json
from harness.rawsocket import close_frame, frame, request_head
from innkeeper import codec, wire
from innkeeper.client.backoff import Backoff
from innkeeper.client.conversation import Conversation, SessionForgotten
from innkeeper.client.session import FrameInvalid
from innkeeper.request import Request, Response, parse_query
from innkeeper_edge import handshake, requests
from innkeeper_edge.admission import client_address
from innkeeper_edge.guard import FrameGuard, is_utf8
from innkeeper_edge.subprotocol import read_hello, read_message

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_BYTES: Final = 1_000
HELLO: Final = {"hello": {"secret": "0123456789abcdef" * 2, "generation": 3, "last": "17-234177779125905"}}
ANSWER: Final = {"conn": "c-0123456789ab", "at": "10-77", "accepted": 2, "beat": 20}
DOWN: Final = (
    {"hello": ANSWER},
    {"resumed": ANSWER},
    {"resync": ANSWER},
    {"era": "77"},
    {"at": "12-77"},
    {"ack": 3},
    {"ack": 3, "applied": 2},
    {"moved": {"room": "chat/b", "accepted": 1}},
    {"close-soon": 10},
    {"error": "handler_failed", "n": 2, "at": "13-77"},
    {"error": "out_of_order", "expected": 4},
)
HEADERS: Final = (
    "Origin",
    "Cookie",
    "X-Forwarded-For",
    "Sec-WebSocket-Protocol",
    "Content-Length",
    "Transfer-Encoding",
    "Expect",
    "Sec-WebSocket-Extensions",
    "Host",
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Accept",
)
VALUES: Final = (
    "",
    "x",
    "13",
    "0",
    "-1",
    "1e9",
    "websocket",
    "close, Upgrade",
    "chunked",
    "null",
    "https://rooms.test",
    "*",
    "https://rooms.test.evil",
    "10.0.0.1, 203.0.113.5",
    "[::1]:8, unknown",
    "a=b; c=d",
    "\xff\xfe",
    "innkeeper.v1, bearer.x",
    "100-continue",
    "\x01",
    "x" * 9_000,
)
TARGETS_OF_REQUESTS: Final = (
    "/parties/chat/lobby",
    "/parties/chat/lobby/a/b?x=1&y=%ff",
    "/parties/chat/%2e%2e",
    "/parties//x",
    "/parties/c/" + "n" * 200,
    "/innkeeper.js",
    "/healthz",
    "*",
    "http://rooms.test/parties/a/b",
    "/parties/a/b#c",
    "/parties/a/{b}",
    "/?%",
    "//",
)


class _Watcher:
    """Hears of violations, and lets so many pings and pongs pass."""

    def __init__(self, budget: int) -> None:
        self._budget = budget

    def admits_control(self) -> bool:
        """Count it."""
        self._budget -= 1
        return self._budget >= 0

    def violated(self, code: Any) -> None:
        """Look at the code: its reason goes onto the wire."""
        assert 1000 <= code.code < 5000
        assert code.reason.isascii()

    def peer_closed(self) -> None:
        """Hear nothing."""

    def connection_lost(self) -> None:
        """Hear nothing."""


class _Taker:
    """Takes what a member would, and reads it as one would."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def take(self, payload: bytes, *, is_text: bool) -> bool:
        """Read a message in every way in which one is read."""
        _read_up(payload, is_text=is_text)
        return self._rng.random() < 0.9


def _read_up(payload: bytes, *, is_text: bool) -> None:
    if is_text:
        read_hello(payload, "ann")
        if not is_utf8(payload):
            return
    message = read_message(payload, is_text=is_text)
    if message is not None:
        assert 1 <= message[0] < 10**16
        payload = message[1]
    for name in ("json", "raw"):
        try:
            codec.decode_message(name, binary=not is_text, data=bytes(payload))
        except codec.MessageInvalid:
            continue


class Targets:
    """All targets, over one random source.

    Args:
        rng: Draws the inputs.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._protocol = BaseProtocol(self._loop)
        self.all: tuple[Callable[[], bytes], ...] = (
            self.frames,
            self.frames,
            self.upgrade,
            self.controls_up,
            self.controls_down,
            self.envelopes,
            self.wires,
        )

    def frames(self) -> bytes:
        """Feed a stream of frames, right and wrong, in pieces to the guard with aiohttp's reader behind it."""
        rng = self._rng
        data = b"".join(self._frame() for _ in range(rng.randint(1, 6)))
        if rng.random() < 0.5:
            data = mutate(rng, data)
        queue = WebSocketDataQueue(self._protocol, 2**16, loop=self._loop)
        reader = WebSocketReader(queue, LIMIT_BYTES + 1, compress=False, decode_text=False)
        guard = FrameGuard(cast("Any", reader), _Watcher(rng.randint(1, 20)), max_message_bytes=LIMIT_BYTES)
        for piece in pieces(rng, data):
            if rng.random() < 0.5 and not queue._buffer:
                guard.taker = _Taker(rng)
            guard.feed_data(piece)
        while queue._buffer:
            message, *_ = queue._buffer.popleft()
            if isinstance(message, bytes | bytearray):
                _read_up(bytes(message), is_text=True)
        guard.feed_eof()
        return data

    def _frame(self) -> bytes:
        rng = self._rng
        if rng.random() < 0.1:
            return close_frame(rng.randrange(65_536), rng.randbytes(rng.randrange(10)))
        size = rng.choice((0, 1, 5, 20, 125, 126, 300, LIMIT_BYTES, LIMIT_BYTES + 1))
        payload = rng.choice((b"7 {}", b"!" + orjson.dumps(HELLO), rng.randbytes(min(size, 300)), b"a" * size))
        opcode = rng.choice((0, 1, 1, 1, 2, 2, 8, 9, 10, rng.randrange(16)))
        return frame(
            opcode,
            payload,
            fin=rng.random() < 0.8,
            rsv=rng.randrange(8) if rng.random() < 0.05 else 0,
            masked=rng.random() < 0.95,
            claimed_bytes=rng.randrange(2**63) if rng.random() < 0.05 else None,
        )

    def upgrade(self) -> bytes:
        """Feed a request's head to aiohttp's parser, and what it makes of it to all that judges a handshake."""
        rng = self._rng
        changes: dict[str, str | list[str] | None] = {}
        for _ in range(rng.randrange(4)):
            values = [rng.choice(VALUES) for _ in range(rng.randint(1, 2))]
            changes[rng.choice(HEADERS)] = rng.choice((None, values[0], values))
        method = rng.choice(("GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "PRI", "G\xcbT"))
        version = rng.choice((" HTTP/1.1", " HTTP/1.1", " HTTP/1.1", " HTTP/1.0", " HTTP/2.0", " HTTP/9", ""))
        data = request_head(rng.choice(TARGETS_OF_REQUESTS), changes, method=method, version=version)
        if rng.random() < 0.5:
            data = mutate(rng, data)
        parser = HttpRequestParser(
            self._protocol, self._loop, 2**16, max_line_size=8_190, max_field_size=8_190, auto_decompress=False
        )
        try:
            for piece in pieces(rng, data):
                messages, upgraded, _ = parser.feed_data(piece)
                for message, _ in messages:
                    self._judge(message)
                if upgraded:
                    break
        except HttpProcessingError:
            pass  # answered with 400
        return data

    def _judge(self, message: Any) -> None:
        request = cast(
            "Any",
            SimpleNamespace(
                raw_path=message.path, headers=message.headers, method=message.method, version=message.version
            ),
        )
        handshake.room_address(request)
        handshake.request_target(request)
        handshake.wants_socket(request)
        handshake.offers(request, "innkeeper.v1")
        for refused in (
            handshake.check_handshake(request),
            handshake.check_origin(request, frozenset({"https://app.test"})),
        ):
            if refused is not None:
                refused.response()
        client_address("127.0.0.1", request.headers.getall("X-Forwarded-For", ()), ())
        parse_query(message.path.partition("?")[2])
        for value in requests._headers(request, ("authorization",)).values():
            value.encode()

    def controls_up(self) -> bytes:
        """Feed control frames and messages of a client, nearly right, to what reads them."""
        rng = self._rng
        data = rng.choice(
            (
                lambda: b"!" + orjson.dumps(HELLO),
                lambda: b"!" + shuffled_json(rng, HELLO),
                lambda: b"12 " + shuffled_json(rng, HELLO),
                lambda: rng.randrange(2**60).to_bytes(8, "big") + rng.randbytes(rng.randrange(20)),
            )
        )()
        if rng.random() < 0.6:
            data = mutate(rng, data)
        for is_text in (True, False):
            _read_up(data, is_text=is_text)
        return data

    def controls_down(self) -> bytes:
        """Feed what an edge might say, and what none would, to the client's side of the subprotocol."""
        rng = self._rng
        told: list[object] = []
        talk = Conversation(rng.choice(("json", "raw")), Backoff(), told.append, lambda: 0.0)
        talk.begin()
        kept = b""
        try:
            talk.heard("!" + orjson.dumps({"hello": ANSWER | {"accepted": 0}}).decode())
            for _ in range(rng.randint(1, 5)):
                data = rng.choice(
                    (
                        lambda: b"!" + orjson.dumps(rng.choice(DOWN)),
                        lambda: b"!" + shuffled_json(rng, rng.choice(DOWN)),
                        lambda: b"%d {}" % rng.randrange(100),
                        lambda: rng.randbytes(rng.randrange(30)),
                    )
                )()
                kept = mutate(rng, data) if rng.random() < 0.4 else data
                talk.heard(kept if rng.random() < 0.2 else kept.decode(errors="replace"))
        except (FrameInvalid, SessionForgotten):
            talk.lost(1002, "broken")
        return kept

    def envelopes(self) -> bytes:
        """Feed requests, answers and messages of rooms, nearly right, to what reads them."""
        rng = self._rng
        head = rng.choice(
            (
                ["GET", "/a", [["x", "1"]], {"host": "x"}, ["u", "Ann"]],
                [200, "text/plain", {"x-a": "b"}],
                {"a": [1, {"b": None}]},
            )
        )
        data = shuffled_json(rng, head) + b"\n" + rng.randbytes(rng.randrange(10))
        if rng.random() < 0.5:
            data = mutate(rng, data)
        for decode in (Request.decode, Response.decode):
            try:
                decode(data)
            except ValueError:
                continue
        _read_up(data, is_text=True)
        return data

    def wires(self) -> bytes:
        """Feed published batches, bells and outlog entries, nearly right, to what reads them."""
        rng = self._rng
        data = rng.choice(
            (
                b"9-234 235 10 12 7\ntext *\n3\nabc",
                b"1-2 3 4 5 6\n",
                b"5-17 text c-1 e-1 3\nabc",
                b"text +1 +2",
                b"4321 told to",
                b"1\n2\n3",
                b"",
                rng.randbytes(30),
            )
        )
        data = mutate(rng, data)
        for read in (wire.read_batch, wire.read_news, wire.parse_id):
            try:
                cast("Callable[[bytes], object]", read)(data)
            except ValueError:
                continue
        return data
