"""The look-out for timers and the owner's alarm: the index is there before the commit, and nothing is forgotten."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from harness.acts import RoomActs, turn_of
from harness.house import until
from harness.rooms import Clock
from harness.valkey import Valkey
from innkeeper import functions, keys
from innkeeper.address import Address
from innkeeper.functions import shard_of
from innkeeper.functions import timers as acts
from innkeeper.keys import timer_index
from innkeeper.redis_client import Link, connector
from innkeeper.timers import TimerRow
from innkeeper_workers import timers as look_outs
from innkeeper_workers.fleet import Fleet
from innkeeper_workers.pulse import Pulse
from innkeeper_workers.timers import LookOut

ROOM = Address("clock", "x")


@pytest.fixture
def room(own_link: Link) -> RoomActs:
    """A room on a server of this test's own, with the functions loaded."""
    return RoomActs(own_link, ROOM)


@pytest.fixture
async def fleet(room: RoomActs, own_valkey: Valkey) -> AsyncIterator[Fleet]:  # noqa: ARG001 - its functions
    """A worker's fleet that nobody has started: it takes no wakes by itself."""
    fleet = Fleet({"clock": Clock}, connector(own_valkey.url, timeout_s=0.5))
    yield fleet
    await fleet.close()


@pytest.fixture
async def look_out(fleet: Fleet) -> LookOut:
    """The look-out of a worker that is registered."""
    pulse = Pulse(fleet)
    await pulse._beat()
    return LookOut(fleet, pulse)


async def put(room: RoomActs, name: str, due_ms: int) -> None:
    """Write a timer as a commit would."""
    await room.link.call("HSET", room.keys.timers, name, TimerRow(f"1-1.{name}", due_ms).to_row())


async def expect(room: RoomActs, due_ms: int) -> None:
    """Note the room in the index."""
    acts.read_expected(await room.ask(acts.expect(shard_of(ROOM), [(ROOM, due_ms)])))


async def score(room: RoomActs) -> int | None:
    """Return the room's score in the index."""
    found = await room.link.call("ZSCORE", timer_index(shard_of(ROOM)), str(ROOM))
    return None if found is None else int(found)


async def woken(room: RoomActs) -> bool:
    """Return whether the room stands in its wake queue, and take it out."""
    return bool(await room.link.call("ZREM", keys.wake_queue("clock"), str(ROOM)))


# --- the look-out -----------------------------------------------------------------------------------------------------
async def test_a_room_that_nobody_owns(room: RoomActs, look_out: LookOut) -> None:
    """What is due fires and the room is woken; its entry moves to the next timer."""
    now_ms = await room.server_ms()
    await put(room, "a", now_ms)
    await put(room, "b", now_ms + 60_000)
    await expect(room, now_ms)
    await look_out.look()
    assert look_out.fired_count == 1
    assert await score(room) == now_ms + 60_000
    assert [fields["t"] for _, fields in await room.stream("inbox")] == [b"timer"]
    assert await woken(room)


async def test_a_room_whose_entry_is_early(room: RoomActs, look_out: LookOut) -> None:
    """Nothing is due by the room's clock: nobody is woken, and the entry moves to where it belongs."""
    now_ms = await room.server_ms()
    await put(room, "b", now_ms + 60_000)
    await expect(room, now_ms)
    await look_out.look()
    assert await score(room) == now_ms + 60_000
    assert not await woken(room)
    assert await room.exist() == {"timers"}


