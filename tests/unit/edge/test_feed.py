"""One room's outputs at an edge: what cannot be read or shown costs one output or a resync, and is said."""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, cast

import pytest

from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.meters import EdgeMeters
from innkeeper_edge.feed import Feed
from innkeeper_edge.frames import encode_text

Output = tuple[bytes, bytes]
ROOM = Address("test", "x")


class FakeEdge:
    """An edge and its Redis, of which only one room's position and outlog are there."""

    def __init__(self) -> None:
        self.lasting_link = self.link = self.subscriber = self
        self.meters = EdgeMeters()
        self.traces = None
        self.loop = asyncio.get_running_loop()
        self.fill_count = self.resynced_count = 0
        self.last = b"9-7"
        self.cursor = b"0"
        self.outlog: list[Output] = []  # from output 9 on
        self.tasks: list[asyncio.Task[None]] = []

    async def subscribe(self, channel: str) -> None:
        """As of a subscriber: at once."""

    async def call(self, *command: Any) -> Reply:
        """Answer what asks for the room's position."""
        assert command[0] == "HMGET"
        return [self.last, self.cursor]

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """Answer what asks for the room's position and outlog."""
        assert [command[0] for command in commands] == ["HMGET", "XRANGE"]
        entries: list[Any] = [[b"%d-7" % n, [b"h", h, b"d", d]] for n, (h, d) in enumerate(self.outlog, 9)]
        return [[self.last, self.cursor], entries]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task."""
        self.tasks.append(asyncio.create_task(work))

    def count_resync(self, count: int) -> None:
        """Count sockets."""
        self.resynced_count += count

    async def leave_unknown_members(self, feed: Feed) -> None:
        """Nobody is unknown."""

    async def settled(self) -> None:
        """Wait for what was spawned."""
        while self.tasks:
            await self.tasks.pop()


class FakeMember:
    """A socket that keeps what is written to it, and may fail at it."""

    def __init__(self, feed: Feed, join: int) -> None:
        self.id, self.join, self.left = f"c-{join}", join, False
        self.outgoing: list[bytes] = []
        self.got = b""
        self.closed: int | None = None
        self.is_broken = False
        feed.fanout.members[self.id] = feed.fanout.live[join] = cast("Any", self)

    def write(self, frames: bytes) -> None:
        """Keep a write."""
        if self.is_broken:
            raise RuntimeError("a socket of which nobody knows what is wrong")
        self.got += frames

    def close_with(self, code: Any) -> None:
        """Keep a close."""
        self.closed = code.code


@pytest.fixture
async def edge() -> FakeEdge:
    """An edge."""
    return FakeEdge()


@pytest.fixture
async def feed(edge: FakeEdge) -> Feed:
    """A room at output 9-7."""
    feed = Feed(cast("Any", edge), ROOM)
    await feed.opened()
    return feed


def batch(first: int, *outputs: Output, cursor: int = 20) -> bytes:
    """Return the published form of outputs."""
    index = b"|".join(b"%b|%d" % (header, len(body)) for header, body in outputs)
    if len(outputs) == 1:
        index = outputs[0][0] + b"|"
    line = b"%d-7 7 %d %d %d" % (first - 1, first, first + len(outputs) - 1, cursor)
    return line + b"\n" + index + b"\n" + b"".join(body for _, body in outputs)


UNREADABLE = [
    (b"text -c-abc", b"to whom?"),
    (b"text +\xff", b"to whom?"),
    (b"join five c-3", b""),
    (b"close +3", b"no code"),
    (b"move +x", b"a/b"),
]


@pytest.mark.parametrize("output", UNREADABLE, ids=lambda output: output[0].decode(errors="replace"))
async def test_an_output_that_cannot_be_read(feed: Feed, output: Output, caplog: pytest.LogCaptureFixture) -> None:
    """It is skipped with an error; all others of its batch, and of later ones, are shown to everybody."""
    members = [FakeMember(feed, 3), FakeMember(feed, 4)]
    feed.receive(batch(10, (b"text *", b"a"), output, (b"text *", b"c")))
    feed.receive(batch(13, (b"text *", b"d")))
    for member in members:
        assert member.got == encode_text(b"a") + encode_text(b"c") + encode_text(b"d")
        assert member.closed is None
    assert [record.levelno for record in caplog.records if "cannot read was skipped" in record.message] == [
        logging.ERROR
    ]


async def test_outputs_that_cannot_be_shown(feed: Feed, edge: FakeEdge, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody knows who has got what, all resync, and the room goes on from its last output."""
    broken, other = FakeMember(feed, 3), FakeMember(feed, 4)
    broken.is_broken = True
    edge.last = b"10-7"
    feed.receive(batch(10, (b"text *", b"a")))
    assert (broken.closed, other.closed, other.got) == (4512, 4512, b"")
    assert "outputs failed on their way to its sockets" in caplog.text
    await edge.settled()
    new = FakeMember(feed, 5)
    feed.receive(batch(11, (b"text *", b"b")))
    assert new.got == encode_text(b"b")
    assert edge.resynced_count == 2


async def test_outputs_of_the_outlog_that_cannot_be_shown(feed: Feed, edge: FakeEdge) -> None:
    """A hole that is filled is no different: the room does not stand still for ever."""
    broken = FakeMember(feed, 3)
    broken.is_broken = True
    edge.last, edge.outlog = b"11-7", [(b"text *", b"had"), (b"text *", b"a"), (b"text *", b"b")]
    feed.receive(batch(11, (b"text *", b"b")))  # the one before got lost
    await edge.settled()
    assert broken.closed == 4512
    new = FakeMember(feed, 5)
    feed.receive(batch(12, (b"text *", b"c")))
    assert new.got == encode_text(b"c")


async def test_a_batch_that_cannot_be_read(feed: Feed, edge: FakeEdge, caplog: pytest.LogCaptureFixture) -> None:
    """Its outputs are read in the outlog."""
    member = FakeMember(feed, 3)
    edge.last, edge.outlog = b"10-7", [(b"text *", b"had"), (b"text *", b"a")]
    feed.receive(b"what another version might write")
    await edge.settled()
    assert member.got == encode_text(b"a")
    assert "a batch that this edge cannot read" in caplog.text
