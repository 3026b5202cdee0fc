"""The index of rooms that owe something: noted before the commit, swept, forgotten only when it is safe."""

import asyncio
import signal
from collections.abc import AsyncIterator

import pytest

from harness.acts import RoomActs, turn_of
from harness.house import until
from harness.post_rooms import Narrow, Sink, Source
from harness.valkey import Valkey
from innkeeper import functions, keys
from innkeeper.address import Address
from innkeeper.functions import ROOM_SHARDS, PushEvent, shard_of
from innkeeper.functions.posts import OUTBOX_LOOK_MS, note_outbox
from innkeeper.redis_client import Link, connector
from innkeeper_workers.fleet import Fleet
from innkeeper_workers.outboxes import OutboxSweep
from innkeeper_workers.pulse import Pulse

ROOM = Address("source", "x")


@pytest.fixture
async def fleet(own_valkey: Valkey) -> AsyncIterator[Fleet]:
    """A worker's fleet that nobody has started: it takes no wakes by itself."""
    rooms = {"source": Source, "sink": Sink, "narrow": Narrow}
    fleet = Fleet(rooms, connector(own_valkey.url, timeout_s=0.5))
    await fleet.load_functions()
    yield fleet
    await fleet.close()


async def score(link: Link, room: Address = ROOM) -> int | None:
    """Return when a room of the index is looked at, None where it is not in it."""
    found = await link.call("ZSCORE", keys.outbox_index(shard_of(room)), str(room))
    return None if found is None else int(found)


async def swept(fleet: Fleet, ms: int) -> None:
    """Sweep once as if the server's clock were that far ahead."""
    pulse = Pulse(fleet)
    await pulse._beat()
    fleet.redis_time_ms += ms
    await OutboxSweep(fleet, pulse).sweep()


async def wakes(link: Link) -> list[str]:
    """Return the rooms in the wake queue."""
    return [name.decode() for name in await link.call("ZRANGE", keys.wake_queue("source"), 0, -1)]


async def test_a_room_that_owes_and_has_no_owner_is_woken(fleet: Fleet, own_link: Link) -> None:
    """Not before its time; then at once, and looked at again in a second."""
    room = RoomActs(own_link, ROOM)
    claimed = await room.own()
    await own_link.send([note_outbox(ROOM)])
    await room.done(claimed, 0, turn_of(outbox=[("post", "sink/x", b"{}")]))
    await own_link.call(*room.delete("lock"))
    await swept(fleet, OUTBOX_LOOK_MS - 2_000)
    assert await wakes(own_link) == []
    await swept(fleet, OUTBOX_LOOK_MS + 10)
    assert await wakes(own_link) == ["source/x"]
    left_ms = (await score(own_link) or 0) - await room.server_ms()
    assert 0 < left_ms <= 1_000


async def test_a_room_with_an_owner_is_left_alone(fleet: Fleet, own_link: Link) -> None:
    """Its courier is at work: looked at again in ten seconds."""
    room = RoomActs(own_link, ROOM)
    claimed = await room.own()
    await own_link.send([note_outbox(ROOM)])
    await room.done(claimed, 0, turn_of(outbox=[("post", "sink/x", b"{}")]))
    await swept(fleet, OUTBOX_LOOK_MS + 10)
    assert await wakes(own_link) == []
    assert (await score(own_link) or 0) - await room.server_ms() > 9_000


async def test_a_note_stays_until_its_time(fleet: Fleet, own_link: Link) -> None:
    """An empty outbox is forgotten when its look is due, and not where it was noted anew since the index was read."""
    await own_link.send([note_outbox(ROOM)])
    await swept(fleet, 0)
    due_ms = await score(own_link)
    assert due_ms is not None
    look = functions.look(shard_of(ROOM), due_ms=due_ms - 1, rooms=[(ROOM, "rest")], index=keys.outbox_index)
    await own_link.call(*look)
    assert await score(own_link) == due_ms
    await swept(fleet, OUTBOX_LOOK_MS + 10)
    assert await score(own_link) is None


