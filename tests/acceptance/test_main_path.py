"""The main path with real processes: two edges, two workers, half of each room's clients on each edge."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.house import Client, House, until

ROOMS = 6
CLIENTS = 4
MESSAGES = 60


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Two edges and two workers on a private Valkey."""
    async with House(tmp_path) as running:
        yield running


async def fill(house: House, rooms: int = ROOMS) -> dict[str, list[Client]]:
    """Put clients into rooms, half of each room's on each edge, and wait until each is in."""
    clients: dict[str, list[Client]] = {}
    for r in range(rooms):
        room = f"ledger/room-{r}"
        clients[room] = [await house.join(room, edge=c % 2, name=f"{r}.{c}") for c in range(CLIENTS)]
    for members in clients.values():
        for client in members:
            await client.expect(lambda f: "welcome" in f, "its welcome")
    return clients


async def talk(client: Client, count: int, *, pause_s: float = 0.0, start: int = 0, wait_s: float = 0.0) -> None:
    """Send numbered messages."""
    for i in range(start, start + count):
        await client.send({"i": i, "wait": wait_s} if wait_s else {"i": i})
        if pause_s:
            await asyncio.sleep(pause_s)


async def check_rooms(clients: dict[str, list[Client]], count: int) -> None:
    """Check that every client of a room got every message of every sender: once, in one order, without a hole."""
    for room, members in clients.items():
        expected = count * len(members)
        for client in members:
            await client.numbers(expected)
        reference = members[0].numbered()
        assert [n for n, _, _ in reference] == list(range(1, expected + 1)), room
        for client in members:
            assert client.numbered() == reference, f"{room}: {client.name} saw another order"
            sent = [i for _, name, i in reference if name == client.name]
            assert sent == list(range(count)), f"{room}: messages of {client.name}"
            assert client.close_code is None


async def test_order_and_exactly_once(house: House) -> None:
    """Every client sees every message of its room once, in one order, over both edges."""
    clients = await fill(house)
    await asyncio.gather(*(talk(c, MESSAGES) for members in clients.values() for c in members))
    await check_rooms(clients, MESSAGES)


async def test_owner_killed_under_traffic(house: House) -> None:
    """A SIGKILLed owner costs no socket and no message; its rooms go on elsewhere, in order."""
    clients = await fill(house)
    talking = asyncio.gather(*(talk(c, MESSAGES, pause_s=0.01) for m in clients.values() for c in m))
    await asyncio.sleep(0.2)
    victim = await house.owner_of("ledger/room-0")
    killed_at_s = time.monotonic()
    victim.signal(signal.SIGKILL)
    await talking
    await check_rooms(clients, MESSAGES)
    first = clients["ledger/room-0"][0]
    after = min(at for frame, at in zip(first.got, first.got_at_s, strict=True) if "n" in frame and at > killed_at_s)
    print(f"kill to next output: {(after - killed_at_s) * 1000:.0f} ms")
    survivor = next(role for role in house.workers if role is not victim)
    assert "taken over from" in survivor.log, "the fault did not bite"


async def test_edge_of_half_the_clients_killed(house: House) -> None:
    """A SIGKILLed edge takes only its own sockets: the others miss nothing, and each join gets its leave once."""
    clients = await fill(house, 3)
    talking = [asyncio.create_task(talk(c, MESSAGES, pause_s=0.01)) for m in clients.values() for c in m]
    await asyncio.sleep(0.2)
    house.edges[1].signal(signal.SIGKILL)
    await asyncio.gather(*talking, return_exceptions=True)
    for members in clients.values():
        stayed = [c for n, c in enumerate(members) if n % 2 == 0]
        lost = [c for n, c in enumerate(members) if n % 2 == 1]
        for client in stayed:
            for other in lost:
                await client.expect({"gone": other.name}.__eq__, f"the leave of {other.name}")
        reference = stayed[0].numbered()
        assert [n for n, _, _ in reference] == list(range(1, len(reference) + 1))
        for client in stayed:
            assert client.numbered() == reference
            assert client.close_code is None
            assert [i for _, name, i in reference if name == client.name] == list(range(MESSAGES))
        for client in lost:
            applied = [i for _, name, i in reference if name == client.name]
            assert applied == list(range(len(applied)))
        for client in stayed:
            gone = [f["gone"] for f in client.got if "gone" in f]
            assert sorted(gone) == sorted(c.name for c in lost)


async def test_worker_terminated_under_traffic(house: House) -> None:
    """SIGTERM hands every room over: no socket closes, nothing is lost, the worker exits with 0."""
    clients = await fill(house)
    talking = asyncio.gather(*(talk(c, MESSAGES, pause_s=0.01) for m in clients.values() for c in m))
    await asyncio.sleep(0.2)
    victim = await house.owner_of("ledger/room-0")
    term_at_s = time.monotonic()
    victim.signal(signal.SIGTERM)
    await talking
    await check_rooms(clients, MESSAGES)
    assert await asyncio.to_thread(victim.process.wait, 10) == 0
    owners = {(await house.redis.get(f"inn:{{{room}}}:lock") or b"").decode() for room in clients}
    assert all(f"worker {owner.split(':')[0]} serves" not in victim.log for owner in owners if owner)
    longest_s = max(
        later - earlier
        for members in clients.values()
        for earlier, later in zip(members[0].got_at_s, members[0].got_at_s[1:], strict=False)
        if later > term_at_s
    )
    print(f"longest pause of a room: {longest_s * 1000:.0f} ms")


async def test_stopped_owner_cannot_commit(house: House) -> None:
    """An owner stopped past its lease and continued has its commits refused; every message counts once anyway."""
    clients = await fill(house, 4)
    talking = asyncio.gather(*(talk(c, 20, pause_s=0.02, wait_s=0.03) for m in clients.values() for c in m))
    await asyncio.sleep(0.3)
    victim = await house.owner_of("ledger/room-0")
    victim.signal(signal.SIGSTOP)
    survivor = next(role for role in house.workers if role is not victim)
    await until(lambda: "room ledger/room-0: taken over from" in survivor.log, "the other worker takes the room over")
    await asyncio.sleep(0.5)
    victim.signal(signal.SIGCONT)
    await talking
    await check_rooms(clients, 20)
    await until(lambda: "commit refused (token)" in victim.log, "a refused commit in the stale owner's log")
    print(f"refused commits: {victim.log.count('commit refused')}")
