"""Orders to a worker: a room is handed over at once, to whoever comes or to the worker that is named."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from harness.house import Client, House, Role, until
from innkeeper.address import parse_address
from innkeeper.keys import room_keys, worker_ear
from innkeeper.operator.acts import check_target
from innkeeper.operator.running import OperatorFailed
from innkeeper.orders import CLAIM, HANDOVER, Order, write_order
from innkeeper.redis_client import Link, connector

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One edge and two workers, for all tests that kill nothing."""
    async with House(tmp_path_factory.mktemp("house"), edges=1, workers=2) as running:
        yield running


def name_of(role: Role) -> str:
    """Return a worker's incarnation."""
    return str(re.findall(r"worker (w-\w+) serves", role.log)[-1])


async def lock_of(house: House, room: str) -> tuple[str, int]:
    """Return who owns a room, and which claim that is; waits for an owner."""
    key = room_keys(parse_address(room)).lock
    lock = (await until(lambda: house.redis.get(key), f"{room} has an owner")).decode()
    return lock.split(":")[0], int(lock.split(":")[1])


async def send_order(house: House, role: Role, body: bytes) -> None:
    """Publish to a worker's ear; it must be heard."""
    assert await house.redis.execute_command("SPUBLISH", worker_ear(name_of(role)), body) == 1


def hand_over(room: str, to: Role | None = None) -> bytes:
    """Return the order to give a room back."""
    return write_order(Order(HANDOVER, parse_address(room), name_of(to) if to is not None else ""))


async def said(client: Client, count: int) -> None:
    """Let a client alone in a room send that many messages more; they come back once, in order."""
    start = len(client.numbered())
    for i in range(start, start + count):
        await client.send({"i": i})
    await client.numbers(start + count)
    assert [(n, i) for n, _, i in client.numbered()] == [(k + 1, k) for k in range(start + count)]
    assert client.close_code is None


async def both(house: House, room: str) -> tuple[Role, Role]:
    """Return a room's owner, and the other worker."""
    owner = await house.owner_of(room)
    return owner, next(role for role in house.workers if role is not owner)


async def test_a_room_goes_to_the_worker_that_is_named(house: House) -> None:
    """Ten times to and fro under traffic: nothing is lost, doubled or closed, and the one that was named has it."""
    room = "ledger/named"
    client = await house.join(room)
    reached = 0
    for _ in range(10):
        await said(client, 3)
        owner, other = await both(house, room)
        _, epoch = await lock_of(house, room)
        talking = asyncio.create_task(said(client, 20))
        await send_order(house, owner, hand_over(room, other))
        await until(partial(_is_later, house, room, epoch), "another claim")
        await talking
        reached += (await lock_of(house, room))[0] == name_of(other)
    assert reached >= 8  # a wake may be quicker than the order


async def _is_later(house: House, room: str, epoch: int) -> bool:
    return (await lock_of(house, room))[1] > epoch


async def test_a_room_without_traffic_reaches_its_target(house: House) -> None:
    """Nobody wakes it, so only the order can have brought it there."""
    room = "ledger/quiet"
    client = await house.join(room)
    await said(client, 1)
    owner, other = await both(house, room)
    started_s = time.monotonic()
    await send_order(house, owner, hand_over(room, other))
    await until(lambda: _is_owned_by(house, room, other), "the target has it")
    assert time.monotonic() - started_s < 1
    await said(client, 3)


async def _is_owned_by(house: House, room: str, role: Role) -> bool:
    lock: bytes | None = await house.redis.get(room_keys(parse_address(room)).lock)
    return lock is not None and lock.decode().startswith(name_of(role))


async def test_an_evicted_room_comes_back(house: House) -> None:
    """Without a target the room is claimed by whoever comes, and goes on."""
    room = "ledger/evicted"
    client = await house.join(room)
    await said(client, 2)
    owner, _ = await both(house, room)
    _, epoch = await lock_of(house, room)
    await send_order(house, owner, hand_over(room))
    await until(lambda: _is_later(house, room, epoch), "another claim")
    await said(client, 2)


async def test_a_target_that_nobody_hears_is_passed_by(house: House) -> None:
    """The room does not wait for a worker that is not there."""
    room = "ledger/nobody"
    client = await house.join(room)
    await said(client, 1)
    owner, _ = await both(house, room)
    _, epoch = await lock_of(house, room)
    await send_order(house, owner, b"handover %b w-0000000000" % room.encode())
    await until(lambda: _is_later(house, room, epoch), "another claim", timeout_s=2)
    assert "w-0000000000 did not take it, waking it" in owner.log
    await said(client, 2)