async def test_the_next_look_comes_when_the_next_entry_is_due(
    room: RoomActs, look_out: LookOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps as long as usual, or until the next entry if that is sooner."""
    monkeypatch.setattr(look_outs, "_EVERY_S", 60.0)
    assert await look_out.look() == 60
    await expect(room, await room.server_ms() + 30_000)
    assert 20 < await look_out.look() <= 30


async def test_an_owner_that_lives(room: RoomActs, look_out: LookOut) -> None:
    """Its room's entry moves two seconds ahead, and nobody is woken."""
    await room.own()
    now_ms = await room.server_ms()
    await put(room, "a", now_ms + 600)
    await expect(room, now_ms)
    await look_out.look()
    found = await score(room)
    assert found is not None
    assert now_ms + 2000 <= found <= await room.server_ms() + 2000
    assert not await woken(room)


async def test_an_owner_that_hears_nothing(room: RoomActs, look_out: LookOut) -> None:
    """The lock still stands but nobody listens to the bell: what is due fires, and the room is woken."""
    await room.own()
    await put(room, "a", await room.server_ms())
    await expect(room, await room.server_ms())
    await look_out.look()
    assert look_out.fired_count == 1
    assert await woken(room)


async def test_a_room_without_timers_is_taken_out_at_the_second_look(
    room: RoomActs, look_out: LookOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some seconds lie between the looks; a room that is noted in between stays."""
    monkeypatch.setattr(look_outs, "_EMPTY_MS", 50)
    await expect(room, await room.server_ms())
    await look_out.look()
    first = await score(room)
    assert first is not None
    await expect(room, first + 5)
    await asyncio.sleep(0.06)
    await look_out.look()
    assert await score(room) is not None
    await asyncio.sleep(0.06)
    await look_out.look()
    assert await score(room) is None
    assert await room.exist() == set()


async def test_a_room_that_waits_is_woken_until_somebody_comes(
    room: RoomActs, look_out: LookOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wake was lost, or the answer to the fire: the entry stays, and the next look wakes the room."""
    monkeypatch.setattr(look_outs, "_OWNED_MS", 10)
    await put(room, "a", await room.server_ms())
    await expect(room, await room.server_ms())
    acts.read_fired(await room.ask(acts.fire(room.keys)))  # whoever fired it died before the wake
    for _ in range(3):
        await look_out.look()
        assert await woken(room)
        await asyncio.sleep(0.02)
    await room.link.call(*room.delete("inbox"))  # its event is lost: only a claim can fire it anew
    await room.link.call("HSET", room.keys.sessions, "@", 1)
    await look_out.look()
    assert await woken(room)


async def test_names_that_are_no_rooms(room: RoomActs, look_out: LookOut) -> None:
    """They are taken out of the index."""
    await room.link.call("ZADD", timer_index(0), 5, "no room")
    await look_out.look()
    assert await room.link.call("EXISTS", timer_index(0)) == 0


async def test_a_room_that_cannot_be_asked(room: RoomActs, look_out: LookOut) -> None:
    """Somebody has put another type there: it is logged, asked later again, and holds up no other room."""
    other = RoomActs(room.link, Address("clock", "other"))
    await room.link.call("SET", room.keys.timers, "text")
    await put(other, "a", await room.server_ms())
    for address in (ROOM, other.address):
        await room.ask(acts.expect(shard_of(address), [(address, 5)]))
    await look_out.look()
    assert look_out.fired_count == 1
    assert (await score(room) or 0) > await room.server_ms() + 1000


async def test_a_dead_workers_rooms_are_looked_at(room: RoomActs, fleet: Fleet) -> None:
    """Rooms with timers get an entry that is due, whatever it was before; others get none."""
    pulse = Pulse(fleet)
    await pulse._beat()
    await put(room, "a", await room.server_ms() + 60_000)
    await room.link.call("SADD", keys.worker_rooms("w-dead"), str(ROOM), "clock/without")
    await expect(room, await room.server_ms() + 60_000)
    await pulse._wake_rooms_of("w-dead", "is silent")
    assert await score(room) == fleet.redis_time_ms
    assert await room.link.call("ZSCORE", timer_index(shard_of(Address("clock", "without"))), "clock/without") is None


# --- the owner --------------------------------------------------------------------------------------------------------
@pytest.fixture
async def serving(fleet: Fleet) -> AsyncIterator[Fleet]:
    """A worker at work, without a look-out."""
    pulse = Pulse(fleet)
    await pulse._beat()
    duties = [asyncio.create_task(duty()) for duty in (pulse.beat_forever, pulse.renew_forever, fleet.serve_wakes)]
    yield fleet
    fleet.draining = True
    for duty in duties:
        duty.cancel()
    await asyncio.gather(*duties, return_exceptions=True)


async def told(room: RoomActs, *timers: tuple[str, dict[str, Any]]) -> None:
    """Let a member set timers."""
    data = orjson.dumps({"set": timers})
    await room.push(functions.PushEvent("join", "c1", b'{"user":["u","u"]}'), functions.PushEvent("text", "c1", data))
    await room.link.send(functions.wake([ROOM]))


async def ran(room: RoomActs) -> list[str]:
    """Return the names of the timers that ran."""
    return [name for name, _, _ in orjson.loads((await room.hash("state")).get("ran", "[]"))]


async def test_the_index_is_written_before_the_commit(
    room: RoomActs, serving: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the index does not answer no timer is committed; the entry may lie two seconds behind the timer."""
    gate, noted = asyncio.Event(), []
    send = serving.link.send

    async def held(commands: Any) -> Any:
        if any(acts.EXPECT in command for command in commands):
            noted.append(await room.hash("timers"))
            await gate.wait()
        return await send(commands)

    monkeypatch.setattr(serving.link, "send", held)
    await told(room, ("x", {"after": 30}), ("y", {"after": 0.5}))
    await until(lambda: noted, "the owner wants to note the room")
    assert noted == [{}]
    assert await room.hash("timers") == {}
    gate.set()
    await until(lambda: room.hash("timers"), "the timers are there")
    due_ms = min(orjson.loads(row)["due"] for row in (await room.hash("timers")).values())
    found = await score(room)
    assert found is not None
    assert due_ms < found <= due_ms + 2000
    await until(lambda: ran(room), "the timer runs without any look-out")
    assert await ran(room) == ["y"]


async def test_a_game_writes_the_index_seldom(room: RoomActs, serving: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty ticks a second cost an entry in some two seconds; without a look-out to move it, it is lowered."""
    noted: list[Any] = []
    send = serving.link.send

    async def counted(commands: Any) -> Any:
        noted.extend(command for command in commands if acts.EXPECT in command)
        return await send(commands)

    monkeypatch.setattr(serving.link, "send", counted)
    await told(room, ("tick", {"every": 0.02}))
    await until(lambda: _ran(room, 60), "sixty ticks")
    assert len(noted) < 5


async def _ran(room: RoomActs, count: int) -> bool:
    return len(await ran(room)) >= count


async def test_a_claim_writes_the_index_anew(room: RoomActs, serving: Fleet) -> None:
    """Somebody has deleted the index: whoever claims a room with timers writes its entry."""
    await put(room, "x", await room.server_ms() + 60_000)
    await room.link.send(functions.wake([ROOM]))
    found = await until(lambda: score(room), "the room is in the index")
    assert found == orjson.loads((await room.hash("timers"))["x"])["due"]
    assert ROOM in serving.owners


async def test_a_release_says_when_the_next_timer_is_due(room: RoomActs, serving: Fleet) -> None:
    """A room asleep has no owner to fire: its entry is exact."""
    await told(room, ("x", {"after": 12}))
    await until(lambda: room.hash("timers"), "the timer is there")
    due_ms = orjson.loads((await room.hash("timers"))["x"])["due"]
    # What a look-out does while the owner lives
    stored = await score(room)
    assert stored is not None
    await room.ask(acts.postpone(shard_of(ROOM), [(str(ROOM), stored, due_ms + 1500)]))
    await until(lambda: ROOM not in serving.owners, "the room sleeps", timeout_s=9)
    assert await room.server_ms() < due_ms - 1000
    assert await score(room) == due_ms


async def test_a_timer_that_is_near_keeps_the_room_awake(
    room: RoomActs,
    serving: Fleet,  # noqa: ARG001 - it serves
) -> None:
    """A room whose timer is due within three seconds is not put to sleep for it."""
    await told(room, ("x", {"after": 2.5}))
    await until(lambda: room.hash("timers"), "the timer is there")
    token = (await room.hash("meta"))["token"]
    await until(lambda: ran(room), "the timer runs")
    assert (await room.hash("meta"))["token"] == token


async def test_a_room_that_is_used_again_is_not_put_to_sleep(room: RoomActs, serving: Fleet) -> None:
    """An event that comes between the word that a room is idle and its release withdraws it."""
    await told(room, ("x", {"after": 60}))
    await until(lambda: room.hash("timers"), "the timer is there")
    owner = serving.owners[ROOM]
    owner.leaving = "idle"  # what leave() says, before its owner has heard of it
    await room.push(functions.PushEvent("text", "c1", b'{"set":[["y",{"after":60}]]}'), batch=2)
    await until(lambda: _has(room, 2), "the second timer is there")
    assert not owner.leaving
    await asyncio.sleep(0.1)
    assert serving.owners[ROOM] is owner


async def _has(room: RoomActs, count: int) -> bool:
    return len(await room.hash("timers")) == count


async def test_a_timer_that_somebody_else_fires(room: RoomActs, serving: Fleet) -> None:  # noqa: ARG001 - it serves
    """Both the owner and a look-out fire it: it runs once."""
    await told(room, *((f"x{n}", {"after": 0.3 + n / 100}) for n in range(40)))
    await until(lambda: room.hash("timers"), "the timers are there")
    for _ in range(200):
        acts.read_fired(await room.ask(acts.fire(room.keys)))
        await asyncio.sleep(0.004)
    await until(lambda: _ran(room, 40), "all run")
    assert sorted(await ran(room)) == sorted(f"x{n}" for n in range(40))
    assert await room.hash("timers") == {}


async def test_timers_more_than_a_fire_takes(room: RoomActs, serving: Fleet) -> None:  # noqa: ARG001 - it serves
    """Six hundred at once need several calls, and each runs once."""
    await told(room, *((f"x{n}", {"after": 0.1}) for n in range(600)))
    await until(lambda: _ran(room, 600), "all run")
    assert len(set(await ran(room))) == 600


async def test_destroyed_rooms_fire_nothing(room: RoomActs) -> None:
    """The commit that ends a room takes its timers along."""
    claimed = await room.own()
    await put(room, "x", await room.server_ms())
    await room.done(claimed, 0, turn_of(destroy=True))
    assert acts.read_fired(await room.ask(acts.fire(room.keys)))[:3] == (0, 0, 0)
