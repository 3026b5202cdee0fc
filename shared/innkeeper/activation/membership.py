"""The events of members: they join, speak and leave."""

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from innkeeper import codec, wire
from innkeeper.activation.hooks import contained, text_of
from innkeeper.activation.permission import may_enter
from innkeeper.activation.sessions import Sessions
from innkeeper.close_codes import DESTROYED, FULL, REFUSED
from innkeeper.connection import Connection, User
from innkeeper.dispatch import MessageRefused
from innkeeper.errors import Refused
from innkeeper.turn import dead_event

if TYPE_CHECKING:
    from innkeeper.activation.hooks import Hooks
    from innkeeper.close_codes import CloseCode
    from innkeeper.room import Room
    from innkeeper.wire import InboxEvent

_REASON_BYTES = 120


class Membership:
    """Who is in a room, and what its events do to that.

    Attributes:
        sessions: The members whose sockets may come and go.
        void_count: Events whose connection was no member when their turn came: no hook saw them.

    Args:
        hooks: Run the room's hooks.
        room_class: The user's class.
        condemned: Members, by connection id, whose ``on_leave`` is not run again, and why.
    """

    def __init__(self, hooks: "Hooks", room_class: "type[Room]", condemned: Mapping[bytes, str]) -> None:
        self._leaving = ""
        self.void_count = 0
        self.sessions = Sessions(hooks, room_class, leave=self._leave, condemned=condemned)
        self._hooks = hooks
        self._context = hooks.context
        self._room_class = room_class
        self._dispatch = room_class._dispatch  # noqa: SLF001 - the framework's side of Room
        self._condemned = condemned

    @property
    def leaving(self) -> str:
        """The member whose on_leave (or on_drop, at its edge's end) runs, by connection id; empty where none does."""
        return self._leaving or self.sessions.dropping

    def load(self, rows: Mapping[bytes, bytes]) -> None:
        """Take the members as stored, in the order they joined."""
        found = [Connection.from_row(self._context, name.decode(), row) for name, row in rows.items()]
        self._context.members.update((conn.id, conn) for conn in sorted(found, key=lambda conn: conn.join))

    def message(self, event: "InboxEvent") -> Awaitable[None] | None:
        """Run the hook for a member's message; return what is left to await."""
        connection = self._context.members.get(event.connection.decode())
        if connection is None:
            self.void_count += 1
            return None
        hooks = self._hooks
        assert hooks.room is not None  # noqa: S101 - no event comes before the start
        try:
            message = codec.decode_message(self._context.codec, binary=event.kind == b"binary", data=event.data)
        except codec.MessageInvalid:
            hooks.tell(connection, "invalid_json", about=event)
            return None
        if self._dispatch is None:
            return hooks.run_for(event, connection, hooks.room.on_message, connection, message)
        try:
            hook, arguments = self._dispatch.choose(hooks.room, connection, message)
        except MessageRefused as refused:
            hooks.tell(connection, refused.code, about=event, **refused.details)
            return None
        except BaseException as raised:  # noqa: BLE001 - a validator of the user's may raise anything
            return hooks.failed(event, connection, contained(raised))
        return hooks.run_for(event, connection, hook, *arguments)

    async def join(self, event: "InboxEvent") -> None:
        """Let a connection in, unless the room is full or ``on_connect`` raises: then it never was a member."""
        context, hooks = self._context, self._hooks
        name = event.connection.decode()
        if name in context.members:
            if event.session:  # somebody deleted its session's row: the member is still in
                await self.sessions.resume(event)
            else:
                self.void_count += 1
            return
        most = self._room_class.max_connections
        if most is not None and len(context.members) >= most:
            self._refuse(event, FULL)
            return
        user = User(*orjson.loads(event.data)["user"])
        if not await may_enter(hooks, self._room_class, user):
            self._refuse(event, REFUSED)
            return
        connection = Connection(
            context, name, join=event.iseq, edge=event.edge.decode(), user=user,
            session=event.session.decode(), generation=event.generation,
        )  # fmt: skip
        context.members[name] = connection
        context.touched.add(connection)
        context.outputs.append(wire.join_output(event.iseq, event.connection, event.generation))
        assert hooks.room is not None  # noqa: S101 - no event comes before the start
        try:
            await hooks.run(hooks.room.on_connect, connection)
            hooks.settle()
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            error = contained(raised)
            del context.members[name]
            hooks.undo()
            hooks.is_partial = True
            if isinstance(error, Refused):
                self._refuse(event, REFUSED, text_of(error).encode()[:_REASON_BYTES].decode(errors="ignore"))
                return
            hooks.record(event, error)
            self._refuse(event, REFUSED)
            await hooks.tell_room(event, None, error)

    def _refuse(self, event: "InboxEvent", code: "CloseCode", reason: str = "") -> None:
        turn = self._hooks.turn
        turn.show([wire.refuse_output(event.connection, code.code, reason or code.reason, event.generation)])
        if event.session:
            turn.sessions_closed.append(event.session.decode())

    async def leave(self, event: "InboxEvent") -> None:
        """Run a leave."""
        connection = self._context.members.get(event.connection.decode())
        if connection is None:
            self.void_count += 1
        else:
            await self._leave(event, connection)

    async def edge_gone(self, event: "InboxEvent") -> None:
        """Let all members of a dead edge leave; those with a session may come back."""
        for connection in self._members_of(event.edge.decode()):
            if connection.session:
                await self.sessions.dropped_with_edge(event, connection)
            else:
                await self._leave(event, connection)

    async def end(self, event: "InboxEvent") -> None:
        """Let everybody leave a room that is destroyed, and close their sockets."""
        turn = self._hooks.turn
        for connection in list(self._context.members.values()):
            turn.show([wire.close_output(connection.join, DESTROYED.code, DESTROYED.reason)])
            if connection.session:
                turn.sessions_closed.append(connection.session)
            await self._leave(event, connection)

    async def _leave(self, event: "InboxEvent", connection: Connection) -> None:
        hooks = self._hooks
        self._remove(connection)
        if not connection.is_connected:
            self._context.timers.clear_grace(connection.session)
        self._leaving = connection.id
        try:
            if (why := self._condemned.get(connection.id.encode())) is not None:
                hooks.turn.dead.append(dead_event(event, f"on_leave of {connection.id}: {why}"))
            else:
                assert hooks.room is not None  # noqa: S101 - no event comes before the start
                rest = hooks.run_for(event, connection, hooks.room.on_leave, connection)
                if rest is not None:
                    await rest
        finally:
            self._leaving = ""
            # Only now: a commit under a waiting hook would store the removal without what the hook did about it.
            hooks.turn.change_member(connection.id, None)
            hooks.is_partial = True

    def condemn(self, event: "InboxEvent") -> None:
        """Do what has to be done of an event that is put aside without its hooks."""
        connection: Any = self._context.members.get(event.connection.decode())
        if event.kind == b"join":
            self._refuse(event, REFUSED)
        elif self.sessions.condemn(event):
            return
        elif event.kind == b"edge-gone":
            for gone in self._members_of(event.edge.decode()):
                if gone.session:
                    self.sessions.condemn_edge(gone)
                    continue
                self._remove(gone)
                self._hooks.turn.change_member(gone.id, None)
        elif event.kind == b"leave" and connection is not None:
            self._remove(connection)
            self._hooks.turn.change_member(connection.id, None)
        elif connection is not None:
            self._hooks.tell(connection, "handler_timeout", about=event)

    def _members_of(self, edge: str) -> list[Connection]:
        return [connection for connection in self._context.members.values() if connection.edge == edge]

    def _remove(self, connection: Connection) -> None:
        del self._context.members[connection.id]
        self._context.touched.discard(connection)
