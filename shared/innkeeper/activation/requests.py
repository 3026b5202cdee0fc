"""Requests: HTTP to the room, or calls of other programs; each gets an answer, whatever becomes of it."""

from typing import TYPE_CHECKING

from innkeeper import wire
from innkeeper.activation.hooks import contained, text_of
from innkeeper.activation.permission import may_enter
from innkeeper.errors import RequestInvalid
from innkeeper.request import Request, Response, failure, response_of
from innkeeper.room import Room

if TYPE_CHECKING:
    from innkeeper.activation.hooks import Hooks
    from innkeeper.wire import InboxEvent

_MESSAGE_CHARACTERS = 1000


class Requests:
    """Runs ``on_request``; the answer is an output in the event's commit.

    Args:
        hooks: Run the room's hooks.
        room_class: The user's class.
    """

    def __init__(self, hooks: "Hooks", room_class: type[Room]) -> None:
        self._hooks = hooks
        self._room_class = room_class
        self._has_hook = room_class.on_request is not Room.on_request

    async def request(self, event: "InboxEvent") -> None:
        """Run one request and answer it."""
        hooks, room = self._hooks, self._hooks.room
        assert room is not None  # noqa: S101 - no event comes before the start
        if not self._has_hook:
            self._answer(event, failure(404, "no_requests"))
            return
        try:
            request = Request.decode(event.data)
            if not event.edge.startswith(wire.PROGRAM) and not await may_enter(hooks, self._room_class, request.user):
                self._answer(event, failure(403, "forbidden"))
                return
            response = response_of(await hooks.run(room.on_request, request))
            hooks.context.outputs.append(wire.answer_output(event.connection, response.encode()))
            hooks.settle()
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            error = contained(raised)
            hooks.undo()
            hooks.is_partial = True
            if isinstance(error, RequestInvalid):
                why = text_of(error)[:_MESSAGE_CHARACTERS]
                self._answer(event, Response({"error": "invalid_body", "message": why}, 400))
                return
            hooks.record(event, error)
            self._answer(event, failure(500, "handler_failed"))
            await hooks.tell_room(event, None, error)

    def condemn(self, event: "InboxEvent") -> None:
        """Answer a request that is put aside without its hook."""
        self._answer(event, failure(500, "handler_timeout"))

    def _answer(self, event: "InboxEvent", response: Response) -> None:
        self._hooks.turn.show([wire.answer_output(event.connection, response.encode())])
