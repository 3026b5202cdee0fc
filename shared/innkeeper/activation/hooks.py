"""Runs a room's hooks: what one does is settled into the turn or, where it raises, undone and recorded."""

import asyncio
import contextlib
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

import orjson

from innkeeper import wire
from innkeeper.errors import InnkeeperError
from innkeeper.meters import KindMeters
from innkeeper.room import Event
from innkeeper.turn import Turn, dead_event

if TYPE_CHECKING:
    from innkeeper.connection import Connection
    from innkeeper.context import RoomContext
    from innkeeper.room import Room
    from innkeeper.wire import InboxEvent

log = logging.getLogger("innkeeper.worker")

_TRACE_LINES = 50


class Hooks:
    """The hooks of one room object, and the turn that what they do goes into.

    Attributes:
        turn: What has changed since the last commit.
        is_partial: Whether the turn holds part of an event that has not ended: then it must not be committed yet.
        room: The room object; there is one from a successful start on.
        meters: What is counted of rooms of this kind.

    Args:
        context: What the room's methods work on.
        on_suspend: Called when a hook first waits for something: what earlier events did may go out now.
        on_resume: Called when that hook has ended.
        meters: As above.
    """

    def __init__(
        self,
        context: "RoomContext",
        *,
        on_suspend: Callable[[], None],
        on_resume: Callable[[], None],
        meters: KindMeters | None = None,
    ) -> None:
        self.context = context
        self.meters = meters or KindMeters()
        self.turn = Turn()
        self.is_partial = False
        self.room: Room | None = None
        self._on_suspend = on_suspend
        self._on_resume = on_resume

    # --- running --------------------------------------------------------------------------------------------------
    def run_for(
        self, event: "InboxEvent", connection: "Connection | None", hook: Callable[..., Any], *arguments: Any
    ) -> Awaitable[None] | None:
        """Run a hook for an event; return what is left to await: an async hook, or what follows a failure."""
        try:
            result = hook(*arguments)
            if result is not None:
                return self._finish_for(event, connection, result)
            self.settle()
        except GeneratorExit as raised:
            return self.failed(event, connection, failure_of(raised))
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            return self.failed(event, connection, contained(raised))
        return None

    async def _finish_for(self, event: "InboxEvent", connection: "Connection | None", result: Any) -> None:
        try:
            await self._finish(result)
            self.settle()
        except BaseException as raised:  # noqa: BLE001 - as above
            await self.failed(event, connection, contained(raised))

    async def run(self, hook: Callable[..., Any], *arguments: Any) -> Any:
        """Run a hook to its end and return what it returned; nothing is settled."""
        try:
            result = hook(*arguments)
        except GeneratorExit as raised:
            raise failure_of(raised) from raised
        return result if result is None else await self._finish(result)

    async def _finish(self, result: Any) -> Any:
        if not inspect.isawaitable(result):
            if inspect.isgenerator(result) or inspect.isasyncgen(result):
                raise TypeError("the hook returned a generator, of which nothing has run: return what it makes")
            return result
        try:
            return await _Watched(result, self._on_suspend, self._on_resume)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this task was cancelled but something that the hook waited for: that is a failure like any other.
            raise RuntimeError("the hook waited for something that was cancelled") from error

    # --- what it did ----------------------------------------------------------------------------------------------
    def settle(self) -> None:
        """Take what the hook did into the turn.

        Raises:
            StateInvalid: Something cannot be stored; nothing was taken, call :meth:`undo`.
        """
        context = self.context
        self.is_partial = True
        if context.touched:
            self._settle_members()
        elif context.state.is_touched:
            self.turn.change_state(*context.state.settle())
        if context.outputs:
            self.turn.show(context.take_outputs())
        if context.outbox:
            self.turn.owe(context.take_outbox())
        if context.timers.is_changed:
            context.timers.settle(self.turn)
        context.was_destroyed = context.is_destroyed

    def _settle_members(self) -> None:
        context = self.context
        # Whatever may fail comes first; only then is anything taken as stored.
        rows = [(conn, conn.changed_row()) for conn in context.touched if conn.id in context.members]
        changed, deleted = context.state.settle()
        for conn, row in rows:
            if row is not None:
                conn.settle(row)
                self.turn.change_member(conn.id, row)
        context.touched.clear()
        self.turn.change_state(changed, deleted)

    def undo(self) -> None:
        """Forget what the hook did."""
        context = self.context
        context.state.undo()
        for connection in context.touched:
            connection.undo()
        context.touched.clear()
        context.forget()
        context.timers.undo()
        context.is_destroyed = context.was_destroyed

    # --- failures -------------------------------------------------------------------------------------------------
    async def failed(self, event: "InboxEvent", connection: "Connection | None", error: Exception) -> None:
        """Undo an event whose hook raised, put it aside, and tell its sender and the room."""
        self.undo()
        self.is_partial = True
        self.record(event, error)
        if connection is not None and connection.id in self.context.members:
            self.tell(connection, "handler_failed", about=event)
        await self.tell_room(event, connection, error)

    def record(self, event: "InboxEvent", error: Exception) -> None:
        """Put an event aside because of an error."""
        self.meters.errors += 1
        lines = traceback.format_exception(error)
        log.warning("room %s: event %s failed and was undone", self.context.address, event.id.decode(), exc_info=error)
        self.turn.dead.append(dead_event(event, summary_of(error), "".join(lines[-_TRACE_LINES:])))

    def tell(self, connection: "Connection", code: str, *, about: "InboxEvent", **details: Any) -> None:
        """Send an error frame to one member: to sessions with the message's number, to others in json rooms only."""
        if connection.session:
            number = {"n": about.number} if about.number else {}
            header = wire.error_header(wire.address_only(connection.join))
            self.turn.show([(header, orjson.dumps({"error": code, **number, **details}))])
        elif self.context.codec == "json":
            header = wire.output_header(binary=False, address=wire.address_only(connection.join))
            self.turn.show([(header, orjson.dumps({"error": code, **details}))])

    async def tell_room(self, event: "InboxEvent", connection: "Connection | None", error: Exception) -> None:
        """Run on_error; what it raises itself is only logged."""
        assert self.room is not None  # noqa: S101 - no event comes before the start
        seen = Event(event.id.decode(), event.kind.decode(), connection, event.data)
        try:
            await self.run(self.room.on_error, error, seen)
            self.settle()
        except BaseException as raised:
            second = contained(raised)
            self.meters.errors += 1
            self.undo()
            log.warning("room %s: on_error failed too", self.context.address, exc_info=second)


