"""conn.move: the socket changes its room, leave and join each once, nothing said is lost, whatever dies meanwhile."""

import asyncio
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import orjson
import pytest

from harness import moving
from harness.house import Client, House, until

TARGET = str(Path(moving.__file__))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Two edges and two workers."""
    async with House(tmp_path, edges=2, workers=2, target=TARGET) as running:
        yield running


async def lines(house: House, room: str) -> list[str]:
    """Return what a room has noted."""
    stored = await house.redis.hget(f"inn:{{{room}}}:state", "lines")
    return list(orjson.loads(stored)) if stored else []


async def arrived(client: Client, name: str) -> str:
    """Wait for a room's greeting; return the connection's id."""
    await client.expect(lambda f: isinstance(f, dict) and f.get("in") == name, f"the greeting of {name}", timeout_s=20)
    return str(next(f["you"] for f in client.got if isinstance(f, dict) and f.get("in") == name))


async def test_a_socket_moves_with_all_it_says(house: House) -> None:
    """What reached the old room before the move is applied there, the rest in the new one; one leave, join and id."""
    ann, bob = await house.join("hall/a"), await house.join("hall/b", edge=1)
    me = await arrived(ann, "a")
    await arrived(bob, "b")
    for n in range(50):
        await ann.send({"n": n})
    await ann.send({"go": "hall/b"})
    for n in range(50, 99):
        await ann.send({"n": n})
    assert await arrived(ann, "b") == me
    await ann.send({"n": 99})
    await bob.expect(lambda f: f == {"at": "b", "n": 99}, "its last word", timeout_s=20)
    before = await lines(house, "hall/a")
    after = [line for line in await lines(house, "hall/b") if me in line]
    said_there = [int(line.split()[1]) for line in before[1:-1]]
    assert before[0] == f"+{me}"
    assert before[-1] == f"-{me}"
    assert after[0] == f"+{me}"
    assert said_there + [int(line.split()[1]) for line in after[1:]] == list(range(100))
    assert {"going": "hall/b"} in ann.got
    assert ann.close_code is None
    assert await house.redis.hlen("inn:{hall/a}:members") == 0
    assert await house.redis.hlen("inn:{hall/b}:members") == 2


async def test_it_moves_on_and_back(house: House) -> None:
    """From a to b to a again, through a third room: each time one leave and one join."""
    ann = await house.join("hall/a")
    me = await arrived(ann, "a")
    for room in ("hall/b", "hall/c", "hall/a"):
        await ann.send({"go": room})
        await until(partial(_is_member, house, room, me), f"{me} is in {room}", timeout_s=20)
    assert await lines(house, "hall/a") == [f"+{me}", f"-{me}", f"+{me}"]
    assert await lines(house, "hall/b") == [f"+{me}", f"-{me}"]
    assert await lines(house, "hall/c") == [f"+{me}", f"-{me}"]


async def _is_member(house: House, room: str, connection: str) -> bool:
    return bool(await house.redis.hexists(f"inn:{{{room}}}:members", connection))


async def test_moves_survive_killed_owners(house: House) -> None:
    """Forty sockets move while a worker is killed: each ends in the target, with one leave and one join."""
    clients = [await house.join("hall/from", edge=n % 2) for n in range(40)]
    names = [await arrived(client, "from") for client in clients]
    await asyncio.gather(*(client.send({"go": "hall/to"}) for client in clients[:20]))
    house.workers[0].signal(signal.SIGKILL)
    await asyncio.gather(*(client.send({"go": "hall/to"}) for client in clients[20:]))
    for client in clients:
        await arrived(client, "to")
    assert sorted(await lines(house, "hall/to")) == sorted(f"+{name}" for name in names)
    noted = await lines(house, "hall/from")
    assert sorted(noted) == sorted(f"{sign}{name}" for name in names for sign in "+-")
    assert all(client.close_code is None for client in clients)


async def test_a_killed_edge_leaves_nobody_behind(house: House) -> None:
    """An edge dies with sockets on their way: they are in neither room, and every join has its leave."""
    clients = [await house.join("hall/x") for _ in range(20)]
    for client in clients:
        await arrived(client, "x")
    for client in clients:
        await client.send({"go": "hall/y"})
    house.edges[0].signal(signal.SIGKILL)
    await until(lambda: _both_empty(house), "both rooms are empty", timeout_s=15)
    for room in ("hall/x", "hall/y"):
        noted = await lines(house, room)
        assert sorted(line[1:] for line in noted if line[0] == "+") == sorted(
            line[1:] for line in noted if line[0] == "-"
        )


async def _both_empty(house: House) -> bool:
    return not (await house.redis.hlen("inn:{hall/x}:members") or await house.redis.hlen("inn:{hall/y}:members"))


async def test_moves_that_cannot_end_well(house: House) -> None:
    """No such kind: closed 1013. A full room: 4503. A smaller limit holds there. No address: an error, and it stays."""
    lost, one, two, odd = [await house.join("hall/a") for _ in range(4)]
    for client in (lost, one, two, odd):
        await arrived(client, "a")
    await lost.send({"go": "nosuch/room"})
    await until(lambda: lost.close_code, "a close", timeout_s=10)
    assert lost.close_code == 1013
    await one.send({"go": "small/s"})
    await arrived(one, "s")
    await two.send({"go": "small/s"})
    await until(lambda: two.close_code, "a close", timeout_s=10)
    assert two.close_code == 4503
    await one.send({"n": "x" * 200})
    await until(lambda: one.close_code, "a close", timeout_s=10)
    assert one.close_code == 1009
    await odd.send({"go": "no address"})
    await odd.expect(lambda f: f == {"error": "handler_failed"}, "an error")
    await odd.send({"n": 1})
    await odd.expect(lambda f: f == {"at": "a", "n": 1}, "it is still in")
    await until(lambda: _count(house, "hall/a", 1), "the others have left", timeout_s=10)
    await until(lambda: _count(house, "small/s", 0), "all have left", timeout_s=10)


async def _count(house: House, room: str, members: int) -> bool:
    return bool(await house.redis.hlen(f"inn:{{{room}}}:members") == members)
