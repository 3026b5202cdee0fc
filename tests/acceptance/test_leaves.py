"""Every join has its leave: once, after what the member said, in seconds, also when its edge was killed or frozen."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.acts import RoomActs, leave, text
from harness.house import Client, House, until
from harness.takeover import percentile
from innkeeper.address import parse_address
from innkeeper.errors import EdgeClosed
from innkeeper.redis_client import Link, connector


class Crowd:
    """Members at edge 1 in rooms where somebody at edge 0 looks on."""

    def __init__(self, house: House, *, members: int, rooms: int) -> None:
        self.house = house
        self.rooms = [f"ledger/c{n}" for n in range(rooms)]
        self.lookers: dict[str, Client] = {}
        self.members: dict[str, tuple[str, Client]] = {}
        self._count = members

    async def gather(self) -> None:
        """Join everybody; each member says two things."""
        for room in self.rooms:
            self.lookers[room] = await self.house.join(room, edge=0, name=f"looker-{room}")
        for at in range(0, self._count, 50):
            await asyncio.gather(*(self._join(n) for n in range(at, min(at + 50, self._count))))
        for room in self.rooms:
            await until(partial(self._are_in, room), f"all are in {room}", timeout_s=30)

    def _of(self, room: str) -> list[str]:
        return sorted(name for name, (at, _) in self.members.items() if at == room)

    def _are_in(self, room: str) -> bool:
        said = [(f["from"], f["i"]) for f in _frames(self.lookers[room], "from")]
        return set(said) >= {(name, i) for name in self._of(room) for i in range(2)}

    def _are_out(self, room: str) -> bool:
        return len(_frames(self.lookers[room], "gone")) >= len(self._of(room))

    async def _join(self, n: int) -> None:
        room, name = self.rooms[n % len(self.rooms)], f"m{n}"
        client = await self.house.join(room, edge=1, name=name)
        self.members[name] = room, client
        for i in range(2):
            await client.send({"i": i})

    async def left(self, timeout_s: float) -> list[float]:
        """Wait until every member's leave was seen; return when (the loop's clock of this process)."""
        for room in self.rooms:
            await until(partial(self._are_out, room), "all leaves", timeout_s=timeout_s)
        return [
            looker.got_at_s[n]
            for looker in self.lookers.values()
            for n, frame in enumerate(looker.got)
            if "gone" in frame
        ]

    async def check(self) -> None:
        """Every member left once, after its messages, and stands in no list any more; the lookers stayed."""
        for room, looker in self.lookers.items():
            mine = self._of(room)
            assert sorted(f["gone"] for f in _frames(looker, "gone")) == mine
            assert sorted(orjson.loads(await self.house.redis.hget(f"inn:{{{room}}}:state", "left"))) == mine
            gone_at = {frame["gone"]: n for n, frame in enumerate(looker.got) if "gone" in frame}
            for n, frame in enumerate(looker.got):
                assert frame.get("from") not in gone_at or n < gone_at[frame["from"]], "a word after its leave"
            for name in mine:
                assert [f["i"] for f in _frames(looker, "from") if f["from"] == name] == [0, 1]
            rows = await self.house.redis.hvals(f"inn:{{{room}}}:members")
            assert [orjson.loads(row)["user"][1] for row in rows] == [looker.name], "ghosts"
            assert looker.close_code is None


def _frames(client: Client, key: str) -> list[dict[str, Any]]:
    return [frame for frame in client.got if key in frame]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Two edges and two workers."""
    async with House(tmp_path, edges=2, workers=2) as running:
        yield running


async def late(house: House, room: str, edge: str, connection: str) -> None:
    """Push as an edge that was reaped: a leave and a message of its member, still on their way, are refused."""
    before = await house.redis.hmget(f"inn:{{{room}}}:meta", "cursor", "version")
    link = Link(connector(house.valkey.url, timeout_s=5), timeout_s=5, name="test")
    acts = RoomActs(link, parse_address(room))
    for event in (leave(connection), text(connection, b'{"i":9}')):
        with pytest.raises(EdgeClosed):
            await acts.push(event, edge=edge, batch=10_000)
    await link.close()
    assert await house.redis.hmget(f"inn:{{{room}}}:meta", "cursor", "version") == before


