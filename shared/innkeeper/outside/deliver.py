"""One event pushed to a room from a process that does nothing else with rooms: a job's."""

from innkeeper.address import Address
from innkeeper.cluster import Cluster
from innkeeper.functions.posts import PostEvent, post
from innkeeper.keys import room_keys
from innkeeper.lease import DEFAULT_TIMES
from innkeeper.outside.patience import patiently, push
from innkeeper.topology import open_link, reach
from innkeeper.waking import wake


async def deliver(url: str, address: Address, *, source: str, kind: str, data: bytes, within_s: float) -> None:
    """Have a room accept one event of a source, once, however often this is called; it is never refused as too much.

    Args:
        url: Where Redis is.
        address: The room.
        source: ``x-…``: names the sender; an event of it was accepted before, or this one is.
        kind: The event's.
        data: The event's.
        within_s: How long to try while Redis does not answer, or takes nothing.

    Raises:
        RedisUnavailable: It may or may not be accepted.
        RoomBusy: Redis took nothing in that time.
        RedisReplied: Redis answered with an error.
    """
    where = reach(url, timeout_s=DEFAULT_TIMES.redis_timeout_ms / 1000)
    command = post(room_keys(address), source=source, mark=0, backlog_count=0, events=[PostEvent(1, kind, data)])
    if isinstance(where, Cluster):
        await where.refresh()
    link = open_link(where, timeout_s=DEFAULT_TIMES.redis_timeout_ms / 1000, name="job")

    async def attempt() -> None:
        if (await push(link, address, command)).wants_owner:
            await wake(link, [address])

    try:
        await patiently(attempt, within_s)
    finally:
        await link.close()
