"""Fair rounds, the loop's watchdog, silent losses, the 10 s join: through real processes where processes matter."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from harness.house import House, until
from innkeeper import User
from innkeeper.address import parse_address
from innkeeper.functions import PushEvent
from innkeeper.redis_client import connector
from innkeeper_edge.auth import Grant, Patterns
from innkeeper_edge.edge import Edge
from innkeeper_edge.feed import Feed

STUBBORN = """
import time
from innkeeper import Room

class Stubborn(Room):
    def on_message(self, conn, message):
        time.sleep(message["hold_s"])
        self.broadcast({"held": message["hold_s"]})

class Lively(Room):
    def on_message(self, conn, message):
        self.broadcast(message)
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One edge and one worker on a private Valkey."""
    async with House(tmp_path, edges=1, workers=1) as running:
        yield running


async def test_hot_room_starves_nobody(house: House) -> None:
    """While one room works through a flood, another room of the same worker answers in between."""
    hot = [await house.join("ledger/hot", name=f"hot{n}") for n in range(4)]
    quiet = await house.join("ledger/quiet", name="quiet")
    for client in (*hot, quiet):
        await client.expect(lambda f: "welcome" in f, "its welcome")
    count = 3000

    async def flood(n: int) -> None:
        for i in range(count):
            await hot[n].send({"i": i})

    flooding = asyncio.gather(*(flood(n) for n in range(len(hot))))
    lags_s = []
    for i in range(10):
        sent_at = time.time()
        await quiet.send({"i": i})
        await quiet.numbers(i + 1)
        answer = next(frame for frame in quiet.got if frame.get("i") == i)
        lags_s.append((answer["at"] - sent_at, answer["at"]))
    await flooding
    await until(lambda: len(hot[0].numbered()) == count * len(hot), "the whole flood", timeout_s=40)
    flood_ended_at = hot[0].got[-1]["at"]
    during = [lag_s for lag_s, at in lags_s if at < flood_ended_at]
    assert during, "the flood was over too soon to show anything"
    assert max(during) < 1.0, during
    assert [n for n, _, _ in hot[0].numbered()] == list(range(1, count * len(hot) + 1))


async def test_event_that_kills_its_workers_is_put_aside(tmp_path: Path) -> None:
    """A hook that holds the loop is logged with its stack and ends its worker; after three deaths its event is dead."""
    target = tmp_path / "stubborn.py"
    target.write_text(STUBBORN)
    async with House(tmp_path, edges=1, workers=1, target=str(target)) as house:
        client = await house.join("stubborn/a")
        await client.send({"hold_s": 0.4})
        await client.expect(lambda f: f == {"held": 0.4}, "the answer")
        assert "the event loop stands still" in house.workers[0].log
        assert 'time.sleep(message["hold_s"])' in house.workers[0].log
        lively = await house.join("lively/b")
        await lively.send({"n": 1})
        await lively.expect(lambda f: f == {"n": 1}, "an echo")
        for _ in range(3):
            await house.add_worker()
        await client.send({"hold_s": 60})  # three workers die of it, the fourth puts it aside
        await client.send({"hold_s": 0})
        await client.expect(lambda f: f == {"held": 0}, "the answer to the next message", timeout_s=40)
        await lively.send({"n": 2})
        await lively.expect(lambda f: f == {"n": 2}, "an echo from another worker")
        deaths = [role for role in house.workers if role.process.poll() is not None]
        await until(lambda: all(role.process.poll() == 70 for role in deaths), "exit code 70")
        ((_, record),) = await house.redis.xrange("inn:{stubborn/a}:dead")
        assert record[b"data"] == b'{"hold_s":60}'
        assert sum(role.process.poll() is None for role in house.workers) >= 1
        assert lively.close_code is None
        assert client.close_code is None


async def test_silently_lost_outputs_are_found(house: House) -> None:
    """Outputs that pub/sub lost without a trace, nothing following them, reach the client within two seconds."""
    connect = connector(house.valkey.url, timeout_s=0.5)
    edge = Edge(connect)
    try:
        await asyncio.wait_for(edge.ready.wait(), 5)
        member = FakeMember()
        feed = await edge.enter(parse_address("ledger/tail"), member)  # type: ignore[arg-type]
        await until(lambda: member.join, "the join is committed")
        other = await house.join("ledger/tail", name="there")
        await other.expect(lambda f: "welcome" in f, "its welcome")
        lost: list[bytes] = []
        receive = feed.receive
        feed.receive = lost.append  # type: ignore[assignment,method-assign]
        await other.send({"i": 0})
        await other.expect(lambda f: f.get("n") == 1, "its number")
        await until(lambda: lost, "a batch that is lost here")
        feed.receive = receive  # type: ignore[method-assign]
        lost_at_s = time.monotonic()
        await until(lambda: any(b'"n":1' in frames for frames in member.written), "the lost output", timeout_s=4)
        assert time.monotonic() - lost_at_s < 2.5
        assert edge.fill_count == 1
        assert edge.resync_count == 0
    finally:
        await edge.close()


class FakeMember:
    """Stands for a socket; keeps what it is given."""

    def __init__(self) -> None:
        self.id = "c-fake"
        self.join = 0
        self.left = self.closing = self.pushed = self.is_overfull = False
        self.grant = Grant(User("", "here"), Patterns.everything())
        self.outgoing: list[bytes] = []
        self.written: list[bytes] = []
        self.entered_at_s = self.heard_at_s = asyncio.get_running_loop().time()

    def register(self, feed: Feed) -> None:
        """Stand among the sockets of a room."""
        feed.fanout.members[self.id] = self  # type: ignore[assignment]

    def join_event(self, user: User) -> PushEvent:
        """Return the event that brings it into the room."""
        return PushEvent("join", self.id, orjson.dumps({"user": list(user)}))

    def write(self, frames: bytes) -> None:
        """Keep frames."""
        self.written.append(frames)

    def ping(self) -> None:
        """Do nothing."""


async def test_join_without_workers_is_closed_in_time(house: House) -> None:
    """A join that no owner commits within 10 s is closed with 1013: try again later."""
    house.workers[0].end()
    started_s = time.monotonic()
    client = await house.join("ledger/nobody")
    assert await client.closed(timeout_s=20) == 1013
    assert 9 < time.monotonic() - started_s < 14
    assert client.got == []


async def test_losing_the_lock_cancels_the_handler(house: House) -> None:
    """A worker that learns that a room is not its own any more cancels its waiting hook; nothing counts twice."""
    client = await house.join("ledger/stolen", name="ann")
    await client.expect(lambda f: "welcome" in f, "its welcome")
    await client.send({"i": 0, "wait": 1.5})
    await until(lambda: _accepted(house, "ledger/stolen", 2), "the message is accepted")
    await house.redis.hset("inn:{ledger/stolen}:meta", "token", "99:1")  # as if another had claimed it
    await until(lambda: "ledger/stolen: lease lost, handler cancelled" in house.workers[0].log, "the cancellation")
    await client.send({"i": 1})
    await client.numbers(2)
    assert [(n, i) for n, _, i in client.numbered()] == [(1, 0), (2, 1)]
    assert client.close_code is None


async def _accepted(house: House, room: str, count: int) -> bool:
    return int(await house.redis.hget(f"inn:{{{room}}}:sessions", "#") or 0) >= count


async def test_a_hanging_leave_costs_no_other_leave(house: House) -> None:
    """Where an edge's death brings many leaves and one hook never ends, the others' hooks still count, each once."""
    await house.add_edge()
    await house.join("trouble/leaves", name="watcher")
    for name in ("ann", "hanger", "bob"):
        await house.join("trouble/leaves", edge=1, name=name)
    await until(lambda: _members(house, "trouble/leaves", 4), "all are in")
    house.edges[1].signal(signal.SIGKILL)
    await until(lambda: _members(house, "trouble/leaves", 1), "the leaves", timeout_s=20)
    assert sorted(orjson.loads(await house.redis.hget("inn:{trouble/leaves}:state", "left"))) == ["ann", "bob"]
    ((_, record),) = await house.redis.xrange("inn:{trouble/leaves}:dead")
    assert b"took longer than 1 s" in record[b"error"]


async def _members(house: House, room: str, count: int) -> bool:
    return bool(await house.redis.hlen(f"inn:{{{room}}}:members") == count)
