"""The frame guard alone: no socket, no loop."""

import asyncio
import random
from itertools import pairwise
from typing import Any
from unittest.mock import Mock, call

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st

from harness.rawsocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame
from innkeeper.close_codes import INVALID_UTF8, PROTOCOL_ERROR, TOO_BIG, TOO_MANY_FRAGMENTS, CloseCode
from innkeeper_edge.frames import encode_close
from innkeeper_edge.guard import FrameGuard, is_utf8
from innkeeper_edge.guarded_socket import GuardedSocket, install

LIMIT_BYTES = 300


class Wire:
    """A guard with everything it touches written down, in order."""

    def __init__(self, max_message_bytes: int = LIMIT_BYTES) -> None:
        self.events: list[Any] = []
        self.codes: list[CloseCode] = []
        self.guard = FrameGuard(self, self, max_message_bytes=max_message_bytes)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Stand in for aiohttp's reader."""
        assert data, "the reader was called with nothing"
        self.events.append(data)
        return False, b""

    def feed_eof(self) -> None:
        """Stand in for aiohttp's reader."""
        self.events.append("eof")

    def violated(self, code: CloseCode) -> None:
        """Stand in for the owner of the socket."""
        self.events.append(code)
        self.codes.append(code)

    admits_control = staticmethod(lambda: True)

    def peer_closed(self) -> None:
        """Stand in for the owner of the socket."""
        self.events.append("peer closed")

    def connection_lost(self) -> None:
        """Stand in for the owner of the socket."""
        self.events.append("lost")

    @property
    def passed(self) -> bytes:
        """What the reader got before the violation."""
        cut = next((i for i, event in enumerate(self.events) if isinstance(event, CloseCode)), len(self.events))
        return b"".join(event for event in self.events[:cut] if isinstance(event, bytes | bytearray | memoryview))

    @property
    def after(self) -> list[Any]:
        """What was seen after the violation."""
        return self.events[self.events.index(self.codes[0]) + 1 :] if self.codes else []


