"""Timers in a whole house: on time, once, whatever dies."""

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.cluster import Cluster
from harness.house import House, until
from harness.valkey import Valkey


async def ran(house: House, room: str) -> list[list[Any]]:
    """Return what ran in a room, as its state says."""
    data = await house.redis.hget(f"inn:{{{room}}}:state", "ran")
    return orjson.loads(data) if data else []


async def test_a_timer_of_a_room_that_sleeps(tmp_path: Path) -> None:
    """The room is left and asleep when its timer is due: it is woken for it, and the timer runs on time, once."""
    async with House(tmp_path, edges=1, workers=1) as house:
        client = await house.join("clock/a")
        begun_s = time.time()
        await client.send({"set": [["x", {"after": 6, "payload": {"n": [1]}}]]})
        await client.last({"set": 1})
        await client.close()
        await until(lambda: _is_free(house, "clock/a"), "the room sleeps")
        assert time.time() - begun_s < 5
        found = await until(lambda: ran(house, "clock/a"), "the timer runs")
        assert [entry[:2] for entry in found] == [["x", {"n": [1]}]]
        assert 6.0 <= found[0][2] / 1000 - begun_s < 6.6
        assert await house.redis.hlen("inn:{clock/a}:timers") == 0
        await asyncio.sleep(0.5)
        assert len(await ran(house, "clock/a")) == 1


async def _is_free(house: House, room: str) -> bool:
    return not await house.redis.exists(f"inn:{{{room}}}:lock")


async def test_a_game_ticks_twenty_times_a_second(tmp_path: Path) -> None:
    """The owner fires by itself: ticks keep their grid, none is early or twice, and few are left out or late."""
    async with House(tmp_path, edges=1, workers=1) as house:
        client = await house.join("clock/game")
        begun_s = time.time() + 0.5
        await client.send({"set": [["tick", {"every": 0.05, "at": begun_s}]]})
        await until(lambda: len(client.got) > 102, "a hundred ticks", timeout_s=20)
        after_ms = [frame["ran"][2] - begun_s * 1000 for frame in client.got if "ran" in frame]
        ticks = [after // 50 for after in after_ms]
        assert ticks[0] == 0
        assert len(set(ticks)) == len(ticks)
        late_ms = sorted(after % 50 for after in after_ms)
        left_out = ticks[-1] + 1 - len(ticks)
        print(f"late: median {late_ms[len(late_ms) // 2]:.1f} ms; left out {left_out:.0f} of {ticks[-1]:.0f}")
        assert left_out < len(ticks) / 2


@pytest.mark.long
async def test_killed_workers_lose_double_and_hurry_no_timer(tmp_path: Path) -> None:
    """600 timers in 60 rooms while workers are killed again and again: each runs once, none early."""
    rooms = [f"clock/k{n}" for n in range(60)]
    async with House(tmp_path, edges=1, workers=3) as house:
        due_ms: dict[tuple[str, str], float] = {}
        for number, room in enumerate(rooms):
            client = await house.join(room)
            wanted = []
            for n in range(10):
                at_s = time.time() + 4 + (number * 10 + n) % 97 / 97 * 8
                due_ms[room, f"t{n}"] = at_s * 1000
                wanted.append([f"t{n}", {"at": at_s}])
            await client.send({"set": wanted})
            await client.last({"set": 10})
            await client.close()
        for kill in range(6):
            await asyncio.sleep(1.2)
            victim = house.workers[kill]
            victim.signal(signal.SIGKILL)
            await house.add_worker()
        await until(lambda: _all_ran(house, rooms, 10), "all timers ran", timeout_s=20)
        await asyncio.sleep(1)
        late_ms = []
        for room in rooms:
            found = await ran(house, room)
            assert sorted(entry[0] for entry in found) == [f"t{n}" for n in range(10)]
            late_ms += [entry[2] - due_ms[room, entry[0]] for entry in found]
        assert min(late_ms) > -1
        late_ms.sort()
        print(f"late: median {late_ms[300]:.0f} ms, worst {late_ms[-1]:.0f} ms")
        assert late_ms[-1] < 8000


@pytest.mark.long
async def test_timers_in_a_cluster(tmp_path: Path) -> None:
    """Rooms over three primaries, their index on others: each sleeps, is woken for its timer, and runs it once."""
    rooms = [f"clock/c{n}" for n in range(12)]
    async with Cluster() as cluster, House(tmp_path, url=cluster.url) as house:
        nodes = {await cluster.node_of(room) for room in rooms}
        assert len(nodes) == 3
        clients = [await house.join(room) for room in rooms]
        due_s = time.time() + 7
        for client in clients:
            await client.send({"set": [["x", {"at": due_s}]]})
        for client in clients:
            await client.last({"set": 1})
        locks = [f"inn:{{{room}}}:lock" for room in rooms]
        for room, lock in zip(rooms, locks, strict=True):
            node = await cluster.node_of(room)
            await until(lambda node=node, lock=lock: _lacks(cluster, node, lock), f"{room} sleeps")  # type: ignore[misc]
        assert time.time() < due_s
        for client in clients:
            frame = await client.expect(lambda frame: "ran" in frame, "its timer", timeout_s=20)
            assert frame["ran"][2] / 1000 >= due_s - 0.001
        await asyncio.sleep(0.5)
        assert [sum("ran" in frame for frame in client.got) for client in clients] == [1] * len(rooms)


async def _lacks(cluster: Cluster, node: Valkey, key: str) -> bool:
    return not await cluster.tell(node, "EXISTS", key)


async def _all_ran(house: House, rooms: list[str], count: int) -> bool:
    counts = [len(await ran(house, room)) for room in rooms]
    return min(counts) >= count
