"""Waking rooms: what workers, programs and jobs do where somebody has to own a room now."""

from collections.abc import Iterable

from innkeeper import functions
from innkeeper.address import Address
from innkeeper.errors import RedisReplied
from innkeeper.topology import Commands


async def wake(link: Commands, addresses: Iterable[Address]) -> None:
    """Put rooms into the index of rooms awake and into their wake queues; a room appears once.

    Raises:
        RedisUnavailable: Not all may have been woken.
        RedisReplied: As above; FunctionMissing where the functions must be loaded first.
    """
    for reply in await link.send(functions.wake(addresses)):
        if isinstance(reply, RedisReplied):
            raise reply
