"""Whether a room lets somebody in, by its class's own rule."""

import logging
from typing import TYPE_CHECKING

from innkeeper.activation.hooks import contained
from innkeeper.room import Room

if TYPE_CHECKING:
    from innkeeper.activation.hooks import Hooks
    from innkeeper.connection import User

log = logging.getLogger("innkeeper.worker")


async def may_enter(hooks: "Hooks", room_class: type[Room], user: "User") -> bool:
    """Return what ``authorize`` says of a user; where it fails, that is no."""
    if getattr(room_class.authorize, "__func__", None) is Room.authorize.__func__:  # type: ignore[attr-defined]
        return True
    address = hooks.context.address
    try:
        return bool(await hooks.run(room_class.authorize, user, address.name))
    except BaseException as raised:
        log.exception("room %s: authorize failed, so nobody is let in", address, exc_info=contained(raised))
        return False
