"""Failover by real Sentinels: rooms are writable again soon, and have one history, also where history was lost."""

import asyncio
import contextlib
import os
import signal
import statistics
import time
from functools import partial
from pathlib import Path

import pytest

from harness.house import House, until
from harness.sentinels import Sentinels
from harness.talk import RESYNC, Talker, check_one_history, crowd, regain, settle
from innkeeper.errors import RedisUnavailable
from innkeeper.topology import open_link, reach

ROOMS = [f"ledger/room-{n}" for n in range(4)]
WRITABLE_S = 5.0
COUNTERS = "inn:counters"


async def fail_over(house: House, sentinels: Sentinels, *, is_blackholed: bool, tag: str = "a") -> list[float]:
    """Kill the primary under traffic and check what became of the rooms; return how long each room was away."""
    talkers = await crowd(house, ROOMS, tag=tag)
    primary = await sentinels.primary()
    before = await counters(sentinels)
    hole = await sentinels.reroute_replication()
    await grow(talkers, 3)
    if is_blackholed:
        hole.swallow()
    await grow(talkers, 5)
    killed_at_s = time.monotonic()
    primary.kill()
    regained = await asyncio.gather(*(regain(house, room, f"{tag}w", killed_at_s) for room in ROOMS))
    new_primary = sentinels.other(primary)
    await until(sentinels.primary_is(new_primary), "all Sentinels name the new primary")
    witnesses = {room: client for room, (_, client) in zip(ROOMS, regained, strict=True)}
    await settle(talkers, witnesses)
    stored = {room: await sentinels.history(new_primary, room) for room in ROOMS}
    verdict = check_one_history(talkers, witnesses, stored)
    after = await counters(sentinels)
    if is_blackholed:
        assert hole.swallowed_bytes > 0, "the fault did not bite"
        assert verdict.revoked > 0, "the fault did not bite"
        assert verdict.stayed == 0, f"history was lost and a client was not told: {verdict}"
        assert after["resyncs"] - before["resyncs"] >= len(ROOMS), after
        assert after["resynced_sockets"] - before["resynced_sockets"] >= len(talkers)
    away_s = [seconds for seconds, _ in regained]
    print(
        f"blackholed={is_blackholed} away {[round(s, 2) for s in away_s]} s, {verdict}, before {before} after {after}"
    )
    assert max(away_s) <= WRITABLE_S
    for client in (*(t.client for t in talkers), *witnesses.values()):
        await client.abort()
    house.clients.clear()
    await asyncio.to_thread(primary.start)
    return away_s


async def grow(talkers: list[Talker], by: int) -> None:
    """Wait until every talker has seen so many more numbers."""
    goals = [(talker, talker.last_n + by) for talker in talkers]
    await until(lambda: all(talker.last_n >= goal for talker, goal in goals), "the ledgers grow")


async def counters(sentinels: Sentinels) -> dict[str, int]:
    """Return what the present primary has counted."""
    found = await sentinels.tell(await sentinels.primary(), "HGETALL", COUNTERS)
    return {name: int(found.get(name, 0)) for name in ("resyncs", "resynced_sockets", "refused_commits")}


async def test_failover_that_loses_history(tmp_path: Path) -> None:
    """A promoted replica that lacks accepted history: stale owners are refused, every client is told to resync."""
    async with Sentinels(tmp_path) as sentinels, House(tmp_path, url=sentinels.url) as house:
        await fail_over(house, sentinels, is_blackholed=True)


@pytest.mark.topologies
@pytest.mark.timeout(1800)
async def test_many_failovers(tmp_path: Path) -> None:
    """One history each; every other failover loses history."""
    count = int(os.environ.get("INNKEEPER_TEST_FAILOVERS", "4"))
    away_s: list[float] = []
    async with Sentinels(tmp_path) as sentinels, House(tmp_path, url=sentinels.url) as house:
        for number in range(count):
            away_s += await fail_over(house, sentinels, is_blackholed=number % 2 == 1, tag=f"{number}.")
            await sentinels.complete()
    print(f"{count} failovers: away p50 {statistics.median(away_s):.2f} s, max {max(away_s):.2f} s")


@pytest.mark.topologies
async def test_a_link_follows_the_primary(tmp_path: Path) -> None:
    """A link whose server was made a replica finds the new primary by itself."""
    async with Sentinels(tmp_path) as sentinels:
        link = open_link(reach(sentinels.url, timeout_s=0.5), timeout_s=0.5, name="test")
        try:
            await link.call("SET", "a", "1")
            primary = await sentinels.primary()
            await sentinels.fail_over()
            await until(sentinels.primary_is(sentinels.other(primary)), "the Sentinels have moved the primary")

            async def is_written() -> bool:
                with contextlib.suppress(RedisUnavailable):
                    await link.call("SET", "a", "2")
                return bool(await sentinels.tell(sentinels.other(primary), "GET", "a") == "2")

            await until(is_written, "the link writes at the new primary")
        finally:
            await link.close()