async def test_an_owner_notes_before_it_commits_and_delivers(fleet: Fleet, own_link: Link) -> None:
    """The index names the room when the commit leaves; then the post is delivered, its target woken, the entry gone."""
    room, sink = RoomActs(own_link, ROOM), RoomActs(own_link, Address("sink", "x"))
    await room.push(PushEvent("join", "c1", b'{"user":["u","u"]}'))
    notes: list[int] = []
    send = fleet.link.send

    async def watched(commands: list[tuple[str | bytes | int, ...]]) -> list[object]:
        if any(command[1] == functions.COMMIT and "post" in command for command in commands):
            notes.append(await score(own_link) or 0)
        return await send(commands)

    fleet.link.send = watched  # type: ignore[method-assign,assignment]
    fleet.consider("source/x")
    await room.push(PushEvent("text", "c1", b'{"to":["sink/x"]}'))
    await until(lambda: _backlog(sink), "the post is there")
    assert notes
    assert all(notes), "a commit went out before its note"
    await until(lambda: _owes_nothing(room), "the outbox is empty")
    assert await wakes(own_link) == []
    assert await own_link.call("ZCARD", keys.wake_queue("sink")) == 1


async def _backlog(room: RoomActs) -> bool:
    return bool(await room.stream("inbox"))


async def _owes_nothing(room: RoomActs) -> bool:
    return not await room.stream("outbox")


async def test_a_working_courier_keeps_its_room(fleet: Fleet, own_link: Link) -> None:
    """A room whose target is full is not put to sleep, but for longer than a minute it is not kept either."""
    room, narrow = RoomActs(own_link, ROOM), RoomActs(own_link, Address("narrow", "x"))
    await narrow.push(*(PushEvent("post", "c", b"{}") for _ in range(4)))
    await room.push(PushEvent("join", "c1", b'{"user":["u","u"]}'), PushEvent("text", "c1", b'{"to":["narrow/x"]}'))
    fleet.consider("source/x")
    await until(lambda: _owes(room), "it owes")
    owner = fleet.owners[ROOM]
    owner.used_at_s -= 30
    await asyncio.sleep(0)
    assert owner.courier.holds
    assert not owner.is_idle
    owner.used_at_s -= 31
    assert owner.is_idle


async def _owes(room: RoomActs) -> bool:
    return bool(await room.stream("outbox"))


async def test_a_courier_waits_through_a_stopped_redis(fleet: Fleet, own_valkey: Valkey, own_link: Link) -> None:
    """Redis stands still for longer than commands wait: the post is sent again and counts once."""
    room, sink = RoomActs(own_link, ROOM), RoomActs(own_link, Address("sink", "x"))
    await room.push(PushEvent("join", "c1", b'{"user":["u","u"]}'))
    fleet.consider("source/x")
    await until(lambda: ROOM in fleet.owners, "it is owned")
    for n in range(20):
        await room.push(PushEvent("text", "c1", b'{"to":["sink/x"]}'))
        if n == 10:
            assert own_valkey.process is not None
            own_valkey.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(1.2)
            own_valkey.process.send_signal(signal.SIGCONT)
    await until(lambda: _owes_nothing_and(room, sink, 20), "all is delivered", timeout_s=20)
    assert len(await sink.stream("inbox")) == 20


async def _owes_nothing_and(room: RoomActs, sink: RoomActs, count: int) -> bool:
    return len(await sink.stream("inbox")) >= count and not await room.stream("outbox")


def test_every_shard_has_its_index() -> None:
    """The two indexes of a room are of the same shard and of different names."""
    assert {keys.outbox_index(n) for n in range(ROOM_SHARDS)} & {
        keys.room_index(n) for n in range(ROOM_SHARDS)
    } == set()