async def kill_the_edge(house: House, *, members: int, rooms: int, worker_too: bool) -> list[float]:
    """SIGKILL the edge of a crowd, and in the middle of the leaves a worker; return the leaves' delays (s)."""
    crowd = Crowd(house, members=members, rooms=rooms)
    await crowd.gather()
    rows = await house.redis.hgetall("inn:{ledger/c0}:members")
    ((connection, edge),) = [(name.decode(), orjson.loads(row)["edge"]) for name, row in rows.items() if b'"m0"' in row]
    struck_s = time.monotonic()
    house.edges[1].signal(signal.SIGKILL)
    if worker_too:
        await until(lambda: any(_frames(c, "gone") for c in crowd.lookers.values()), "the first leave")
        random.choice(house.workers).signal(signal.SIGKILL)
    delays_s = [at_s - struck_s for at_s in await crowd.left(15)]
    await late(house, "ledger/c0", edge, connection)
    await asyncio.sleep(1)  # a second leave would come now
    await crowd.check()
    return delays_s


async def test_a_killed_edge_leaves_no_ghosts(house: House) -> None:
    """An edge dies with 100 members in 20 rooms, and a worker in the middle of their leaves; late pushes are void."""
    delays_s = await kill_the_edge(house, members=100, rooms=20, worker_too=True)
    assert len(delays_s) == 100
    assert max(delays_s) < 8


@pytest.mark.chaos
@pytest.mark.timeout(180)
@pytest.mark.parametrize("worker_too", [False, True])
async def test_a_killed_edge_with_a_thousand_members(house: House, worker_too: bool) -> None:
    """1,000 members in 200 rooms: every leave once, in order, within 5 s; no ghosts."""
    delays_s = await kill_the_edge(house, members=1000, rooms=200, worker_too=worker_too)
    print(
        f"\nedge killed with 1,000 members in 200 rooms{', a worker in between' if worker_too else ''}: leaves after"
        f" p50 {percentile(delays_s, 0.5):.2f} s, p99 {percentile(delays_s, 0.99):.2f} s, max {max(delays_s):.2f} s"
    )
    assert len(delays_s) == 1000
    assert percentile(delays_s, 0.99) <= 5
    assert max(delays_s) < 10


async def test_a_frozen_edge_comes_back_as_another(tmp_path: Path) -> None:
    """An edge stopped for over 3 s: its members leave once; awake, it closes their sockets and takes new ones."""
    async with House(tmp_path, edges=2, workers=1) as house:
        await freeze(house)


async def freeze(house: House) -> None:
    """Freeze one edge, look, and let it go on."""
    crowd = Crowd(house, members=6, rooms=2)
    await crowd.gather()
    house.edges[1].signal(signal.SIGSTOP)
    try:
        await crowd.left(10)
    finally:
        house.edges[1].signal(signal.SIGCONT)
    for room, client in crowd.members.values():
        assert await client.closed() == 1012, room
    again = await house.join("ledger/c0", edge=1, name="again")
    await again.send({"i": 7})
    await crowd.lookers["ledger/c0"].expect(lambda f: f.get("from") == "again", "a word of the newcomer")
    await again.close()
    await crowd.lookers["ledger/c0"].expect(lambda f: f.get("gone") == "again", "its leave")
    for room in crowd.rooms:
        gone = [f["gone"] for f in _frames(crowd.lookers[room], "gone") if f["gone"] != "again"]
        assert sorted(gone) == crowd._of(room)
        assert await house.redis.hlen(f"inn:{{{room}}}:members") == 1
    assert "was declared dead: closing its sockets" in house.edges[1].log
