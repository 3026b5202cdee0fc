"""The events of sessions (``innkeeper.v1``): they are dropped, come back, or ask for a snapshot."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from innkeeper import wire
from innkeeper.activation.hooks import contained
from innkeeper.activation.permission import may_enter
from innkeeper.close_codes import REFUSED, SESSION_OVER
from innkeeper.turn import dead_event

if TYPE_CHECKING:
    from innkeeper.activation.hooks import Hooks
    from innkeeper.connection import Connection
    from innkeeper.room import Room
    from innkeeper.wire import InboxEvent

_Leave = Callable[["InboxEvent", "Connection"], Awaitable[None]]


class Sessions:
    """What happens to members whose sockets come and go while they stay.

    What an event does to the member itself (where its socket is, whether it has one) counts whatever its hook raises;
    what the hook did is then undone.

    Attributes:
        dropping: The member whose on_drop is running because of its edge's end, by connection id; empty where none is.
        void_count: Events that reached no hook: of connections that are no members, or of past generations.

    Args:
        hooks: Run the room's hooks.
        room_class: The user's class.
        leave: Lets a member leave, its on_leave included.
        condemned: Members, by connection id, whose hook is not run again at their edge's end, and why.
    """

    def __init__(
        self, hooks: "Hooks", room_class: "type[Room]", *, leave: _Leave, condemned: Mapping[bytes, str]
    ) -> None:
        self.dropping = ""
        self.void_count = 0
        self._hooks = hooks
        self._context = hooks.context
        self._room_class = room_class
        self._grace_ms = round(room_class.grace_s * 1000)
        self._leave = leave
        self._condemned = condemned

    async def drop(self, event: "InboxEvent") -> None:
        """Take it that a member's socket is gone; it may come back until its grace ends."""
        connection = self._dropped_by(event)
        if connection is not None:
            await self.dropped(event, connection)

    async def dropped(self, event: "InboxEvent", connection: "Connection") -> None:
        """Mark a member as dropped and run on_drop; without grace it leaves at once."""
        if not connection.is_connected:
            return
        if not self._grace_ms:
            self._hooks.turn.sessions_closed.append(connection.session)
            await self._leave(event, connection)
        else:
            await self._run(event, connection, lambda: self._down(connection), self._room.on_drop)

    async def dropped_with_edge(self, event: "InboxEvent", connection: "Connection") -> None:
        """Mark a member of a dead edge as dropped; a hook that hung is not run again."""
        self.dropping = connection.id
        try:
            why = self._condemned.get(connection.id.encode())
            if why is None or not self._grace_ms:
                await self.dropped(event, connection)
            elif connection.is_connected:
                self._hooks.turn.dead.append(dead_event(event, f"on_drop of {connection.id}: {why}"))
                self._alone(lambda: self._down(connection))
        finally:
            self.dropping = ""

    async def resume(self, event: "InboxEvent") -> None:
        """Let a member go on at its new socket."""
        connection = self._member_for(event)
        if connection is None or not await self._may_stay(event, connection):
            return
        self._moved(event, connection)
        await self._run(event, connection, lambda: self._back(connection), self._room.on_resume)

    async def resync(self, event: "InboxEvent") -> None:
        """Mark from where on a member receives anew, and run on_resync for its snapshot.

        Where the room was rolled back to before the member's resume, this is its resume as well.
        """
        connection = self._member_for(event)
        if connection is None or not await self._may_stay(event, connection):
            return
        was_connected = connection.is_connected
        self._moved(event, connection)
        if not was_connected:
            await self._run(event, connection, lambda: self._up(connection), self._room.on_resume)
        await self._run(event, connection, lambda: self._anew(connection), self._room.on_resync)

    async def _may_stay(self, event: "InboxEvent", connection: "Connection") -> bool:
        """Return whether a member that comes back is still let in; else it is closed, and leaves."""
        if await may_enter(self._hooks, self._room_class, connection.user):
            return True
        turn = self._hooks.turn
        turn.show([wire.refuse_output(event.connection, REFUSED.code, REFUSED.reason, event.generation)])
        turn.sessions_closed.append(connection.session)
        await self._leave(event, connection)
        return False

    def condemn(self, event: "InboxEvent") -> bool:
        """Do what an event of a session does to its member, without hooks; return whether it is such an event."""
        if event.kind == b"drop":
            dropped = self._dropped_by(event)
            if dropped is not None:
                self._alone(lambda: self._down(dropped))
        elif event.kind in (b"resume", b"resync"):
            member = self._member_for(event)
            if member is not None:
                self._moved(event, member)
                self._alone(lambda: self._back(member) if event.kind == b"resume" else self._anew(member))
        else:
            return False
        return True

    def condemn_edge(self, connection: "Connection") -> None:
        """Mark a member of a dead edge as dropped, without hooks."""
        if connection.is_connected:
            self._alone(lambda: self._down(connection))

    # --- what happens to the member itself ------------------------------------------------------------------------
    @property
    def _room(self) -> "Room":
        assert self._hooks.room is not None  # noqa: S101 - no event comes before the start
        return self._hooks.room

    def _dropped_by(self, event: "InboxEvent") -> "Connection | None":
        connection = self._context.members.get(event.connection.decode())
        if connection is None or not connection.is_connected or event.generation < connection.generation:
            self.void_count += 1
            return None
        connection.generation = event.generation
        return connection

    def _member_for(self, event: "InboxEvent") -> "Connection | None":
        """Return the member of an event; one that is none (any more) is told that its session is over."""
        connection = self._context.members.get(event.connection.decode())
        if connection is None:
            turn = self._hooks.turn
            turn.show([wire.refuse_output(event.connection, SESSION_OVER.code, SESSION_OVER.reason, event.generation)])
            turn.sessions_closed.append(event.session.decode())
            self._hooks.is_partial = True
        elif event.generation >= connection.generation:
            return connection
        self.void_count += 1
        return None

    def _moved(self, event: "InboxEvent", connection: "Connection") -> None:
        connection.edge = event.edge.decode()
        connection.generation = event.generation
        connection.is_connected = True

    def _down(self, connection: "Connection") -> None:
        context = self._context
        connection.is_connected = False
        context.touched.add(connection)
        context.timers.set_grace(
            session=connection.session,
            connection=connection.id,
            generation=connection.generation,
            edge=connection.edge,
            due_ms=wire.parse_id(context.moment)[1] // 1000 + self._grace_ms,
        )

    def _up(self, connection: "Connection") -> None:
        self._context.touched.add(connection)
        self._context.timers.clear_grace(connection.session)

    def _back(self, connection: "Connection") -> None:
        self._up(connection)
        self._show(connection, wire.resume_output(connection.join, connection.id.encode(), connection.generation))

    def _anew(self, connection: "Connection") -> None:
        self._up(connection)
        self._show(connection, wire.resync_output(connection.join, connection.id.encode(), connection.generation))

    def _show(self, connection: "Connection", mark: tuple[bytes, bytes]) -> None:
        self._context.outputs.append(mark)
        parting = connection.parting  # the room had closed or moved it, but no socket was there to hear that
        if isinstance(parting, str):
            self._context.outputs.append(wire.move_output(connection.join, parting))
        elif parting is not None:
            self._context.outputs.append(wire.close_output(connection.join, *parting))

    async def _run(
        self, event: "InboxEvent", connection: "Connection", change: Callable[[], None], hook: Callable[..., Any]
    ) -> None:
        """Change a member and run the hook about that; where the hook fails the change alone stays."""
        hooks = self._hooks
        change()
        try:
            await hooks.run(hook, connection)
            hooks.settle()
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            error = contained(raised)
            hooks.undo()
            self._alone(change)
            await hooks.failed(event, connection, error)

    def _alone(self, change: Callable[[], None]) -> None:
        change()
        self._hooks.settle()
