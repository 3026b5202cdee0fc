"""One live instance of a room: runs its hooks event by event into a turn. No Redis here."""

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any

import orjson

from innkeeper import codec, wire
from innkeeper.address import Address
from innkeeper.close_codes import REFUSED
from innkeeper.connection import Connection, User
from innkeeper.errors import InnkeeperError, Refused
from innkeeper.functions import Claimed
from innkeeper.room import Event, Room, RoomContext
from innkeeper.state import State
from innkeeper.turn import Turn, dead_event
from innkeeper.wire import InboxEvent

log = logging.getLogger("innkeeper.worker")

_ERROR_BODY = {code: orjson.dumps({"error": code}) for code in ("invalid_json", "handler_failed", "handler_timeout")}
_MESSAGES = (b"text", b"binary")
_TRACE_LINES = 50
_REASON_BYTES = 120


class Activation:
    """A room object with what its hooks have changed since the last commit.

    Args:
        address: The room.
        room_class: The user's class.
        claimed: What the claim answered.
        on_suspend: Called when a hook first waits for something: what earlier events did may go out now.
        on_resume: Called when that hook has ended.
        condemned: Members, by connection id, whose ``on_leave`` is not run again, and why.
    """

    def __init__(
        self,
        address: Address,
        room_class: type[Room],
        claimed: Claimed,
        *,
        on_suspend: Callable[[], None],
        on_resume: Callable[[], None],
        condemned: Mapping[bytes, str] | None = None,
    ) -> None:
        state = State({key.decode(): data for key, data in claimed.state.items()}, room_class.state_bytes)
        self.context = RoomContext(address, room_class.codec, state)
        for name, row in claimed.members.items():
            connection = Connection.from_row(self.context, name.decode(), row)
            self.context.members[connection.id] = connection
        self._order_members()
        self._room_class = room_class
        self._room: Room | None = None
        self._created = b"created" in claimed.meta
        self._on_suspend = on_suspend
        self._on_resume = on_resume
        self._condemned = condemned or {}
        self.leaving = ""  # the member whose on_leave is running
        self.turn = Turn()
        self.void_count = 0
        # Whether the turn holds part of an event that has not ended: then it must not be committed yet.
        self.is_partial = False

    def _order_members(self) -> None:
        members = self.context.members
        ordered = sorted(members.values(), key=lambda conn: conn.join)
        members.clear()
        members.update((conn.id, conn) for conn in ordered)

    async def start(self) -> None:
        """Make the room object and run on_create (first time ever) and on_start.

        Raises:
            Exception: Whatever the hooks raise; then nothing of them counts.
        """
        room = self._room_class()
        room._context = self.context  # noqa: SLF001 - the framework's side of Room
        self._room = room
        try:
            if not self._created:
                await self._run(room.on_create)
            await self._run(room.on_start)
            self._settle()
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            self._undo()
            error = contained(raised)
            raise error from error.__cause__
        finally:
            self.is_partial = False
        self._created = True

    @property
    def runs_hooks_at_start(self) -> bool:
        """Whether :meth:`start` runs code of the user's."""
        cls = self._room_class
        return any(getattr(cls, name) is not getattr(Room, name) for name in ("__init__", "on_create", "on_start"))

    def handle(self, event: InboxEvent) -> Awaitable[None] | None:
        """Run one event; whatever its hooks raise is undone and recorded, so it always counts as consumed.

        Returns what is left to await, None where the event is done: messages to sync hooks cost no coroutine.
        """
        rest = self._message(event) if event.kind in _MESSAGES else self._rare(event)
        if rest is not None:
            return self._consumed(event, rest)
        self.turn.consume(event)
        self.is_partial = False
        return None

    async def _consumed(self, event: InboxEvent, rest: Awaitable[None]) -> None:
        await rest
        self.turn.consume(event)
        self.is_partial = False

    async def _rare(self, event: InboxEvent) -> None:
        if event.kind == b"join":
            await self._join(event)
        elif event.kind == b"leave":
            await self._leave(event, self.context.members.get(event.connection.decode()))
        elif event.kind == b"edge-gone":
            for connection in self._members_of(event.edge.decode()):
                await self._leave(event, connection)
        else:
            self.void_count += 1

    def condemn(self, event: InboxEvent, reason: str) -> None:
        """Put an event aside without running it: it never ended, or it killed its workers."""
        log.error("room %s: event %s put aside: %s", self.context.address, event.id.decode(), reason)
        self.turn.dead.append(dead_event(event, reason))
        connection = self.context.members.get(event.connection.decode())
        if event.kind == b"join":
            self.turn.show([wire.refuse_output(event.connection, REFUSED.code, REFUSED.reason)])
        elif event.kind == b"edge-gone":
            for gone in self._members_of(event.edge.decode()):
                self._remove(gone)
                self.turn.change_member(gone.id, None)
        elif event.kind == b"leave" and connection is not None:
            self._remove(connection)
            self.turn.change_member(connection.id, None)
        elif connection is not None:
            self._tell(connection, "handler_timeout")
        self.turn.consume(event)
        self.is_partial = False

    def seal(self, reason: str) -> None:
        """Make every later call of the running hook raise TurnClosed."""
        self.context.sealed = reason

    def tell_all(self, error: str) -> None:
        """Send an error frame to all members (json rooms only)."""
        if self.context.codec == "json":
            self.turn.show([(wire.TEXT_TO_ALL, orjson.dumps({"error": error}))])

    # --- the kinds of events ------------------------------------------------------------------------------------
    def _message(self, event: InboxEvent) -> Awaitable[None] | None:
        connection = self.context.members.get(event.connection.decode())
        if connection is None:
            self.void_count += 1
            return None
        try:
            message = codec.decode(self.context.codec, binary=event.kind == b"binary", data=event.data)
        except codec.MessageInvalid:
            self._tell(connection, "invalid_json")
            return None
        return self._hook(event, connection, self.room.on_message, connection, message)

    async def _join(self, event: InboxEvent) -> None:
        context = self.context
        name = event.connection.decode()
        if name in context.members:
            self.void_count += 1
            return
        fields = orjson.loads(event.data)
        user = User(*fields["user"])
        connection = Connection(
            context, name, join=event.iseq, edge=event.edge.decode(), user=user, session=event.session.decode()
        )
        context.members[name] = connection
        context.touched.add(connection)
        context.outputs.append(wire.join_output(event.iseq, event.connection))
        try:
            await self._run(self.room.on_connect, connection)
            self._settle()
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            error = contained(raised)
            del context.members[name]
            self._undo()
            self.is_partial = True
            if isinstance(error, Refused):
                reason = str(error).encode()[:_REASON_BYTES].decode(errors="ignore") or REFUSED.reason
                self.turn.show([wire.refuse_output(event.connection, REFUSED.code, reason)])
                return
            self._record(event, error)
            self.turn.show([wire.refuse_output(event.connection, REFUSED.code, REFUSED.reason)])
            await self._tell_room(event, None, error)

    async def _leave(self, event: InboxEvent, connection: Connection | None) -> None:
        if connection is None:
            self.void_count += 1
            return
        self._remove(connection)
        self.leaving = connection.id
        try:
            if (why := self._condemned.get(connection.id.encode())) is not None:
                self.turn.dead.append(dead_event(event, f"on_leave of {connection.id}: {why}"))
            else:
                rest = self._hook(event, connection, self.room.on_leave, connection)
                if rest is not None:
                    await rest
        finally:
            self.leaving = ""
            # Only now: a commit under a waiting hook would store the removal without what the hook did about it.
            self.turn.change_member(connection.id, None)
            self.is_partial = True

    def _members_of(self, edge: str) -> list[Connection]:
        return [connection for connection in self.context.members.values() if connection.edge == edge]

    def _remove(self, connection: Connection) -> None:
        del self.context.members[connection.id]
        self.context.touched.discard(connection)

    # --- running hooks, undoing, telling --------------------------------------------------------------------------
    @property
    def room(self) -> Room:
        """The room object; there is one from a successful start on."""
        assert self._room is not None  # noqa: S101 - start() comes first
        return self._room

    def _hook(
        self, event: InboxEvent, connection: Connection, hook: Callable[..., Any], *arguments: Any
    ) -> Awaitable[None] | None:
        """Run a hook of a member's event; return what is left to await: an async hook, or what follows a failure."""
        try:
            result = hook(*arguments)
            if result is not None:
                return self._finish_hook(event, connection, result)
            self._settle()
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            return self._failed(event, connection, contained(raised))
        return None

    async def _finish_hook(self, event: InboxEvent, connection: Connection, result: Any) -> None:
        try:
            await self._finish(result)
            self._settle()
        except BaseException as raised:  # noqa: BLE001 - as above
            await self._failed(event, connection, contained(raised))

    async def _failed(self, event: InboxEvent, connection: Connection, error: Exception) -> None:
        self._undo()
        self.is_partial = True
        self._record(event, error)
        if connection.id in self.context.members:
            self._tell(connection, "handler_failed")
        await self._tell_room(event, connection, error)

    async def _run(self, hook: Callable[..., Any], *arguments: Any) -> None:
        result = hook(*arguments)
        if result is not None:
            await self._finish(result)

    async def _finish(self, result: Any) -> None:
        if not inspect.isawaitable(result):
            return
        try:
            await _Watched(result, self._on_suspend, self._on_resume)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled but something that the hook waited for: that is a failure like any other.
            raise RuntimeError("the hook waited for something that was cancelled") from error

    def _settle(self) -> None:
        context = self.context
        self.is_partial = True
        if context.touched or context.state.is_touched:
            self._settle_state()
        if context.outputs:
            self.turn.show(context.outputs)
            context.outputs = []

    def _settle_state(self) -> None:
        context = self.context
        # Whatever may fail comes first; only then is anything taken as stored.
        rows = [(conn, conn.changed_row()) for conn in context.touched if conn.id in context.members]
        changed, deleted = context.state.settle()
        for conn, row in rows:
            if row is not None:
                conn.settle(row)
                self.turn.change_member(conn.id, row)
        context.touched.clear()
        if changed or deleted:
            self.turn.change_state(changed, deleted)

    def _undo(self) -> None:
        context = self.context
        context.state.undo()
        for connection in context.touched:
            connection.undo()
        context.touched.clear()
        context.outputs = []

    def _record(self, event: InboxEvent, error: Exception) -> None:
        lines = traceback.format_exception(error)
        log.warning("room %s: event %s failed and was undone", self.context.address, event.id.decode(), exc_info=error)
        what = text_of(error) if isinstance(error, InnkeeperError) else f"{type(error).__name__}: {text_of(error)}"
        self.turn.dead.append(dead_event(event, what, "".join(lines[-_TRACE_LINES:])))

    def _tell(self, connection: Connection, code: str) -> None:
        if self.context.codec == "json":
            header = wire.output_header(binary=False, address=wire.address_only(connection.join))
            self.turn.show([(header, _ERROR_BODY[code])])

    async def _tell_room(self, event: InboxEvent, connection: Connection | None, error: Exception) -> None:
        """Run on_error; what it raises itself is only logged."""
        seen = Event(event.id.decode(), event.kind.decode(), connection, event.data)
        try:
            await self._run(self.room.on_error, error, seen)
            self._settle()
        except BaseException as raised:
            second = contained(raised)
            self._undo()
            log.warning("room %s: on_error failed too", self.context.address, exc_info=second)


