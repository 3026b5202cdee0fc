"""The short way of small messages: straight from the guard to the member, never past what goes through the reader."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from innkeeper.close_codes import INVALID_UTF8, CloseCode
from innkeeper_edge.guard import FrameGuard, FrameReader
from innkeeper_edge.guarded_socket import GuardedSocket
from innkeeper_edge.limits import Limits
from innkeeper_edge.member import PENDING_COUNT, Member
from innkeeper_edge.rates import Rates

MASK = b"\x01\x80\xfe\x7f"


def frame(payload: bytes, first: int = 0x81) -> bytes:
    """Return one masked frame of a client."""
    size = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes((first,)) + size + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))


class Reader:
    """Notes what the guard passes on."""

    def __init__(self, taken: list[tuple[str, bytes]]) -> None:
        self._taken = taken

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Note bytes."""
        self._taken.append(("reader", data))
        return False, b""

    def feed_eof(self) -> None:
        """Note nothing."""


class Taker:
    """Takes ``count`` messages, then asks for no more."""

    def __init__(self, taken: list[tuple[str, bytes]], count: int = 1_000) -> None:
        self._taken = taken
        self._left_count = count

    def take(self, payload: bytes, *, is_text: bool) -> bool:
        """Note a message."""
        self._taken.append(("text" if is_text else "binary", payload))
        self._left_count -= 1
        return self._left_count > 0


class Watcher:
    """Hears of violations."""

    def __init__(self) -> None:
        self.codes: list[CloseCode] = []

    def violated(self, code: CloseCode) -> None:
        """Note it."""
        self.codes.append(code)

    def admits_control(self) -> bool:
        """Let it pass."""
        return True

    def peer_closed(self) -> None:
        """Note nothing."""

    def connection_lost(self) -> None:
        """Note nothing."""


def guarded(taken: list[tuple[str, bytes]], count: int = 1_000) -> tuple[FrameGuard, Watcher]:
    """Return a guard with a taker."""
    watcher = Watcher()
    guard = FrameGuard(cast("FrameReader", Reader(taken)), watcher, max_message_bytes=1_000)
    guard.taker = Taker(taken, count)
    return guard, watcher


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 99, 125])
def test_a_small_whole_message_goes_straight_to_its_taker(size: int) -> None:
    """Text and binary payloads of every small size arrive unmasked; the reader sees nothing."""
    taken: list[tuple[str, bytes]] = []
    guard, _ = guarded(taken)
    payload = bytes(n * 7 % 256 for n in range(size))
    assert guard.feed_data(frame(payload, 0x82)) == (False, b"")
    assert guard.feed_data(cast("bytes", bytearray(frame(payload.hex()[:size].encode())))) == (False, b"")
    assert taken == [("binary", payload), ("text", payload.hex()[:size].encode())]


@pytest.mark.parametrize(
    "pieces",
    [
        [frame(b"x" * 126)],
        [frame(b"a") + frame(b"b")],
        [frame(b"a", 0x01), frame(b"b", 0x80)],
        [frame(b"a")[:3], frame(b"a")[3:]],
        [frame(b"a", 0x89)],
        [frame(b"a", 0x8A)],
    ],
    ids=["large", "two in a read", "fragments", "halves", "ping", "pong"],
)
def test_whatever_went_to_the_reader_is_not_overtaken(pieces: Sequence[bytes]) -> None:
    """All else goes to the reader, and with it every later message until the taker is set again."""
    taken: list[tuple[str, bytes]] = []
    guard, _ = guarded(taken)
    for piece in (*pieces, frame(b"after")):
        guard.feed_data(piece)
    assert b"".join(data for where, data in taken if where == "reader") == b"".join((*pieces, frame(b"after")))
    assert {where for where, _ in taken} == {"reader"}
    guard.taker = Taker(taken)
    guard.feed_data(frame(b"again"))
    assert taken[-1] == ("text", b"again")


def test_a_taker_that_has_enough_gets_no_more() -> None:
    """Where the taker asks to stop, the reader's back-pressure takes over."""
    taken: list[tuple[str, bytes]] = []
    guard, _ = guarded(taken, count=2)
    for data in (b"1", b"2", b"3"):
        guard.feed_data(frame(data))
    assert taken == [("text", b"1"), ("text", b"2"), ("reader", frame(b"3"))]


def test_nothing_is_taken_after_a_violation_or_a_close() -> None:
    """What a client sends to a socket that is closing is dropped."""
    taken: list[tuple[str, bytes]] = []
    guard, watcher = guarded(taken)
    guard.feed_data(b"\x83\x80" + MASK)
    guard.feed_data(frame(b"late"))
    assert (taken, len(watcher.codes)) == ([], 1)
    guard, _ = guarded(taken)
    guard.discard()
    guard.feed_data(frame(b"late"))
    assert taken == []


class FakeEdge:
    """Notes what members say."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.talkers: list[Any] = []
        self.rates = Rates(cast("Any", self), Limits())
        self.said: list[tuple[str, bytes]] = []

    def take(self, feed: object, member: Member, kind: str, data: bytes) -> None:
        """Note a message as waiting."""
        del feed
        member.took(len(data))
        self.said.append((kind, data))


class FakeTransport:
    """A transport to nowhere."""

    written = b""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def is_reading(self) -> bool:
        """Always."""
        return True

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.written += data

    def abort(self) -> None:
        """Do nothing."""


async def entered() -> tuple[Member, FakeEdge, FakeTransport, FrameGuard]:
    """Return a member in a room, its edge, its transport and its guard."""
    edge, transport = FakeEdge(), FakeTransport()
    socket = GuardedSocket(cast("asyncio.Transport", transport), lambda _: None, linger_s=0.01)
    guard = socket.guard(cast("FrameReader", Reader([])), max_message_bytes=1_000)
    member = Member(socket, cast("asyncio.WriteTransport", transport), 0.0)
    member.entered(cast("Any", edge), cast("Any", object()))
    socket.hand_to(member)
    return member, edge, transport, guard


async def test_text_that_is_not_utf8_closes_with_1007() -> None:
    """Binary may hold anything, text must be UTF-8; after the close nothing is taken, and nobody can be set to take."""
    member, edge, transport, guard = await entered()
    guard.feed_data(frame(b"\xff", 0x82))
    guard.feed_data(frame("é".encode()))
    guard.feed_data(frame(b"\xff"))
    guard.feed_data(frame(b"late"))
    assert edge.said == [("binary", b"\xff"), ("text", "é".encode())]
    assert transport.written[2:4] == INVALID_UTF8.code.to_bytes(2, "big")
    member._socket.hand_to(member)
    assert guard.taker is None


async def test_a_member_with_too_much_waiting_takes_no_more() -> None:
    """At the limit of messages not yet accepted, the socket goes back to its reader, which pauses it."""
    member, edge, _, guard = await entered()
    for _ in range(PENDING_COUNT + 3):
        guard.feed_data(frame(b"x"))
    assert len(edge.said) == PENDING_COUNT
    assert guard.taker is None
    assert member.heard_at_s > 0