def contained(error: BaseException) -> Exception:
    """Return what a hook raised as a failure of this hook alone, ``sys.exit()`` included.

    Raises:
        MemoryError: The worker must end.
        CancelledError: The room was lost or its hook was cut.
        GeneratorExit: The interpreter ends; one of the hook's own was made a RuntimeError where it came out of it.
    """
    task = asyncio.current_task()
    is_cut = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
    if is_cut or isinstance(error, MemoryError | GeneratorExit):
        raise error
    if isinstance(error, Exception):
        return error
    return failure_of(error)


def failure_of(error: BaseException) -> RuntimeError:
    """Return the failure that a hook's exception is which is no Exception."""
    failure = RuntimeError(f"the hook raised {type(error).__name__}: {text_of(error)}".rstrip(": "))
    failure.__cause__ = error
    return failure


def _step(step: Callable[[Any], Any], given: Any) -> Any:
    """Run a hook's code; a GeneratorExit out of it is a failure, and not the end of the interpreter."""
    try:
        return step(given)
    except GeneratorExit as error:
        raise failure_of(error) from error


def text_of(error: BaseException) -> str:
    """Return an exception's text as it can be sent, also of one whose own code for that fails."""
    try:
        return wire.sendable(str(error))
    except Exception:  # noqa: BLE001 - a user's class may do anything
        return "(its text cannot be shown)"


def summary_of(error: BaseException) -> str:
    """Return an exception in a line for ``dead``: our own say all in their text, others need their type."""
    return text_of(error) if isinstance(error, InnkeeperError) else f"{type(error).__name__}: {text_of(error)}"


class _Watched:
    """Await something, and tell when it first waits and when it has ended after that."""

    def __init__(self, inner: Awaitable[Any], on_suspend: Callable[[], None], on_resume: Callable[[], None]) -> None:
        self._inner = inner
        self._on_suspend = on_suspend
        self._on_resume = on_resume

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._inner.__await__()
        try:
            waiting = _step(next, steps)
        except StopIteration as stop:
            return stop.value
        self._on_suspend()
        try:
            while True:
                try:
                    sent = yield waiting
                except GeneratorExit:
                    with contextlib.suppress(BaseException):
                        steps.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - passed on into the hook, cancellation too
                    waiting = _step(steps.throw, error)
                else:
                    waiting = _step(steps.send, sent)
        except StopIteration as stop:
            return stop.value
        finally:
            self._on_resume()
