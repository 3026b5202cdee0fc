"""What is held against an event or a start, and when: owners of a real fleet on a real server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.acts import RoomActs, join, new_mark, text, turn_of
from harness.house import until
from harness.valkey import Valkey
from innkeeper import Connection, Room, keys
from innkeeper.address import Address
from innkeeper.redis_client import Link, connector
from innkeeper_workers import starting
from innkeeper_workers.deaths import is_storm, note_death
from innkeeper_workers.fleet import Fleet
from innkeeper_workers.pulse import Pulse

ROW = b'{"join":1,"edge":"e1","session":"","user":["u","u"],"state":null}'


class Patient(Room):
    """Waits in on_message until it is let go, if told to."""

    gate: asyncio.Event

    async def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Wait, or note the message."""
        if message == "wait":
            await self.gate.wait()
        self.state["said"] = [*self.state.get("said", []), message]


class Starter(Patient):
    """Fails at its start while told to."""

    fails = False
    starts = 0

    def on_start(self) -> None:
        """Count, and fail if told to."""
        Starter.starts += 1
        if Starter.fails:
            raise OSError("not now")


@pytest.fixture
async def fleet(own_valkey: Valkey) -> AsyncIterator[Fleet]:
    """A worker's fleet that claims what it is told to consider."""
    Patient.gate = asyncio.Event()
    Starter.fails, Starter.starts = False, 0
    fleet = Fleet({"patient": Patient, "starter": Starter}, connector(own_valkey.url, timeout_s=0.5))
    yield fleet
    Patient.gate.set()
    await fleet.close()


async def died(room: RoomActs, *, tries: bool) -> None:
    """Let an owner take the room and die; ``tries``: while the first event's handler ran under suspicion."""
    claimed = await room.own(f"w-dead-{new_mark()}")  # a worker that claims its own room anew has not died
    if tries:
        version = int((await room.hash("meta"))["version"])
        await room.done(claimed, version, turn_of(), tries=True)
    await room.link.call(*room.delete("lock"))


async def meta(room: RoomActs, name: str) -> str | None:
    """Return a field of meta."""
    return (await room.hash("meta")).get(name)


async def forgotten(room: RoomActs, name: str) -> bool:
    """Return whether meta has no such field."""
    return await meta(room, name) is None


async def cursor(room: RoomActs, iseq: int) -> bool:
    """Return whether the room has come so far."""
    return await meta(room, "cursor") == str(iseq)


async def served(room: RoomActs, iseq: int) -> None:
    """Wait until the room has come so far."""
    await until(lambda: cursor(room, iseq), f"{room.address} is served")


async def test_an_event_that_waits_to_be_alone_is_not_tried_yet(fleet: Fleet, own_link: Link) -> None:
    """While another room's hook runs, a suspect with a strike waits; a death meanwhile does not speak against it."""
    other, suspect = RoomActs(own_link, Address("patient", "other")), RoomActs(own_link, Address("patient", "suspect"))
    await other.push(join(), text(data=b'"wait"'))
    fleet.consider("patient/other")
    await until(lambda: fleet.stage._running, "the other room's hook waits")
    await suspect.push(join(), text(data=b'"quick"'))
    await died(suspect, tries=False)
    await died(suspect, tries=True)
    fleet.consider("patient/suspect")
    await until(lambda: fleet.stage._alone, "the suspect wants to be alone")
    assert await meta(suspect, "strikes") == "1"
    assert await meta(suspect, "try") is None  # its handler has not started
    Patient.gate.set()
    await until(lambda: cursor(suspect, 2), "the suspect is acquitted")
    assert await meta(suspect, "strikes") is None
    assert "dead" not in await suspect.exist()


@pytest.mark.parametrize(("deaths", "strikes", "dead"), [(12, 2, True), (13, 2, False), (13, 3, False), (13, 4, True)])
async def test_in_a_storm_of_deaths_more_is_asked_for(
    fleet: Fleet, own_link: Link, deaths: int, strikes: int, dead: bool
) -> None:
    """Two deaths under an event convict it, unless more than twelve workers died within 30 s; four always do."""
    room = RoomActs(own_link, Address("patient", "struck"))
    fleet.redis_time_ms = await room.server_ms()
    await own_link.call("ZADD", keys.EDGES, fleet.redis_time_ms, "e1")
    for n in range(deaths):
        await note_death(fleet.link, f"w-{n}", now_ms=fleet.redis_time_ms)
    await room.push(join(), text(data=b'"quick"'))
    await room.done(await room.own("w-dead"), 0, turn_of((await room.ids())[:1], members_set={"c1": ROW}))
    await room.link.call(*room.delete("lock"))
    for _ in range(strikes):
        await died(room, tries=True)
    fleet.consider("patient/struck")
    await served(room, 2)
    assert ("dead" in await room.exist()) is dead
    assert ("state" in await room.exist()) is not dead


@pytest.mark.parametrize("lives", [True, False], ids=["robbed", "dead"])
async def test_a_worker_that_was_robbed_has_not_died(fleet: Fleet, own_link: Link, lives: bool) -> None:
    """Who lost its room because nobody heard its bell is looked for by its heartbeat before an event is convicted."""
    room = RoomActs(own_link, Address("patient", "robbed"))
    await own_link.call("ZADD", keys.EDGES, await room.server_ms(), "e1")
    await room.push(join(), text(data=b'"quick"'))
    await room.done(await room.own("w-first"), 0, turn_of((await room.ids())[:1], members_set={"c1": ROW}))
    await room.link.call(*room.delete("lock"))
    await died(room, tries=True)
    owner = await room.own("w-robbed")
    await room.done(owner, int((await room.hash("meta"))["version"]), turn_of(), tries=True)
    assert (await meta(room, "strikes"), await room.link.call("GET", room.keys.lock)) == (
        "1", f"w-robbed:{owner.token}".encode(),
    )  # fmt: skip

    async def beat() -> None:
        while True:
            await own_link.call("ZADD", keys.WORKERS, await room.server_ms(), "w-robbed")
            await asyncio.sleep(0.05 if lives else 3600)

    beating = asyncio.create_task(beat())
    fleet.consider("patient/robbed")
    await served(room, 2)
    assert ("dead" in await room.exist()) is not lives
    assert ("state" in await room.exist()) is lives
    beating.cancel()