def run(chunks: list[bytes], max_message_bytes: int = LIMIT_BYTES) -> Wire:
    """Feed chunks to a new guard."""
    wire = Wire(max_message_bytes)
    for chunk in filter(None, chunks):
        assert wire.guard.feed_data(chunk) == (False, b"")
    return wire


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut data at the given places, taken modulo its length."""
    places = sorted({place % (len(data) + 1) for place in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


def bytewise(data: bytes) -> list[bytes]:
    """Cut data into single bytes."""
    return [data[at : at + 1] for at in range(len(data))]


GOOD = {
    "text": frame(TEXT, b"hi"),
    "binary": frame(BINARY, bytes(range(200))),
    "empty": frame(TEXT),
    "exactly the limit": frame(TEXT, b"x" * LIMIT_BYTES),
    "exactly the limit in three": frame(TEXT, b"x" * 100, fin=False)
    + frame(CONTINUATION, b"x" * 100, fin=False)
    + frame(CONTINUATION, b"x" * 100),
    "two messages of the limit": frame(TEXT, b"x" * LIMIT_BYTES) * 2,
    "empty first fragment": frame(TEXT, fin=False) + frame(CONTINUATION, b"x"),
    "64 fragments": frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 62 + frame(CONTINUATION, b"x"),
    "64 fragments twice": (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 62 + frame(CONTINUATION)) * 2,
    "ping and pong in a message": frame(TEXT, b"a", fin=False) + frame(PING, b"p" * 125) + frame(PONG) + frame(0, b"b"),
    "close without a body": frame(CLOSE),
    "close": close_frame(1000),
    "close with a reason": close_frame(4999, "é".encode()),
    "close with a long reason": close_frame(3000, b"x" * 123),
    "close codes": b"".join(close_frame(code) for code in (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 4000)),
}

_OPEN = frame(TEXT, b"a", fin=False)
BAD: dict[str, tuple[bytes, bytes, CloseCode]] = {
    "unmasked text": (b"", frame(TEXT, b"hi", masked=False), PROTOCOL_ERROR),
    "unmasked ping": (b"", frame(PING, masked=False), PROTOCOL_ERROR),
    "unmasked close": (b"", frame(CLOSE, masked=False), PROTOCOL_ERROR),
    "unmasked continuation": (_OPEN, frame(CONTINUATION, b"b", masked=False), PROTOCOL_ERROR),
    **{f"rsv {rsv}": (b"", frame(TEXT, b"hi", rsv=rsv), PROTOCOL_ERROR) for rsv in range(1, 8)},
    "rsv1 on a ping": (b"", frame(PING, rsv=4), PROTOCOL_ERROR),
    "rsv1 on a continuation": (_OPEN, frame(CONTINUATION, rsv=4), PROTOCOL_ERROR),
    **{f"opcode {opcode}": (b"", frame(opcode), PROTOCOL_ERROR) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "unknown opcode in a message": (_OPEN, frame(3), PROTOCOL_ERROR),
    "ping in two": (b"", frame(PING, b"x", fin=False), PROTOCOL_ERROR),
    "pong in two": (b"", frame(PONG, fin=False), PROTOCOL_ERROR),
    "close in two": (b"", frame(CLOSE, fin=False), PROTOCOL_ERROR),
    "ping of 126": (b"", frame(PING, b"x" * 126), PROTOCOL_ERROR),
    "ping with a 64-bit length": (b"", frame(PING, b"x", length_bytes=8), PROTOCOL_ERROR),
    "close of 126": (b"", frame(CLOSE, b"\x03\xe8" + b"x" * 124), PROTOCOL_ERROR),
    "continuation of nothing": (b"", frame(CONTINUATION, b"x"), PROTOCOL_ERROR),
    "continuation after a whole message": (frame(TEXT, b"hi"), frame(CONTINUATION, b"x"), PROTOCOL_ERROR),
    "open continuation of nothing": (b"", frame(CONTINUATION, fin=False), PROTOCOL_ERROR),
    "text in a message": (_OPEN, frame(TEXT, b"b"), PROTOCOL_ERROR),
    "binary in a message": (_OPEN, frame(BINARY, b"b", fin=False), PROTOCOL_ERROR),
    "text after an empty fragment": (frame(TEXT, fin=False), frame(TEXT, b"b"), PROTOCOL_ERROR),
    "binary after an empty fragment": (frame(BINARY, fin=False), frame(BINARY, b"b"), PROTOCOL_ERROR),
    "text after empty fragments": (frame(TEXT, fin=False) + frame(0, fin=False), frame(TEXT), PROTOCOL_ERROR),
    "65 fragments": (frame(TEXT, fin=False) + frame(0, fin=False) * 63, frame(0), TOO_MANY_FRAGMENTS),
    "one byte too many": (b"", frame(TEXT, b"x" * (LIMIT_BYTES + 1)), TOO_BIG),
    "too big, only announced": (b"", frame(TEXT, claimed_bytes=2**62), TOO_BIG),
    "too big in the second": (frame(TEXT, b"x" * 200, fin=False), frame(0, b"x" * 101, fin=False), TOO_BIG),
    "too big in the second, with a ping": (frame(TEXT, b"x" * 300, fin=False) + frame(PING), frame(0, b"x"), TOO_BIG),
    "5 in 16 bits": (b"", frame(TEXT, b"hello", length_bytes=2), PROTOCOL_ERROR),
    "125 in 16 bits": (b"", frame(TEXT, b"x" * 125, length_bytes=2), PROTOCOL_ERROR),
    "126 in 64 bits": (b"", frame(TEXT, b"x" * 126, length_bytes=8), PROTOCOL_ERROR),
    "65535 in 64 bits": (b"", frame(TEXT, claimed_bytes=65_535, length_bytes=8), PROTOCOL_ERROR),
    "top bit of 64": (b"", frame(TEXT, claimed_bytes=2**63), PROTOCOL_ERROR),
    "all bits of 64": (b"", frame(TEXT, claimed_bytes=2**64 - 1), PROTOCOL_ERROR),
    "close of one byte": (b"", frame(CLOSE, b"\x03"), PROTOCOL_ERROR),
    **{
        f"close {code}": (b"", close_frame(code), PROTOCOL_ERROR)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535)
    },
    "close with a broken reason": (b"", close_frame(1000, b"\xff\xfe"), INVALID_UTF8),
    "close with a surrogate": (b"", close_frame(1000, b"\xed\xa0\x80"), INVALID_UTF8),
    "close 1006 in a message": (_OPEN, close_frame(1006), PROTOCOL_ERROR),
}


@pytest.mark.parametrize("stream", GOOD.values(), ids=GOOD)
def test_what_the_rfc_allows_passes(stream: bytes) -> None:
    """A stream without a violation reaches the reader as it came, whole or byte by byte."""
    for chunks in ([stream], bytewise(stream)):
        wire = run(chunks)
        assert wire.passed == stream
        assert wire.codes == []


@pytest.mark.parametrize(("before", "bad", "code"), BAD.values(), ids=BAD)
def test_what_the_rfc_forbids_is_stopped(before: bytes, bad: bytes, code: CloseCode) -> None:
    """All up to the forbidden frame is passed on, the violation is told once, and nothing after it gets through."""
    for chunks in ([before + bad], [before, bad], bytewise(before + bad), [before, bad, frame(TEXT, b"x") * 3]):
        wire = run(chunks)
        assert wire.passed == before
        assert wire.codes == [code]
        assert set(wire.after) <= {"peer closed"}


def test_size_is_judged_on_the_header() -> None:
    """A message that will be too big is refused before any of its payload, and even of its mask, has come."""
    assert run([frame(BINARY, claimed_bytes=70_000)[:10]]).codes == [TOO_BIG]
    assert run([frame(BINARY, claimed_bytes=301)[:4]]).codes == [TOO_BIG]


def test_first_two_bytes_are_enough() -> None:
    """A bad start of a frame is refused although its length has not come yet."""
    assert run([b"\xf1\xfe"]).codes == run([b"\x89\xfe"]).codes == [PROTOCOL_ERROR]


@pytest.mark.parametrize("limit_bytes", [0, 1, 124, 125, 126])
def test_small_limits_hold(limit_bytes: int) -> None:
    """The short way through the guard knows the limit too."""
    assert run([frame(TEXT, b"x" * limit_bytes)], limit_bytes).codes == []
    assert run([frame(TEXT, b"x" * (limit_bytes + 1))], limit_bytes).codes == [TOO_BIG]


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_buffers_are_taken(kind: type[Any]) -> None:
    """The proactor loop's bytearrays are as good as bytes, on the short way and on the long one."""
    for data in (frame(TEXT, b"hi"), frame(TEXT, b"x" * 200), frame(TEXT, b"a") * 2):
        assert run([kind(data)]).passed == data, data


