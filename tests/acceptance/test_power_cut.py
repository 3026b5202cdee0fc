"""A power cut: SIGKILL, and the append-only file cut back to what a disk is sure to have.

With ``always`` that is all that was ever answered: the bytes of each answer are in the file when the answer comes (the
server syncs it in the same step). With ``everysec`` it is the file of two seconds ago at worst.
"""

import asyncio
import os
import time
from pathlib import Path

import pytest

from harness.acts import Listener, RoomActs, text, turn_of
from harness.house import House, until
from harness.talk import Talker, check_one_history, crowd, history_of, regain, settle
from harness.valkey import Valkey
from innkeeper.address import Address
from innkeeper.functions.library import load_library
from innkeeper.redis_client import Link, connector

ROOMS = [f"ledger/room-{n}" for n in range(4)]
WORST_S = 2.0


def aof_of(valkey: Valkey) -> Path:
    """Return the append-only file that grows."""
    return next((valkey.folder / "appendonlydir").glob("*.incr.aof"))


def size_of(file: Path) -> int:
    """Return the bytes that a file has now."""
    return file.stat().st_size


async def test_what_is_answered_is_in_the_file() -> None:
    """With ``always`` the bytes of every accepted event and of every published output are in the file, and synced."""
    valkey = Valkey(persist=True)
    link = Link(connector(valkey.url, timeout_s=5), timeout_s=5, name="test")
    listener = Listener(connector(valkey.url, timeout_s=5))
    try:
        await load_library(link)
        room = RoomActs(link, Address("test", "x"))
        claimed = await room.own()
        await listener.subscriber.subscribe(room.keys.out)
        aof = aof_of(valkey)
        sizes: list[tuple[bytes, int]] = []
        for n in range(50):
            await room.push(text(data=b"event-%d." % n))
            sizes.append((b"event-%d." % n, size_of(aof)))
            assert await link.call("WAITAOF", "1", "0", "1") == [1, 0], "it is written, but not synced"
            turn = turn_of((await room.ids())[-1:], outputs=[(b"text *", b"output-%d." % n)])
            committing = asyncio.create_task(room.commit(claimed, n, turn))
            assert (await listener.batches(n + 1))[-1].last == n + 1
            sizes.append((b"output-%d." % n, size_of(aof)))
            await committing
        data = aof.read_bytes()
        assert all(0 < data.index(mark) + len(mark) <= size for mark, size in sizes)
        assert len({size for _, size in sizes}) == len(sizes), "the file did not grow with each"
    finally:
        await link.close()
        await listener.subscriber.close()
        valkey.stop()


async def cut_power(house: House, aof: Path, keep_bytes: int) -> int:
    """Kill the server, cut its file and start it again; return how many bytes are gone."""
    house.valkey.kill()
    gone = size_of(aof) - keep_bytes
    os.truncate(aof, keep_bytes)
    await asyncio.to_thread(house.valkey.start)
    return gone


async def aftermath(house: House, talkers: list[Talker], since_s: float) -> tuple[int, int, int]:
    """Return how many sockets stayed and were told to resync, and how many outputs that were seen are gone."""
    rejoined = await asyncio.gather(*(regain(house, room, "w", since_s) for room in ROOMS))
    witnesses = {room: client for room, (_, client) in zip(ROOMS, rejoined, strict=True)}
    await settle(talkers, witnesses)
    stored = {}
    for room in ROOMS:
        entries = await house.redis.xrange(f"inn:{{{room}}}:outlog")
        stored[room] = history_of([(i, {k.decode(): v.decode() for k, v in f.items()}) for i, f in entries])
    return check_one_history(talkers, witnesses, stored)


@pytest.mark.topologies
async def test_power_cut_with_always(tmp_path: Path) -> None:
    """Nothing that was accepted is lost, nobody is told to resync."""
    async with House(tmp_path, persist=True, options=("--durability", "fsync")) as house:
        assert "durability fsync: Redis at" in house.edges[0].log
        talkers = await crowd(house, ROOMS)
        await until(lambda: all(talker.last_n > 40 for talker in talkers), "the ledgers grow")
        aof = aof_of(house.valkey)
        cut_at_s = time.monotonic()
        await cut_power(house, aof, size_of(aof))
        stayed, resynced, revoked = await aftermath(house, talkers, cut_at_s)
    assert (stayed, resynced, revoked) == (len(talkers), 0, 0)


async def test_power_cut_with_everysec(tmp_path: Path) -> None:
    """What the last two seconds held is lost, and every client that it concerns is told to resync."""
    async with House(tmp_path, persist=True, server_options=("--appendfsync", "everysec")) as house:
        talkers = await crowd(house, ROOMS)
        aof = aof_of(house.valkey)
        sizes: list[tuple[float, int]] = []
        goal_s = time.monotonic() + WORST_S + 0.5
        while time.monotonic() < goal_s:
            sizes.append((time.monotonic(), size_of(aof)))
            await asyncio.sleep(0.02)
        cut_at_s = time.monotonic()
        gone = await cut_power(house, aof, max(size for at_s, size in sizes if at_s <= cut_at_s - WORST_S))
        stayed, resynced, revoked = await aftermath(house, talkers, cut_at_s)
    print(f"{gone} bytes of {WORST_S} s cut off: {resynced} sockets told to resync, {revoked} outputs gone")
    assert gone > 0
    assert revoked > 0, "the fault did not bite"
    assert (stayed, resynced) == (0, len(talkers))
