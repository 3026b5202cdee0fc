"""How processes beside the rooms push to them: again and again while Redis or the room cannot take it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from innkeeper.address import Address
from innkeeper.channel import Command
from innkeeper.errors import FunctionMissing, InnkeeperError, RedisReplied, RedisUnavailable, RoomBusy
from innkeeper.functions.posts import Posted, note_awake, read_posted
from innkeeper.topology import Commands

Value = TypeVar("Value")

_AGAIN_FIRST_S = 0.02
_AGAIN_MOST_S = 0.5


async def patiently(attempt: Callable[[], Awaitable[Value]], timeout_s: float) -> Value:
    """Return what an attempt returns, made again while Redis or the room cannot take it.

    Raises:
        RedisUnavailable: Redis did not answer in that time, or no worker has loaded the functions.
        RoomBusy: Redis or the room took nothing in that time.
        RedisReplied: Redis answered with an error that says more than "not now".
    """
    loop = asyncio.get_running_loop()
    until_s, wait_s = loop.time() + timeout_s, _AGAIN_FIRST_S
    while True:
        try:
            return await attempt()
        except FunctionMissing:
            failure: InnkeeperError = RedisUnavailable("no worker has loaded the functions yet: start one")
        except (RoomBusy, RedisUnavailable) as error:
            failure = error
        except RedisReplied as error:
            if str(error).split(" ", 1)[0] not in ("OOM", "BUSY", "MISCONF", "NOREPLICAS"):
                raise
            failure = RoomBusy(f"Redis takes nothing: {error}")
        if loop.time() + wait_s > until_s:
            raise failure
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, _AGAIN_MOST_S)


async def push(link: Commands, address: Address, command: Command) -> Posted:
    """Send a room a post once, and return its answer; where this process dies, a sweep finds what was accepted."""
    _, reply = await link.send((note_awake(address), command))
    return read_posted(reply)
