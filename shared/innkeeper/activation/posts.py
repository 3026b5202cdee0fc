"""Posts of other rooms and programs, and what else programs ask of a room."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

import orjson

from innkeeper import wire
from innkeeper.posting import decode_post
from innkeeper.request import Response
from innkeeper.room import Room
from innkeeper.turn import dead_event

if TYPE_CHECKING:
    from innkeeper.activation.hooks import Hooks
    from innkeeper.wire import InboxEvent


class Posts:
    """Runs ``on_post``, and ends the room for whom asks for that from outside.

    Args:
        hooks: Run the room's hooks.
        room_class: The user's class.
    """

    def __init__(self, hooks: "Hooks", room_class: type[Room]) -> None:
        self._hooks = hooks
        self._room_class = room_class

    def post(self, event: "InboxEvent") -> Awaitable[None] | None:
        """Run the hook for a post; one that no hook can take is put aside."""
        hooks = self._hooks
        assert hooks.room is not None  # noqa: S101 - no event comes before the start
        if self._room_class.on_post is Room.on_post:
            self._put_aside(event, f"{self._room_class.__name__} has no on_post")
            return None
        try:
            sender, value = decode_post(event.data)
        except ValueError as error:
            self._put_aside(event, str(error))
            return None
        return hooks.run_for(event, None, hooks.room.on_post, sender, value)

    async def destroy(self, event: "InboxEvent") -> None:
        """End the room, as if one of its hooks had asked for it, and tell the program."""
        self._hooks.context.is_destroyed = True
        self._hooks.turn.show([wire.answer_output(event.connection, Response(None, 204).encode())])

    def kick(self, event: "InboxEvent") -> None:
        """Close a member's socket, as if a hook had; its leave follows. Tell the program whether there was one."""
        hooks, status = self._hooks, 404
        asked = orjson.loads(event.data)
        member = hooks.context.members.get(asked["connection"])
        if member is not None:
            member.close(asked["code"], asked["reason"])
            status = 204
        hooks.context.outputs.append(wire.answer_output(event.connection, Response(None, status).encode()))
        hooks.settle()

    def _put_aside(self, event: "InboxEvent", why: str) -> None:
        self._hooks.turn.dead.append(dead_event(event, why))