def test_payload_is_not_copied() -> None:
    """A read that ends with a frame, or inside a payload, is handed on as the very same object."""
    stream = frame(BINARY, b"x" * 300)
    chunks = [stream[:150], stream[150:], frame(TEXT, b"hi")]
    wire = run(chunks)
    assert [id(event) for event in wire.events] == [id(chunk) for chunk in chunks]


def test_readers_own_verdict_is_returned() -> None:
    """What the reader answers is the guard's answer, so aiohttp can still end the connection by itself."""
    wire = Wire()
    wire.feed_data = lambda data: (True, b"")  # type: ignore[method-assign]  # noqa: ARG005 - as the reader
    assert wire.guard.feed_data(frame(TEXT, b"hi")) == wire.guard.feed_data(frame(TEXT, b"x" * 200)) == (True, b"")


def test_end_of_connection_is_passed_on() -> None:
    """Reader and owner hear of the end, before a violation and after one."""
    wire = run([frame(TEXT, b"x")])
    wire.guard.feed_eof()
    assert wire.events[1:] == ["eof", "lost"]
    wire = run([frame(3)])
    wire.guard.feed_eof()
    assert wire.events == [PROTOCOL_ERROR, "eof", "lost"]


@pytest.mark.parametrize("bytes_each", [1, 2, 3, 7, 50, 1_000])
def test_peers_close_ends_the_discarding(bytes_each: int) -> None:
    """After a violation frames of all lengths are dropped until the peer has closed, which is told."""
    rest = b"".join(
        (
            frame(TEXT, b"x" * 400),
            frame(TEXT, b"x" * 70_000),
            frame(TEXT, b"\x88" * 50, masked=False),
            frame(PING),
            frame(3, b"\x88" * 126),
            close_frame(1009),
        )
    )
    stream = rest + frame(TEXT, b"late")
    wire = run([stream[at : at + bytes_each] for at in range(0, len(stream), bytes_each)])
    assert wire.events == [TOO_BIG, "peer closed"]