async def test_deaths_are_forgotten(own_link: Link) -> None:
    """What is older than 30 s does not count, and nothing is kept for longer than a minute."""
    for n in range(13):
        await note_death(own_link, f"w-{n}", now_ms=1_000_000)
    assert await is_storm(own_link, now_ms=1_029_000)
    assert not await is_storm(own_link, now_ms=1_031_000)
    await note_death(own_link, "w-last", now_ms=1_061_000)
    assert await own_link.call("ZRANGE", keys.DEATHS, 0, -1) == [b"w-last"]
    assert 0 < await own_link.call("PTTL", keys.DEATHS) <= 60_000


async def test_a_long_pause_of_redis_speaks_for_the_event(fleet: Fleet, own_link: Link) -> None:
    """A worker that was out of touch with Redis for longer than a lease says so; for 30 s that counts as a storm."""
    pulse = Pulse(fleet)
    await pulse._beat()
    clock = pulse._clocks[keys.WORKERS]
    clock.now_ms -= 1_500
    await pulse._beat()
    assert not await is_storm(own_link, now_ms=clock.now_ms)
    clock.now_ms -= 2_500
    await pulse._beat()
    assert await own_link.call("ZRANGE", keys.DEATHS, 0, -1) == [f"~{fleet.incarnation}".encode()]
    assert await is_storm(own_link, now_ms=clock.now_ms + 29_000)
    assert not await is_storm(own_link, now_ms=clock.now_ms + 31_000)


async def test_few_rooms_are_tried_at_once(fleet: Fleet, own_link: Link) -> None:
    """One death speaks against 32 events at most, however many rooms have a marked backlog."""
    rooms = [RoomActs(own_link, Address("patient", f"r{n}")) for n in range(120)]
    for room in rooms:
        await room.push(join(), text(data=b'"quick"'))
        await died(room, tries=False)
    seen = []
    for room in rooms:
        fleet.consider(str(room.address))
    while not all([await cursor(room, 2) for room in rooms]):
        seen.append(sum([await meta(room, "try") is not None for room in rooms]))
    assert max(seen) <= 32, seen
    assert fleet.stage.trials._value == 32


async def test_a_waiting_suspect_lets_others_be_tried(fleet: Fleet, own_link: Link) -> None:
    """A marked event whose hook waits keeps nobody else from being tried."""
    rooms = [RoomActs(own_link, Address("patient", f"r{n}")) for n in range(40)]
    for n, room in enumerate(rooms):
        await room.push(join(), text(data=b'"quick"' if n == 39 else b'"wait"'))
        await died(room, tries=False)
    for room in rooms:
        fleet.consider(str(room.address))
    await until(lambda: cursor(rooms[39], 2), "the last one is served")
    Patient.gate.set()
    for room in rooms:
        await served(room, 2)
    assert fleet.stage.trials._value == 32


async def test_a_start_under_suspicion_is_noted_until_it_ends(fleet: Fleet, own_link: Link) -> None:
    """What on_start raises is no death: meta forgets the attempt each time, and the event behind is not blamed."""
    room = RoomActs(own_link, Address("starter", "x"))
    await room.push(join())
    await died(room, tries=False)
    Starter.fails = True
    fleet.consider("starter/x")
    await until(lambda: meta(room, "error"), "the failure shows")
    await until(lambda: forgotten(room, "starting"), "the attempt is forgotten")
    assert await meta(room, "try") is None
    Starter.fails = False
    await until(lambda: cursor(room, 1), "the room is served")
    assert (await meta(room, "error"), Starter.starts) == (None, 2)


async def test_a_start_that_killed_waits(fleet: Fleet, own_link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three deaths in its start a room waits, longer after each more, and is alone when it is tried again."""
    monkeypatch.setattr(starting, "_FIRST_WAIT_AFTER_DEATHS_S", 0.2)
    room = RoomActs(own_link, Address("starter", "x"))
    await room.push(join())
    await died(room, tries=False)
    await own_link.call("HSET", room.keys.meta, "starting", 3)
    fleet.consider("starter/x")
    await until(lambda: meta(room, "error"), "the wait shows")
    assert (await meta(room, "error") or "").startswith("4 workers died in on_create or on_start")
    assert Starter.starts == 0
    started_s = fleet.loop.time()
    await until(lambda: cursor(room, 1), "the room is served")
    assert fleet.loop.time() - started_s > 0.25
    assert (await meta(room, "starting"), await meta(room, "error"), Starter.starts) == (None, None, 1)


async def test_a_clean_claim_starts_at_once(fleet: Fleet, own_link: Link) -> None:
    """A room that was handed over starts without a wait, whatever was held against its start before."""
    room = RoomActs(own_link, Address("starter", "x"))
    await room.push(join())
    claimed = await room.own("w-old")
    await own_link.call("HSET", room.keys.meta, "starting", 9)
    await room.release(claimed, worker="w-old", force=True)
    fleet.consider("starter/x")
    await until(lambda: cursor(room, 1), "the room is served", timeout_s=5)
    assert await meta(room, "starting") is None
