"""Messages of one socket through aiohttp's own reader and past it: all of them, in the order they were sent in."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiohttp import web

from harness.rawsocket import BINARY, CONTINUATION, PING, TEXT, RawSocket, connect, frame
from innkeeper.address import Address
from innkeeper.memory import Thrift
from innkeeper_edge.app import Site
from innkeeper_edge.guarded_socket import install
from innkeeper_edge.limits import DEFAULT_LIMITS
from innkeeper_edge.member import Member
from innkeeper_edge.rates import Rates

LIMIT_BYTES = 65_536
MESSAGE_COUNT = 600


class SlowEdge:
    """Takes messages, and counts them as accepted only a moment after the socket had to be stopped."""

    def __init__(self, draw: random.Random) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = DEFAULT_LIMITS
        self.draining = False
        self.talkers: list[Any] = []
        self.thrift = Thrift()
        self.rates = Rates(cast("Any", self), DEFAULT_LIMITS)
        self.taken: list[bytes] = []
        self.stalls = 0
        self.left = asyncio.Event()
        self._draw = draw
        self._waiting: list[int] = []
        self._is_settling = False

    async def enter(self, address: Address, member: Member) -> "SlowEdge":
        """Let everybody in."""
        del address
        member.pushed = True
        return self

    def take(self, feed: object, member: Member, kind: str, data: bytes) -> None:
        """Note a message."""
        del feed, kind
        self.taken.append(bytes(data))
        member.took(len(data))
        self._waiting.append(len(data))
        if member.is_overfull and not self._is_settling:
            self.stalls += 1
            self._is_settling = True
            self.loop.call_later(self._draw.choice((0.0, 0.001, 0.005)), self._settle, member)

    def _settle(self, member: Member) -> None:
        self._is_settling = False
        waiting, self._waiting = self._waiting, []
        for size_bytes in waiting:
            member.settled(size_bytes)

    def leave(self, feed: object, member: Member) -> None:
        """Note the end."""
        del feed, member
        self.left.set()


class Running:
    """A site on a slow edge."""

    def __init__(self, draw: random.Random) -> None:
        self.edge = SlowEdge(draw)
        self._site = Site(cast("Any", self.edge))
        self.port = 0

    async def join(self, request: web.BaseRequest) -> web.StreamResponse:
        """Do what Site.room does with an accepted request."""
        response = web.WebSocketResponse(
            compress=False, max_msg_size=LIMIT_BYTES + 1, decode_text=False, autoping=False
        )
        guarded = await install(request, response, max_message_bytes=LIMIT_BYTES, on_violation=lambda _: None)
        assert request.transport is not None
        member = Member(guarded, request.transport, self.edge.loop.time())
        await self._site._live(Address("chat", "lobby"), member, response, guarded)
        return response


@pytest.fixture(name="draw", params=range(6))
def seeded(request: pytest.FixtureRequest) -> random.Random:
    """Return a source of chance; its seed is the parameter."""
    return random.Random(request.param)


@pytest.fixture(name="running")
async def served(draw: random.Random) -> AsyncIterator[Running]:
    """Serve on a free port."""
    running = Running(draw)
    runner = web.ServerRunner(web.Server(running.join, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    running.port = runner.addresses[0][1]
    yield running
    await runner.cleanup()


def pieces_of(payload: bytes, draw: random.Random) -> list[bytes]:
    """Return the frames of one message: mostly one; else fragments, with a ping in between."""
    if draw.random() < 0.85:
        return [frame(draw.choice((TEXT, BINARY)), payload)]
    middle = len(payload) // 2
    first, last = frame(TEXT, payload[:middle], fin=False), frame(CONTINUATION, payload[middle:])
    return [first, frame(PING, b"?"), last] if draw.random() < 0.3 else [first, last]


async def talk(socket: RawSocket, draw: random.Random) -> list[bytes]:
    """Send messages of all sizes, some many in a segment, some in halves; return them."""
    sent, waiting = [], b""
    for number in range(MESSAGE_COUNT):
        payload = b"%d " % number + b"x" * draw.choice((0, 5, 80, 115, 130, 2_000, 30_000))
        sent.append(payload)
        for piece in pieces_of(payload, draw):
            waiting += piece
            luck = draw.random()
            if luck < 0.6:
                await socket.send(waiting)
                waiting = b""
            elif luck < 0.7:
                await socket.send(waiting[:-3])
                waiting = waiting[-3:]
            if draw.random() < 0.3:
                await asyncio.sleep(0)
    await socket.send(waiting)
    return sent


async def test_nothing_is_overtaken_or_lost(running: Running, draw: random.Random) -> None:
    """However frames are cut, joined, stopped and let go again, the edge takes the messages as they were sent."""
    edge = running.edge
    async with connect(running.port, join=True) as socket:
        sent = await talk(socket, draw)
        async with asyncio.timeout(10):
            while len(edge.taken) < len(sent):  # noqa: ASYNC110 - the edge is a fake without news
                await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await edge.left.wait()
    assert edge.taken == sent
    assert edge.stalls > 0, "the socket was never stopped"
