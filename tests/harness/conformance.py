"""Cases of WebSocket conformance, made as tables the way the Autobahn suite makes them: what goes up, what must come.

The room echoes text as text and bytes as bytes. Its largest message is 64 KiB.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from harness.rawsocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_frame, frame

LIMIT_BYTES = 65_536
MOST_FRAGMENTS = 64


class Case(NamedTuple):
    """What a client sends, in pieces, and what it must get.

    Attributes:
        name: What it is about.
        pieces: Each is written by itself.
        echoes: Messages that must come back, in order.
        pongs: Payloads that must come back as pongs, in order.
        code: What the edge must close with; None: it goes on, and closes properly when asked to.
    """

    name: str
    pieces: Sequence[bytes]
    echoes: Sequence[Frame] = ()
    pongs: Sequence[bytes] = ()
    code: int | None = None


def cases() -> list[Case]:
    """Return all cases; their names differ."""
    made = [*_sizes(), *_controls(), *_reserved(), *_opcodes(), *_fragments(), *_texts(), *_closes(), *_limits()]
    assert len({case.name for case in made}) == len(made)
    return made


def _chopped(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _message(opcode: int, payload: bytes, *cuts: int) -> bytes:
    """Return a message whose payload is cut at these places, a frame for each part."""
    places = [0, *cuts, len(payload)]
    parts = [payload[begin:end] for begin, end in pairwise(places)]
    frames = [frame(opcode if not n else CONTINUATION, part, fin=n == len(parts) - 1) for n, part in enumerate(parts)]
    return b"".join(frames)


def _sizes() -> Iterator[Case]:
    """Every length at which the header changes, whole and chopped in different sizes."""
    for opcode, kind in ((TEXT, "text"), (BINARY, "binary")):
        for size in (0, 1, 2, 124, 125, 126, 127, 128, 1_000, 65_534, 65_535, LIMIT_BYTES):
            payload = b"*" * size if opcode == TEXT else bytes(n & 255 for n in range(size))
            data = frame(opcode, payload)
            for chop in (0, 1, 2, 7, 997):
                if chop and (size > 128 * chop or len(data) <= chop):
                    continue
                pieces = _chopped(data, chop) if chop else [data]
                yield Case(f"{kind} of {size}, chopped by {chop}", pieces, [Frame(opcode, payload)])


def _controls() -> Iterator[Case]:
    echo = [Frame(TEXT, b"after")]
    after = frame(TEXT, b"after")
    for size in (0, 1, 2, 16, 64, 124, 125):
        for fill in (b"\x00", b"\xff", b"p"):
            payload = fill * size
            if size or fill == b"p":
                yield Case(f"ping of {size} x {fill!r}", [frame(PING, payload) + after], echo, [payload])
                yield Case(f"pong of {size} x {fill!r}", [frame(PONG, payload) + after], echo)
        yield Case(f"ping of {size}, chopped", _chopped(frame(PING, b"x" * size), 1), (), [b"x" * size])
    for opcode, kind in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
        body = b"\x03\xe8" if opcode == CLOSE else b""
        for size in (126, 127, 1_000, 65_536):
            long = body + b"x" * (size - len(body))
            yield Case(f"{kind} of {size}", [after + frame(opcode, long)], code=1002)
        yield Case(f"{kind} in pieces", [frame(opcode, body, fin=False) + frame(CONTINUATION, b"x")], code=1002)
        yield Case(f"{kind} with a long length", [frame(opcode, body, length_bytes=2)], code=1002)
        yield Case(f"unmasked {kind}", [frame(opcode, body, masked=False)], code=1002)
    pings = [str(n).encode() for n in range(20)]
    yield Case("20 pings at once", [b"".join(frame(PING, each) for each in pings)], (), pings)
    yield Case("20 pings, chopped", _chopped(b"".join(frame(PING, each) for each in pings), 1), (), pings)


def _reserved() -> Iterator[Case]:
    """Every combination of reserved bits, in every frame that may come."""
    for rsv in range(1, 8):
        for opcode, kind in ((TEXT, "text"), (BINARY, "binary"), (PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
            body = b"\x03\xe8" if opcode == CLOSE else b"x"
            yield Case(f"reserved bits {rsv} on {kind}", [frame(opcode, body, rsv=rsv)], code=1002)
        yield Case(
            f"reserved bits {rsv} after a message",
            _chopped(frame(TEXT, b"a") + frame(TEXT, b"b", rsv=rsv) + frame(TEXT, b"c"), 1),
            code=1002,
        )
        open_message = frame(TEXT, b"a", fin=False)
        yield Case(f"reserved bits {rsv} on a continuation", [open_message + frame(0, b"b", rsv=rsv)], code=1002)
        yield Case(f"reserved bits {rsv} between pieces", [open_message + frame(PING, b"", rsv=rsv)], code=1002)


def _opcodes() -> Iterator[Case]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"opcode {opcode}", [frame(opcode)], code=1002)
        yield Case(f"opcode {opcode} with bytes", [frame(opcode, b"payload")], code=1002)
        yield Case(f"opcode {opcode} after a message", [frame(TEXT, b"a") + frame(opcode) + frame(PING)], code=1002)
        yield Case(f"opcode {opcode}, not the end", [frame(opcode, b"x", fin=False)], code=1002)
        yield Case(f"opcode {opcode} in a message", [frame(TEXT, b"a", fin=False) + frame(opcode)], code=1002)
        yield Case(f"opcode {opcode}, chopped", _chopped(frame(opcode, b"payload"), 1), code=1002)


def _fragments() -> Iterator[Case]:
    payload = b"0123456789abcdef"
    for opcode, kind in ((TEXT, "text"), (BINARY, "binary")):
        whole = [Frame(opcode, payload)]
        for cut in range(len(payload) + 1):
            yield Case(f"{kind} cut at {cut}", [_message(opcode, payload, cut)], whole)
        for chop in (1, 3):
            cut_up = _message(opcode, payload, *range(1, 16))
            yield Case(f"{kind} in 16 pieces, chopped by {chop}", _chopped(cut_up, chop), whole)
        yield Case(f"{kind} in 64 pieces", [_message(opcode, b"x" * 64, *range(1, 64))], [Frame(opcode, b"x" * 64)])
        yield Case(f"{kind} in 65 pieces", [_message(opcode, b"x" * 65, *range(1, 65))], code=1008)
        yield Case(f"{kind} in 64 empty pieces", [_message(opcode, b"", *[0] * 63)], [Frame(opcode, b"")])
        for between, control in (("ping", frame(PING, b"?")), ("pong", frame(PONG, b"?"))):
            pongs = [b"?"] if between == "ping" else []
            data = frame(opcode, b"a", fin=False) + control + frame(0, b"b", fin=False) + control + frame(0, b"c")
            yield Case(f"{between} between pieces of {kind}", [data], [Frame(opcode, b"abc")], pongs * 2)
            yield Case(
                f"{between} between pieces of {kind}, chopped", _chopped(data, 1), [Frame(opcode, b"abc")], pongs * 2
            )
        for second, other in ((TEXT, "text"), (BINARY, "binary")):
            for fin in (True, False):
                for first in (b"", b"a"):
                    data = frame(opcode, first, fin=False) + frame(second, b"b", fin=fin)
                    yield Case(f"{other} (end: {fin}) inside {kind} after {first!r}", [data], code=1002)
        yield Case(f"close between pieces of {kind}", [frame(opcode, b"a", fin=False) + close_frame(1000)], code=1000)
    for fin in (True, False):
        for body in (b"", b"x"):
            yield Case(f"continuation of nothing ({fin}, {body!r})", [frame(0, body, fin=fin)], code=1002)
            after = frame(TEXT, b"a") + frame(0, body, fin=fin)
            yield Case(f"continuation of a message that is whole ({fin}, {body!r})", [after], code=1002)
            ended = _message(TEXT, b"ab", 1) + frame(0, body, fin=fin)
            yield Case(f"continuation of a message that has ended ({fin}, {body!r})", [ended], code=1002)


VALID_TEXTS = (
    "κόσμε", "Hello-µ@ßöäüàá-UTF-8!!", "\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufdd0",
    "\ufeff", "\ufffd", "\ufffe", "\uffff", "\U00010000", "\U0001f600", "\U0001fffe", "\U0001ffff", "\U000fffff",
    "\U0010ffff",
)  # fmt: skip
INVALID_TEXTS = (
    b"\x80", b"\xbf", b"\x80\xbf", b"\xc0\x80", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80",
    b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80", b"\xfe", b"\xff", b"\xfe\xfe\xff\xff", b"\xc2", b"\xe2\x82", b"\xf0\x9f\x98",
    b"\xc3(", b"\xe2(\xa1", b"\xf0(\x8c\xbc", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xf7\xbf\xbf\xbf", b"\xf8\x87\xbf\xbf\xbf",
)  # fmt: skip


def _texts() -> Iterator[Case]:
    """Texts at all borders of UTF-8, whole, cut at every byte, and chopped on the wire."""
    for text in VALID_TEXTS:
        data = text.encode()
        name = ascii(text)[:24]
        echo = [Frame(TEXT, data)]
        yield Case(f"text {name}", [frame(TEXT, data)], echo)
        yield Case(f"text {name}, chopped", _chopped(frame(TEXT, data), 1), echo)
        for cut in range(1, len(data)):
            yield Case(f"text {name} cut at {cut}", [_message(TEXT, data, cut)], echo)
    for data in INVALID_TEXTS:
        yield Case(f"no text {data!r}", [frame(TEXT, data)], code=1007)
        yield Case(f"no text {data!r}, within", [frame(TEXT, b"before" + data + b"after")], code=1007)
        yield Case(f"no text {data!r} in pieces", [_message(TEXT, data, *range(1, len(data)))], code=1007)
        yield Case(f"as bytes {data!r}", [frame(BINARY, data)], [Frame(BINARY, data)])
        yield Case(f"close for {data!r}", [close_frame(1000, data)], code=1007)


def _closes() -> Iterator[Case]:
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4499, 4999):
        yield Case(f"close {code}", [close_frame(code)], code=1000)
        yield Case(f"close {code} with a reason, chopped", _chopped(close_frame(code, b"why"), 1), code=1000)
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield Case(f"close {code}", [close_frame(code)], code=1002)
        yield Case(f"close {code} with a reason, chopped", _chopped(close_frame(code, b"why"), 1), code=1002)
    for size in (0, 1, 122, 123):
        yield Case(f"close with a reason of {size}", [close_frame(1000, b"r" * size)], code=1000)
    yield Case("close without a code", [frame(CLOSE)], code=1000)
    yield Case("close of one byte", [frame(CLOSE, b"\x03")], code=1002)
    for then, what in ((frame(TEXT, b"late"), "text"), (frame(PING, b"late"), "ping"), (close_frame(1000), "close")):
        yield Case(f"{what} after a close", [close_frame(1000) + then], code=1000)
    yield Case("message and close at once", [frame(BINARY, b"x") * 5 + close_frame(4321)], code=1000)


def _limits() -> Iterator[Case]:
    for opcode, kind in ((TEXT, "text"), (BINARY, "binary")):
        over = b"x" * (LIMIT_BYTES + 1)
        yield Case(f"{kind} over the limit", [frame(opcode, over)], code=1009)
        yield Case(f"{kind} over the limit in two", [_message(opcode, over, LIMIT_BYTES)], code=1009)
        yield Case(f"{kind} over the limit in 50", [_message(opcode, over, *range(1_300, 65_000, 1_300))], code=1009)
        whole = b"y" * LIMIT_BYTES
        cuts = range(1_040, LIMIT_BYTES, 1_040)
        yield Case(f"{kind} of the limit in {len(cuts) + 1}", [_message(opcode, whole, *cuts)], [Frame(opcode, whole)])
        yield Case(f"{kind} that is only announced", [frame(opcode, claimed_bytes=2**40)], code=1009)
        yield Case(f"{kind} with the top bit", [frame(opcode, claimed_bytes=2**63)], code=1002)
        yield Case(f"{kind} in the long form", [frame(opcode, b"x" * 125, length_bytes=2)], code=1002)
        yield Case(f"{kind} in the longest form", [frame(opcode, b"x" * 200, length_bytes=8)], code=1002)
        yield Case(f"unmasked {kind}", [frame(opcode, b"hi", masked=False)], code=1002)
        many = [Frame(opcode, b"n%d" % n) for n in range(200)]
        yield Case(f"200 of {kind} at once", [b"".join(frame(opcode, each.payload) for each in many)], many)
