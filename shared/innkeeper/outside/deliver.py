"""One event pushed to a room from a process that does nothing else with rooms: a job's."""

import asyncio

from innkeeper import functions
from innkeeper.address import Address
from innkeeper.channel import Command
from innkeeper.cluster import Cluster
from innkeeper.errors import FunctionMissing, RedisReplied, RedisUnavailable
from innkeeper.functions.posts import PostEvent, note_awake, post, read_posted
from innkeeper.keys import room_keys
from innkeeper.lease import DEFAULT_TIMES
from innkeeper.topology import Commands, open_link, reach

_AGAIN_FIRST_S = 0.05
_AGAIN_MOST_S = 1.0


async def deliver(url: str, address: Address, *, source: str, kind: str, data: bytes, within_s: float) -> None:
    """Have a room accept one event of a source, once, however often this is called; it is never refused as too much.

    Args:
        url: Where Redis is.
        address: The room.
        source: ``x-…``: names the sender; an event of it was accepted before, or this one is.
        kind: The event's.
        data: The event's.
        within_s: How long to try while Redis does not answer.

    Raises:
        RedisUnavailable: It may or may not be accepted.
        RedisReplied: Redis answered with an error.
    """
    where = reach(url, timeout_s=DEFAULT_TIMES.redis_timeout_ms / 1000)
    command = post(room_keys(address), source=source, mark=0, backlog_count=0, events=[PostEvent(1, kind, data)])
    until_s, wait_s = asyncio.get_running_loop().time() + within_s, _AGAIN_FIRST_S
    if isinstance(where, Cluster):
        await where.refresh()
    link = open_link(where, timeout_s=DEFAULT_TIMES.redis_timeout_ms / 1000, name="job")
    try:
        while True:
            try:
                await _push(link, address, command)
            except (FunctionMissing, RedisUnavailable):
                if asyncio.get_running_loop().time() + wait_s > until_s:
                    raise
            else:
                return
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _AGAIN_MOST_S)
    finally:
        await link.close()


async def _push(link: Commands, address: Address, command: Command) -> None:
    # The note first: where this process dies, a sweep still finds what was accepted.
    _, reply = await link.send((note_awake(address), command))
    if read_posted(reply).wants_owner:
        for answer in await link.send(functions.wake([address])):
            if isinstance(answer, RedisReplied):
                raise answer
