"""The sweep over the index of rooms awake: a lost wake is found again, and sleeping rooms cost nothing."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.acts import RoomActs, join, leave, text
from harness.house import House, until
from harness.rooms import Ledger
from harness.valkey import Valkey
from innkeeper import functions, keys
from innkeeper.address import Address
from innkeeper.functions import ROOM_SHARDS, shard_of
from innkeeper.redis_client import Link, connector
from innkeeper_workers.fleet import Fleet
from innkeeper_workers.pulse import Pulse
from innkeeper_workers.sweep import Sweep, own_shards

ROOM = Address("ledger", "nobody-here")


@pytest.fixture
async def fleet(own_valkey: Valkey) -> AsyncIterator[Fleet]:
    """A worker's fleet that nobody has started: it takes no wakes by itself."""
    fleet = Fleet({"ledger": Ledger}, connector(own_valkey.url, timeout_s=0.5))
    await fleet.load_functions()
    yield fleet
    await fleet.close()


async def swept(fleet: Fleet) -> Sweep:
    """Register the worker and return its sweep."""
    pulse = Pulse(fleet)
    await pulse._beat()
    return Sweep(fleet, pulse)


async def later(fleet: Fleet, sweep: Sweep, ms: int) -> None:
    """Sweep once as if the server's clock were that far ahead."""
    fleet.redis_time_ms += ms
    await sweep.sweep()


async def index(link: Link) -> dict[str, int]:
    """Return the index of rooms awake: room → server ms of the next look."""
    found: dict[str, int] = {}
    for shard in range(ROOM_SHARDS):
        pairs = await link.call("ZRANGE", keys.room_index(shard), 0, -1, "WITHSCORES")
        found |= {name.decode(): int(score) for name, score in zip(pairs[::2], pairs[1::2], strict=True)}
    return found


async def test_a_popped_wake_that_nobody_took_is_found_by_another_worker(tmp_path: Path) -> None:
    """A worker dies with a room popped and not claimed; no socket is left, and another worker serves the room."""
    async with House(tmp_path, edges=0, workers=1) as house:
        link = Link(connector(house.valkey.url, timeout_s=5), timeout_s=5, name="test")
        room = RoomActs(link, ROOM)
        await until(lambda: _blocked(link), "the worker waits at the wake queue")
        house.workers[0].signal(signal.SIGSTOP)
        await room.push(join(), text(data=b'{"i":0}'), leave())
        await link.send(functions.wake([ROOM]))
        await until(
            lambda: _missing(link, keys.wake_queue("ledger")), "the stopped worker is given the room", timeout_s=1
        )
        house.workers[0].signal(signal.SIGKILL)
        assert await link.call("EXISTS", room.keys.lock, room.keys.meta) == 0  # the fault bit: popped, never claimed
        await house.add_worker()
        await until(lambda: _cursor(room, 3), "the room is served", timeout_s=6)
        assert await room.hash("members") == {}
        await link.close()


async def _blocked(link: Link) -> bool:
    return b"blocked_clients:1" in await link.call("INFO", "clients")


async def _missing(link: Link, key: str) -> bool:
    return not await link.call("EXISTS", key)


async def _cursor(room: RoomActs, iseq: int) -> bool:
    return (await room.hash("meta")).get("cursor") == str(iseq)


async def test_rooms_at_rest_leave_the_index_and_owned_ones_stay(fleet: Fleet, own_link: Link) -> None:
    """Without backlog a room that nobody owns is taken out; one that is owned is looked at again in 10 s."""
    asleep, owned = Address("ledger", "asleep"), Address("ledger", "owned")
    await RoomActs(own_link, owned).own()
    await own_link.send(functions.wake([asleep, owned]))
    await own_link.call("DEL", keys.wake_queue("ledger"))
    sweep = await swept(fleet)
    await sweep.sweep()
    assert set(await index(own_link)) == {"ledger/asleep", "ledger/owned"}  # not due yet
    await later(fleet, sweep, 1_100)
    found = await index(own_link)
    assert set(found) == {"ledger/owned"}
    assert 8_000 < found["ledger/owned"] - await RoomActs(own_link, owned).server_ms() <= 10_000
    assert sweep.woken_count == 0


