"""What a job's process pushes to its room: once, and in the end also where Redis takes nothing at first."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from harness.acts import RoomActs
from harness.valkey import Valkey
from innkeeper import RoomBusy, keys
from innkeeper.address import Address
from innkeeper.outside.deliver import deliver
from innkeeper.redis_client import Link

ROOM = Address("works", "x")


@pytest.fixture
async def room(own_link: Link) -> AsyncIterator[RoomActs]:
    """A room on a server of this test's own."""
    yield RoomActs(own_link, ROOM)
    await own_link.call("CONFIG", "SET", "maxmemory", "0")


async def push(own_valkey: Valkey, *, within_s: float) -> None:
    """Deliver one job's result."""
    await deliver(own_valkey.url, ROOM, source="x-job-1", kind="job", data=b"{}", within_s=within_s)


async def test_it_counts_once_and_wakes_the_room(room: RoomActs, own_valkey: Valkey) -> None:
    """However many push it, the inbox has it once, and somebody is asked to own the room."""
    for _ in range(3):
        await push(own_valkey, within_s=5)
    assert len(await room.link.call("XRANGE", room.keys.inbox, "-", "+")) == 1
    assert await room.link.call("ZRANGE", keys.wake_queue("works"), 0, -1) == [b"works/x"]


async def test_a_full_redis_is_tried_again(room: RoomActs, own_valkey: Valkey) -> None:
    """At maxmemory nothing is accepted; when there is room again, the result comes after all."""
    await room.link.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(RoomBusy, match="Redis takes nothing: OOM"):
        await push(own_valkey, within_s=0.2)
    pushing = asyncio.create_task(push(own_valkey, within_s=10))
    await asyncio.sleep(0.2)
    assert not pushing.done()
    await room.link.call("CONFIG", "SET", "maxmemory", "0")
    await pushing
    assert len(await room.link.call("XRANGE", room.keys.inbox, "-", "+")) == 1