async def test_accepted_messages_that_nobody_saw(tmp_path: Path) -> None:
    """Where Redis forgets a message that it had accepted and that had no output yet, its room is told to resync."""
    async with House(tmp_path, edges=1, workers=1) as house:
        swept, pushed = [await house.join(f"ledger/{name}", name="Ann") for name in ("swept", "pushed")]
        for client in (swept, pushed):
            await client.send({"i": 0})
            await client.numbers(1)
        house.workers[0].signal(signal.SIGSTOP)
        for room, client in (("ledger/swept", swept), ("ledger/pushed", pushed)):
            names = [f"inn:{{{room}}}:{part}" for part in ("inbox", "sessions")]
            before = [await house.redis.dump(name) for name in names]
            await client.send({"i": 1})
            await until(partial(accepted, house, room, 3), "the message is accepted")
            for name, dump in zip(names, before, strict=True):
                await house.redis.restore(name, 0, dump, replace=True)
        await pushed.send({"i": 2})  # the answer tells; nobody sends into the other room, there the sweep finds it
        assert await pushed.closed(5) == RESYNC
        assert await swept.closed(5) == RESYNC
        await until(lambda: house.redis.hget(COUNTERS, "resyncs"), "it is counted")


@pytest.mark.topologies
async def test_replicated_loses_nothing(tmp_path: Path) -> None:
    """With ``replicated`` a blackholed replica stops acceptance, not truth: after the failover nothing is missing."""
    options = ("--durability", "replicated")
    async with (
        Sentinels(tmp_path, persist=True) as sentinels,
        House(tmp_path, url=sentinels.url, options=options) as house,
    ):
        talkers = await crowd(house, ROOMS)
        primary = await sentinels.primary()
        hole = await sentinels.reroute_replication()
        await grow(talkers, 3)
        hole.swallow()
        await asyncio.sleep(0.3)  # what a replica had got before is still shown
        seen = [talker.last_n for talker in talkers]
        stored = await sentinels.history(primary, ROOMS[0])
        await asyncio.sleep(1.0)
        assert [talker.last_n for talker in talkers] == seen, "outputs were shown that no replica has"
        assert max(await sentinels.history(primary, ROOMS[0])) >= max(stored)
        sent = [talker.sent_count for talker in talkers]
        killed_at_s = time.monotonic()
        primary.kill()
        new_primary = sentinels.other(primary)
        await until(sentinels.primary_is(new_primary), "all Sentinels name the new primary")
        await asyncio.to_thread(primary.start)
        await sentinels.tell(primary, "REPLICAOF", "127.0.0.1", new_primary.port)
        regained = await asyncio.gather(*(regain(house, room, "w", killed_at_s) for room in ROOMS))
        witnesses = {room: client for room, (_, client) in zip(ROOMS, regained, strict=True)}
        await settle(talkers, witnesses)
        verdict = check_one_history(
            talkers, witnesses, {room: await sentinels.history(new_primary, room) for room in ROOMS}
        )
        counted = await counters(sentinels)
        print(f"{sum(sent)} sent before the kill, {verdict}, {counted}")
        assert hole.swallowed_bytes > 0, "the fault did not bite"
        assert verdict == (len(talkers), 0, 0)
        assert counted["refused_commits"] > 0, "no commit stood on history that was lost"


async def test_a_rolled_back_room_whose_owner_lives(tmp_path: Path) -> None:
    """An owner that has read more than there is now loads its room anew, though nothing it says was refused yet."""
    async with House(tmp_path, edges=1, workers=1) as house:
        client = await house.join("ledger/room", name="Ann")
        await client.expect(lambda f: "welcome" in f, "its welcome")
        names = [f"inn:{{ledger/room}}:{part}" for part in ("meta", "inbox", "sessions", "members", "state", "outlog")]
        before = [await house.redis.dump(name) for name in names]
        for i in range(10):
            await client.send({"i": i})
        await client.numbers(10)
        await until(lambda: caught_up(house, "ledger/room"), "all is committed")
        for name, dump in zip(names, before, strict=True):
            await (house.redis.restore(name, 0, dump, replace=True) if dump else house.redis.delete(name))
        assert await client.closed(5) == RESYNC
        again = await house.join("ledger/room", name="Ann")
        assert await again.expect(lambda f: "welcome" in f, "its welcome", timeout_s=5) == {"welcome": 0}


async def caught_up(house: House, room: str) -> bool:
    """Return whether a room has no backlog."""
    last, cursor = await house.redis.hmget(f"inn:{{{room}}}:sessions", "#", "@")
    return bool(last == cursor)


async def accepted(house: House, room: str, count: int) -> bool:
    """Return whether the room's events are so many."""
    return int(await house.redis.hget(f"inn:{{{room}}}:sessions", "#")) == count
