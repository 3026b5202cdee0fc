"""Whether a room lets somebody in, by its class's own rule."""

import asyncio
import logging
from typing import TYPE_CHECKING

from innkeeper.activation.hooks import contained
from innkeeper.room import Room

if TYPE_CHECKING:
    from innkeeper.activation.hooks import Hooks
    from innkeeper.connection import User

log = logging.getLogger("innkeeper.worker")

_ANSWER_S = 5.0


async def may_enter(hooks: "Hooks", room_class: type[Room], user: "User") -> bool:
    """Return what ``authorize`` says of a user; where it fails, or takes more than 5 s, that is no.

    The handler limit would not do: a resume that is cut goes on without its hooks, so also without this one.
    """
    if getattr(room_class.authorize, "__func__", None) is Room.authorize.__func__:  # type: ignore[attr-defined]
        return True
    address = hooks.context.address
    try:
        async with asyncio.timeout(min(_ANSWER_S, room_class.handler_s / 2)):
            return bool(await hooks.run(room_class.authorize, user, address.name))
    except BaseException as raised:
        log.exception("room %s: authorize failed, so nobody is let in", address, exc_info=contained(raised))
        return False