def test_forbidden_close_ends_the_handshake_too() -> None:
    """A close frame with a forbidden code is still the peer's goodbye."""
    for bad in (close_frame(1006), frame(CLOSE, masked=False), frame(CLOSE, b"x" * 200), frame(CLOSE, b"x", fin=False)):
        assert run([bad]).events == [PROTOCOL_ERROR, "peer closed"]
        assert run(bytewise(bad)).events == [PROTOCOL_ERROR, "peer closed"]
        assert "peer closed" not in run(bytewise(bad)[:-1]).events


@pytest.mark.parametrize("place", range(8 + 206 + 6))
def test_discarding_starts_anywhere(place: int) -> None:
    """Told to discard at any byte, the guard passes nothing more on and still finds the peer's close frame."""
    stream = frame(TEXT, b"\x88\x88") + frame(TEXT, b"\x88" * 198) + close_frame(1000)
    wire = run([stream[:place]])
    passed = wire.passed
    wire.guard.discard()
    wire.guard.feed_data(stream[place:])
    assert wire.passed == passed
    assert wire.events[-1] == "peer closed"


messages = st.tuples(st.sampled_from([TEXT, BINARY]), st.lists(st.binary(max_size=140), min_size=1, max_size=4))
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@st.composite
def valid_streams(draw: st.DrawFn) -> bytes:
    """Draw whole messages in fragments with control frames between them."""
    frames: list[bytes] = []
    for opcode, parts in draw(st.lists(messages, max_size=6)):
        for index, part in enumerate(parts):
            frames.append(frame(opcode if index == 0 else CONTINUATION, part, fin=index == len(parts) - 1))
            frames += [frame(*control) for control in draw(st.lists(controls, max_size=1))]
    return b"".join(frames)


@given(valid_streams(), st.lists(st.integers(0, 4_000), max_size=12))
def test_cutting_a_valid_stream_changes_nothing(stream: bytes, cuts: list[int]) -> None:
    """However the wire cuts a valid stream, the reader gets the same bytes and nobody is accused."""
    wire = run(cut(stream, cuts), 1_000)
    assert wire.passed == stream
    assert wire.codes == []


@st.composite
def any_frames(draw: st.DrawFn) -> bytes:
    """Draw frames of which each may break any rule."""
    opcode = draw(st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, CONTINUATION, PING, PONG, CLOSE, 3, 11]))
    payload = draw(st.one_of(st.binary(max_size=130), st.sampled_from([b"\x03\xe8", b"\x03\xee", b"x" * 299])))
    wide = len(payload) > 125
    return frame(
        opcode,
        payload,
        fin=draw(st.sampled_from([True, True, False])),
        rsv=draw(st.sampled_from([0] * 15 + [4])),
        masked=draw(st.sampled_from([True] * 15 + [False])),
        length_bytes=draw(st.sampled_from([None] * 9 + [2 if wide else 0, 8])),
    )


SENDABLE = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}


def judge(stream: bytes) -> tuple[int, CloseCode | None]:
    """Return where the first forbidden frame starts and its code: the rules once more, slowly, on whole frames."""
    at, parts, total = 0, 0, 0
    while at < len(stream):
        first, second = stream[at], stream[at + 1]
        opcode, final, size, head = first & 15, first >> 7, second & 127, 2
        wide = {126: 2, 127: 8}.get(size, 0)
        if wide:
            size, head = int.from_bytes(stream[at + 2 : at + 2 + wide], "big"), 2 + wide
        body = bytes(
            b ^ stream[at + head + (i & 3)] for i, b in enumerate(stream[at + head + 4 : at + head + 4 + size])
        )
        shortest = {0: 0, 2: 126, 8: 65_536}[wide] <= size
        known = opcode in ({CONTINUATION} if parts else {TEXT, BINARY}) | {CLOSE, PING, PONG}
        if first & 0x70 or not known or not second >> 7 or (opcode > 7 and (wide or not final)) or not shortest:
            return at, PROTOCOL_ERROR
        if opcode == CLOSE and body and (len(body) == 1 or int.from_bytes(body[:2], "big") not in SENDABLE):
            return at, PROTOCOL_ERROR
        if opcode == CLOSE and not is_utf8(body[2:]):
            return at, INVALID_UTF8
        if opcode < 3:
            parts, total = parts + 1, total + size
            if total > LIMIT_BYTES:
                return at, TOO_BIG
            if parts > 64:
                return at, TOO_MANY_FRAGMENTS
            parts, total = (0, 0) if final else (parts, total)
        at += head + 4 + size
    return at, None