async def test_what_is_no_order_of_ones_own_is_ignored(house: House) -> None:
    """Rooms of others, unknown words and what cannot be read change nothing; the log names them."""
    room = "ledger/calm"
    client = await house.join(room)
    await said(client, 1)
    owner, other = await both(house, room)
    before = await lock_of(house, room)
    await send_order(house, other, hand_over(room, owner))
    await send_order(house, owner, hand_over(room, owner))
    await send_order(house, other, write_order(Order(CLAIM, parse_address(room))))
    for body in (
        b"explode ledger/calm",
        b"handover",
        b"handover ../x",
        b"claim ledger/calm w-1",
        b"\xff\x00 a/b",
        b"x" * 2000,
    ):
        await send_order(house, owner, body)
    await until(lambda: "room ledger/calm: asked to hand it over, but it is not owned here" in other.log, "the log")
    await until(lambda: owner.log.count(", ignored") == 6, "six lines in the log", seen=owner.log)
    await said(client, 2)
    assert await lock_of(house, room) == before


@pytest.mark.parametrize("stopped", [True, False], ids=["it does not claim", "it is just claiming"])
async def test_a_target_killed_in_the_middle_costs_a_takeover(tmp_path: Path, *, stopped: bool) -> None:
    """SIGKILL of the target between the order and its first commit: the room goes on, and no socket closes."""
    room = "ledger/one"
    async with House(tmp_path, edges=1, workers=2) as house:
        client = await house.join(room)
        await said(client, 1)
        owner, other = await both(house, room)
        if stopped:
            other.signal(signal.SIGSTOP)
        await send_order(house, owner, hand_over(room, other))
        if stopped:
            await until(lambda: "did not take it, waking it" in owner.log, "the owner gave it up", seen=owner.log)
        other.signal(signal.SIGKILL)
        started_s = time.monotonic()
        await said(client, 1)
        assert time.monotonic() - started_s < 3
        assert await _is_owned_by(house, room, owner)
        await said(client, 5)


# --- --max-rooms ------------------------------------------------------------------------------------------------------
def cpu_s(role: Role) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{role.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def owned(house: House, rooms: list[str]) -> list[str]:
    """Return those of the rooms that have an owner."""
    locks = await house.redis.mget([room_keys(parse_address(room)).lock for room in rooms])
    return [room for room, lock in zip(rooms, locks, strict=True) if lock]


async def test_a_full_worker_lets_rooms_wait_for_a_place(tmp_path: Path) -> None:
    """Nobody takes more than allowed, what waits stands in the queue, full workers are idle, a new one takes over."""
    rooms = [f"ledger/r{n}" for n in range(7)]
    async with House(tmp_path, edges=0, workers=0) as house:
        full = [await house.add_worker("--max-rooms", str(n)) for n in (2, 3)]
        await house.add_edge()
        clients = {room: await house.join(room) for room in rooms}
        await until(lambda: _count(house, rooms, 5), "five rooms have an owner")
        await until(lambda: all("2 room(s) wait for an owner" in role.log for role in full), "both say so", timeout_s=8)
        link = Link(connector(house.redis_url, timeout_s=5), timeout_s=5, name="test")
        with pytest.raises(OperatorFailed, match=r"is full \(--max-rooms 2\)"):
            await check_target(link, parse_address(rooms[0]), name_of(full[0]))
        await link.close()
        before_s = [cpu_s(role) for role in full]
        await asyncio.sleep(2)
        assert max(cpu_s(role) - at_s for role, at_s in zip(full, before_s, strict=True)) < 0.3
        served = await owned(house, rooms)
        waiting = sorted(set(rooms) - set(served))
        assert len(served) == 5
        assert sorted(name.decode() for name in await house.redis.zrange("inn:wake:ledger", 0, -1)) == waiting
        assert sorted([await house.redis.scard(f"inn:worker:{name_of(role)}") for role in full]) == [2, 3]
        for room in waiting:
            await clients[room].send({"i": 0})
        await house.add_worker("--max-rooms", "1")
        await until(lambda: _count(house, rooms, 6), "one more has an owner")
        full[0].signal(signal.SIGTERM)  # its rooms find no place either
        await asyncio.to_thread(full[0].process.wait, 20)
        assert len(await owned(house, rooms)) <= 4
        await house.add_worker()
        for room in waiting:
            await clients[room].numbers(1)
        for room in served:
            await said(clients[room], 1)
        assert all(role.log.count("room(s) wait for an owner") == 1 for role in full)
        assert all(client.close_code is None for client in clients.values())


async def _count(house: House, rooms: list[str], count: int) -> bool:
    return len(await owned(house, rooms)) == count


async def test_a_place_that_gets_free_is_taken(tmp_path: Path) -> None:
    """A worker with one place serves one room after another, as each goes to sleep."""
    async with House(tmp_path, edges=0, workers=0) as house:
        await house.add_worker("--max-rooms", "1", "--kinds", "trouble")
        await house.add_edge()
        clients = [await house.join(f"trouble/r{n}") for n in range(3)]
        for client in clients:
            await client.send({"do": "count"})
        for client in clients:
            await client.expect(lambda frame: frame == {"count": 1, "broken": False}, "its count")
        assert await house.redis.hkeys("inn:kinds") == [b"trouble"]
