"""Sends a command of an owned room until it is answered."""

import asyncio
import logging
from typing import TYPE_CHECKING

from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.errors import FunctionMissing, RedisReplied, RedisUnavailable

if TYPE_CHECKING:
    from innkeeper.topology import Commands
    from innkeeper_workers.fleet import Fleet

log = logging.getLogger("innkeeper.worker")

_FIRST_WAIT_S = 0.02
_LONGEST_WAIT_S = 0.5


async def ask(fleet: "Fleet", address: Address, command: Command, link: "Commands | None" = None) -> Reply:
    """Send a command, again and unchanged while there is no answer.

    Raises:
        RedisReplied: An error reply that says more than "not now".
    """
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            reply = (await (link or fleet.link).send((command,)))[0]
        except RedisUnavailable:
            log.warning("room %s: Redis does not answer, asking again", address)
        else:
            if isinstance(reply, FunctionMissing):
                await fleet.load_functions()
            elif isinstance(reply, RedisReplied):
                if str(reply).split(" ", 1)[0] not in ("BUSY", "MISCONF", "NOREPLICAS"):
                    raise reply
                log.warning("room %s: %s, asking again", address, reply)
            else:
                return reply
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
