"""How long rooms stand still when their worker goes: measured from outside, by what the rooms publish.

A batch of outputs carries the mark of the claim it was committed under: the first one under another mark than before
is the successor's first commit.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Self

from harness.house import Client, House, until
from innkeeper.address import parse_address
from innkeeper.keys import room_keys
from innkeeper.redis_client import connector
from innkeeper.subscriber import Subscriber
from innkeeper.wire import read_batch


class Watch:
    """Rooms with paced traffic, and when their successors' first outputs came; a context manager.

    Args:
        house: Where they live; its first edge takes the sockets.
        rooms: Addresses, ``kind/name``, of rooms like the ledger.
        pace_s: Between two messages of a room.
    """

    def __init__(self, house: House, rooms: Sequence[str], *, pace_s: float) -> None:
        self._house = house
        self._rooms = {room_keys(parse_address(room)).out.encode(): room for room in rooms}
        self._pace_s = pace_s
        self._clients: list[Client] = []
        self._pacing: asyncio.Task[None] | None = None
        self.sent_count = 0
        self._mark: dict[str, bytes] = {}
        self._before: dict[str, bytes] = {}
        self._sent_s: list[float] = []
        self._first_s: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        connect = connector(self._house.valkey.url, timeout_s=5)
        self._ears = Subscriber(connect, on_message=self._hear, on_fresh=lambda _: None, silent_s=10)
        for channel, room in self._rooms.items():
            await self._ears.subscribe(channel.decode())
            self._clients.append(await self._house.join(room))
        self._pacing = asyncio.create_task(self._pace())
        await until(lambda: len(self._mark) == len(self._rooms), "all rooms answer", timeout_s=60)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._pacing is not None
        self._pacing.cancel()
        await asyncio.gather(self._pacing, return_exceptions=True)
        await self._ears.close()

    def _hear(self, channel: bytes, body: bytes) -> None:
        batch = read_batch(body)
        if batch.last < batch.first:
            return  # a commit without outputs
        room, now_s = self._rooms[channel], time.monotonic()
        before = self._before.get(room)
        if before is not None and batch.mark != before and room not in self._first_s:
            self._first_s[room] = now_s
        self._mark[room] = batch.mark

    async def _pace(self) -> None:
        """Send to each room in turn, evenly over the pace."""
        started_s = time.monotonic()
        while True:
            client = self._clients[self.sent_count % len(self._clients)]
            self._sent_s.append(time.monotonic())
            await client.send({"i": self.sent_count})
            self.sent_count += 1
            due_s = started_s + self.sent_count * self._pace_s / len(self._clients)
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def after(self, strike: Callable[[], object], *, pause: bool = False, timeout_s: float = 15) -> list[float]:
        """Do that to the owner of all rooms; return each room's seconds from then to its successor's first output.

        With ``pause``: the longest that a message of the room waited for its output around then.
        """
        self._before, self._first_s = dict(self._mark), {}
        struck_s, sent = time.monotonic(), self.sent_count
        strike()
        await until(lambda: len(self._first_s) == len(self._rooms), "every room is taken over", timeout_s=timeout_s)
        if not pause:
            return [self._first_s[room] - struck_s for room in self._rooms.values()]
        await self.settled()
        since = max(0, sent - 2 * len(self._rooms))  # what was on its way when the strike came
        return [
            max(
                at_s - self._sent_s[frame["i"]]
                for frame, at_s in zip(client.got, client.got_at_s, strict=True)
                if "n" in frame and frame["i"] >= since
            )
            for client in self._clients
        ]

    async def settled(self) -> None:
        """Wait until every client got all that was sent so far, then check that nothing was lost, doubled or closed."""
        sent = self.sent_count
        for n, client in enumerate(self._clients):
            count = len(range(n, sent, len(self._clients)))
            await client.numbers(count)
            numbered = client.numbered()
            assert [(number, i) for number, _, i in numbered] == [
                (k + 1, n + k * len(self._clients)) for k in range(len(numbered))
            ]
            assert client.close_code is None


def row(what: str, seconds: Sequence[float], goal: str) -> str:
    """Return a line of the table: count, median, 99th percentile and maximum in ms."""
    ordered = sorted(seconds)
    p99 = percentile(ordered, 0.99)
    middle = statistics.median(ordered)
    return f"{what:<44} {len(ordered):>5}  {middle * 1000:>7.0f} {p99 * 1000:>7.0f} {ordered[-1] * 1000:>7.0f}   {goal}"


def percentile(seconds: Sequence[float], part: float) -> float:
    """Return the value below which that part of them lies (nearest rank)."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


HEAD = f"{'kill → first output of the successor (ms)':<44} {'n':>5}  {'p50':>7} {'p99':>7} {'max':>7}   goal"


async def jitter() -> None:
    """Wait a little, so that no strike falls into step with heartbeats, renewals or the traffic."""
    await asyncio.sleep(random.uniform(0.3, 0.8))