async def test_a_room_with_backlog_is_woken_unless_it_is_held(fleet: Fleet, own_link: Link) -> None:
    """A deserted room is put into its queue again; one with a lock is looked at again in a second."""
    deserted, held = RoomActs(own_link, Address("ledger", "deserted")), RoomActs(own_link, Address("ledger", "held"))
    await held.own()
    for room in (deserted, held):
        await room.push(text())
    await own_link.send(functions.wake([deserted.address, held.address]))
    await own_link.call("DEL", keys.wake_queue("ledger"))
    sweep = await swept(fleet)
    await later(fleet, sweep, 1_100)
    assert await own_link.call("ZRANGE", keys.wake_queue("ledger"), 0, -1) == [b"ledger/deserted"]
    assert sweep.woken_count == 1
    now_ms = await held.server_ms()
    assert all(due_ms - now_ms <= 1_000 for due_ms in (await index(own_link)).values())


async def test_a_wake_during_the_look_is_not_undone(own_link: Link) -> None:
    """What a look found is void for a room that was woken after it was read from the index."""
    room = Address("ledger", "raced")
    await own_link.send(functions.wake([room]))
    (due_ms,) = (await index(own_link)).values()
    await asyncio.sleep(0.005)
    await own_link.send(functions.wake([room]))
    for again in ("rest", 10_000):
        await own_link.call(*functions.look(shard_of(room), due_ms=due_ms, rooms=[(room, again)]))
    (after_ms,) = (await index(own_link)).values()
    assert due_ms < after_ms < due_ms + 1_000


async def test_wakes_and_looks_go_on_without_memory(own_link: Link) -> None:
    """A full server still takes wakes, or the backlog that fills it could not drain."""
    await own_link.call("CONFIG", "SET", "maxmemory", 1)
    replies = await own_link.send(functions.wake([ROOM]))
    assert replies == [1, 1]
    assert str((await own_link.send((("ZADD", "x", 1, "y"),)))[0]).startswith("OOM")


async def test_many_rooms_cost_a_bounded_number_of_commands(fleet: Fleet, own_link: Link) -> None:
    """5,000 due rooms are worked off at 500 a sweep; once they are at rest a sweep is 17 commands."""
    rooms = [Address("ledger", f"r{n}") for n in range(5_000)]
    await own_link.send(functions.wake(rooms))
    await own_link.call("DEL", keys.wake_queue("ledger"))
    sweep = await swept(fleet)
    fleet.redis_time_ms += 1_100
    costs = []
    for _ in range(12):
        before = await _commands(own_link)
        await sweep.sweep()
        costs.append(await _commands(own_link) - before - 1)  # the INFO itself
    assert await index(own_link) == {}
    assert max(costs) <= 2 * 500 + 2 * ROOM_SHARDS + 1
    assert costs[-1] == ROOM_SHARDS + 1


async def _commands(link: Link) -> int:
    info = await link.call("INFO", "commandstats")
    return sum(
        int(line.split(b"calls=")[1].split(b",")[0])
        for line in info.splitlines()
        if line.startswith((b"cmdstat_zrange", b"cmdstat_hmget", b"cmdstat_get:", b"cmdstat_fcall", b"cmdstat_info"))
    )


async def test_shards_are_dealt_to_all_workers_once(fleet: Fleet, own_valkey: Valkey) -> None:
    """Each shard belongs to one of the registered workers; a worker outside the registry sweeps nothing."""
    others = [Fleet({}, connector(own_valkey.url, timeout_s=0.5)) for _ in range(2)]
    assert await own_shards(fleet) == []
    for one in (fleet, *others):
        await swept(one)
    dealt = [await own_shards(one) for one in (fleet, *others)]
    assert sorted(shard for shards in dealt for shard in shards) == list(range(ROOM_SHARDS))
    for other in others:
        await other.close()


async def test_a_name_that_is_no_room_is_thrown_out(fleet: Fleet, own_link: Link) -> None:
    """What somebody else wrote into the index does not stay in the way."""
    await own_link.call("ZADD", keys.room_index(0), 1, "no room", 2, "bad name/x")
    await (await swept(fleet)).sweep()
    assert await index(own_link) == {}
