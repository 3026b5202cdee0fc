"""A real cluster of three primaries: the main path, a move of slots and the death of a node."""

import asyncio
import itertools
import time
from pathlib import Path

import pytest
from redis.crc import key_slot

from harness.cluster import Cluster
from harness.house import Client, House, until
from harness.talk import Talker, Verdict, check_one_history, crowd, regain, settle
from harness.valkey import Valkey

ROOMS = [f"ledger/room-{n}" for n in range(30)]
PAUSE_LIMIT_S = 2.0


async def spread(cluster: Cluster) -> dict[Valkey, list[str]]:
    """Return the rooms of each primary; every one must have some."""
    found: dict[Valkey, list[str]] = {}
    for room in ROOMS:
        found.setdefault(await cluster.node_of(room), []).append(room)
    assert len(found) == 3
    return found


async def check(house: House, cluster: Cluster, talkers: list[Talker]) -> Verdict:
    """Check that every room has one history, and say what became of the sockets."""
    rejoined = await asyncio.gather(*(regain(house, room, "w", time.monotonic()) for room in ROOMS))
    witnesses = {room: client for room, (_, client) in zip(ROOMS, rejoined, strict=True)}
    await settle(talkers, witnesses)
    stored = {room: await cluster.history(room) for room in ROOMS}
    return check_one_history(talkers, witnesses, stored)


async def grow(talkers: list[Talker], by: int = 5) -> None:
    """Wait until every talker has seen so many more numbers."""
    goals = [(talker, talker.last_n + by) for talker in talkers]
    await until(lambda: all(talker.last_n >= goal for talker, goal in goals), "the ledgers grow", timeout_s=20)


def longest_pause_s(clients: list[Client], since_s: float) -> float:
    """Return the longest time in which one of the clients got nothing, from a moment on."""
    longest = 0.0
    for client in clients:
        times = [since_s, *(at for at in client.got_at_s if at > since_s)]
        longest = max(longest, *(later - earlier for earlier, later in itertools.pairwise(times)))
    return longest


async def test_rooms_follow_their_slots(tmp_path: Path) -> None:
    """Thirty rooms over three primaries: order and exactly-once, also while slots move, in one step or key by key."""
    async with Cluster() as cluster, House(tmp_path, url=cluster.url) as house:
        talkers = await crowd(house, ROOMS, each=1, pause_s=0.05)
        homes = await spread(cluster)
        await grow(talkers)
        source, target = list(homes)[:2]
        moved = homes[source][:2]
        for number, room in enumerate(moved):
            begun_s = time.monotonic()
            if number % 2:
                assert await cluster.migrate_key_by_key(key_slot(room.encode()), source, target) > 3
            else:
                await cluster.migrate(key_slot(room.encode()), source, target)
            assert await cluster.node_of(room, asked=1) is target, "the fault did not bite"
            await grow(talkers)
            here = [talker.client for talker in talkers if talker.room == room]
            pause_s = longest_pause_s(here, begun_s)
            print(f"{room} moved {'key by key' if number % 2 else 'in one step'}: pause {pause_s * 1000:.0f} ms")
            assert pause_s <= PAUSE_LIMIT_S
        assert await check(house, cluster, talkers) == (len(talkers), 0, 0)


@pytest.mark.topologies
@pytest.mark.timeout(300)
@pytest.mark.parametrize("has_replicas", [False, True], ids=["restart", "failover"])
async def test_a_node_dies(tmp_path: Path, has_replicas: bool) -> None:
    """The death of a primary pauses its own rooms only; they go on after its restart, or at its replica."""
    async with Cluster(replicas=has_replicas) as cluster, House(tmp_path, url=cluster.url) as house:
        talkers = await crowd(house, ROOMS, each=1, pause_s=0.05)
        homes = await spread(cluster)
        await grow(talkers)
        victim = cluster.nodes[2]
        hit = [talker for talker in talkers if talker.room in homes[victim]]
        spared = [talker for talker in talkers if talker not in hit]
        killed_at_s = time.monotonic()
        victim.kill()
        if has_replicas:
            await grow(hit, 3)
        else:
            before = [talker.last_n for talker in hit]
            await grow(spared, 60)
            assert all(talker.last_n <= n + 1 for talker, n in zip(hit, before, strict=True)), "the fault did not bite"
            await asyncio.to_thread(victim.start)
            await grow(hit, 3)
        away_s, spared_s = (longest_pause_s([t.client for t in group], killed_at_s) for group in (hit, spared))
        print(
            f"node killed: its {len(hit)} rooms away {away_s:.2f} s, the other {len(spared)} at most {spared_s:.2f} s"
        )
        assert spared_s < 1.5
        verdict = await check(house, cluster, talkers)
        print(verdict)
        assert verdict.stayed >= len(spared)
        if has_replicas:
            assert away_s < 6
        else:
            assert verdict == (len(talkers), 0, 0)