def contained(error: BaseException) -> Exception:
    """Return what a hook raised as a failure of this hook alone, ``sys.exit()`` included.

    Raises:
        MemoryError: The worker must end.
        CancelledError: The room was lost or its hook was cut.
        GeneratorExit: The interpreter ends.
    """
    task = asyncio.current_task()
    is_cut = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
    if is_cut or isinstance(error, MemoryError | GeneratorExit):
        raise error
    if isinstance(error, Exception):
        return error
    failure = RuntimeError(f"the hook raised {type(error).__name__}: {text_of(error)}".rstrip(": "))
    failure.__cause__ = error
    return failure


def text_of(error: BaseException) -> str:
    """Return an exception's text, also of one whose own code for that fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's class may do anything
        return "(its text cannot be shown)"


class _Watched:
    """Await something, and tell when it first waits and when it has ended after that."""

    def __init__(self, inner: Awaitable[Any], on_suspend: Callable[[], None], on_resume: Callable[[], None]) -> None:
        self._inner = inner
        self._on_suspend = on_suspend
        self._on_resume = on_resume

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._inner.__await__()
        try:
            waiting = next(steps)
        except StopIteration as stop:
            return stop.value
        self._on_suspend()
        try:
            while True:
                try:
                    sent = yield waiting
                except BaseException as error:  # noqa: BLE001 - passed on into the hook, cancellation too
                    waiting = steps.throw(error)
                else:
                    waiting = steps.send(sent)
        except StopIteration as stop:
            return stop.value
        finally:
            self._on_resume()