@given(st.lists(any_frames(), max_size=8), st.lists(st.integers(0, 4_000), max_size=12))
@example([frame(TEXT, fin=False)] + [frame(CONTINUATION, fin=False)] * 64, [])
def test_guard_agrees_with_the_slow_rules(frames: list[bytes], cuts: list[int]) -> None:
    """On any sequence of frames, cut anywhere, the guard finds the same first violation as the plain rules."""
    stream = b"".join(frames)
    place, code = judge(stream)
    wire = run(cut(stream, cuts))
    assert wire.passed == stream[:place]
    assert wire.codes == ([code] if code else [])


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=12))
def test_noise_is_judged_the_same_however_cut(noise: bytes, cuts: list[int]) -> None:
    """Random bytes never raise, never get through beyond a violation, and cutting them changes no verdict."""
    whole, pieces = run([noise]), run(cut(noise, cuts))
    assert noise.startswith(whole.passed)
    assert (whole.passed, whole.codes, whole.after) == (pieces.passed, pieces.codes, pieces.after)
    assert len(whole.codes) <= 1


def test_heavy_noise() -> None:
    """Ten thousand mutations of a valid stream neither raise nor hang, and each is accused at most once."""
    source = random.Random(7)
    stream = GOOD["ping and pong in a message"] + GOOD["binary"] + GOOD["64 fragments"]
    for _ in range(10_000):
        mutant = bytearray(stream)
        for _ in range(source.randrange(1, 4)):
            mutant[source.randrange(len(mutant))] = source.randrange(256)
        place = source.randrange(len(mutant))
        wire = run([bytes(mutant[:place]), bytes(mutant[place:])])
        assert len(wire.codes) <= 1
        assert mutant.startswith(wire.passed)


@pytest.mark.parametrize("payload", [b"", b"plain", "é€🦊".encode(), bytearray("é".encode())])
def test_utf8_is_recognised(payload: bytes | bytearray) -> None:
    """Text with and without characters beyond ASCII is UTF-8."""
    assert is_utf8(payload)


@pytest.mark.parametrize("payload", [b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\x80"])
def test_what_is_not_utf8_is_told(payload: bytes) -> None:
    """Broken, overlong, surrogate and out-of-range sequences are not UTF-8."""
    assert not is_utf8(payload)
    assert not is_utf8(bytearray(payload))


def guarded(linger_s: float = 60) -> tuple[GuardedSocket, FrameGuard, Mock, list[CloseCode]]:
    """Return a socket, its guard, its transport, and the violations told."""
    transport = Mock(spec=asyncio.Transport, **{"is_closing.return_value": False, "is_reading.return_value": True})
    codes: list[CloseCode] = []
    socket = GuardedSocket(transport, codes.append, linger_s=linger_s)
    return socket, socket.guard(Wire(), max_message_bytes=LIMIT_BYTES), transport, codes


def deeds(transport: Mock) -> list[Any]:
    """Return what was done to a transport, without what was only asked."""
    return [deed for deed in transport.method_calls if not deed[0].startswith("is_")]


TOO_BIG_CLOSE = call.write(encode_close(1009, "message too big"))


async def test_violation_closes_by_itself() -> None:
    """A violation is told, answered with its close frame, and ends when the peer has closed."""
    socket, parser, transport, codes = guarded()
    parser.feed_data(frame(TEXT, b"x" * 301))
    assert (codes, socket.closing_code, deeds(transport)) == ([TOO_BIG], 1009, [TOO_BIG_CLOSE])
    parser.feed_data(frame(TEXT, b"more") + close_frame(1009))
    assert deeds(transport) == [TOO_BIG_CLOSE, call.close()]
    parser.feed_eof()
    await socket.wait_closed()
    assert socket._deadline is not None
    assert socket._deadline.cancelled()


async def test_first_close_counts() -> None:
    """Closing twice, or violating after a close, sends one close frame and tells of no violation."""
    socket, parser, transport, codes = guarded()
    socket.close(1009, TOO_BIG.reason)
    socket.close(4000, "mine")
    parser.feed_data(frame(3))
    assert (codes, socket.closing_code, deeds(transport)) == ([], 1009, [TOO_BIG_CLOSE])
    parser.feed_eof()


async def test_forbidden_code_closes_nothing() -> None:
    """A code that may not be sent is the caller's error, and the socket stays as it was."""
    socket, parser, transport, _ = guarded()
    with pytest.raises(ValueError, match="close code 1005 may not stand in a frame"):
        socket.close(1005, "")
    parser.feed_data(frame(TEXT, b"hi"))
    assert (socket.closing_code, deeds(transport)) == (None, [])


async def test_lost_connection_is_not_closed() -> None:
    """Where the connection is closing or gone nothing is written, and nobody waits."""
    socket, parser, transport, _ = guarded()
    transport.is_closing.return_value = True
    socket.close(1009, TOO_BIG.reason)
    parser.feed_eof()
    await socket.wait_closed()
    assert (socket.closing_code, deeds(transport)) == (None, [])


async def test_silent_peer_is_cut_off() -> None:
    """A peer that does not close within the time to linger is cut off."""
    socket, parser, transport, _ = guarded(linger_s=0.01)
    transport.abort.side_effect = parser.feed_eof
    socket.close(1009, TOO_BIG.reason)
    async with asyncio.timeout(5):
        await socket.wait_closed()
    assert deeds(transport) == [TOO_BIG_CLOSE, call.abort()]


async def test_closing_reads_on() -> None:
    """Closing under back-pressure reads again, or the peer's close frame would never be seen."""
    socket, parser, transport, _ = guarded()
    transport.is_reading.return_value = False
    socket.close(1009, TOO_BIG.reason)
    assert deeds(transport) == [TOO_BIG_CLOSE, call.resume_reading()]
    parser.feed_eof()


async def test_client_gone_before_the_handshake() -> None:
    """A client that left before it could be answered is told as a lost connection."""
    request = make_mocked_request("GET", "/")
    request.protocol.transport = None
    with pytest.raises(ConnectionResetError):
        await install(request, web.WebSocketResponse(compress=False), max_message_bytes=1, on_violation=print)


class Socket(web.WebSocketResponse[bool]):
    """A socket whose prepare does only what install needs of it, or not even that."""

    hands_over = True

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Hand a reader over, as aiohttp does, and use the request for other things too."""
        assert request.path == "/"
        if self.hands_over:
            request.protocol.set_parser(Wire(), data_received_cb=None)  # type: ignore[arg-type]
        return request.protocol.keep_alive(False)


async def test_deflate_is_refused() -> None:
    """A socket that would offer deflate is an error of the programmer, told before the handshake."""
    with pytest.raises(RuntimeError, match="make the WebSocketResponse with compress=False"):
        await install(make_mocked_request("GET", "/"), Socket(), max_message_bytes=1, on_violation=print)


async def test_guard_stands_before_the_reader() -> None:
    """The connection is given the guard in place of the reader, and its other arguments as they were."""
    request = make_mocked_request("GET", "/")
    await install(request, Socket(compress=False), max_message_bytes=1, on_violation=print)
    (parser,), others = request.protocol.set_parser.call_args  # type: ignore[attr-defined]
    assert isinstance(parser, FrameGuard)
    assert others == {"data_received_cb": None}


async def test_an_aiohttp_that_works_otherwise_is_noticed() -> None:
    """If prepare does not hand over its reader, install fails and does not leave the socket unguarded."""
    socket = Socket(compress=False)
    socket.hands_over = False
    with pytest.raises(RuntimeError, match=r"the frame guard is not in place: prepare\(\) did not call"):
        await install(make_mocked_request("GET", "/"), socket, max_message_bytes=1, on_violation=print)
