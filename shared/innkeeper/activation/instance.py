"""A room object with what its hooks have changed since the last commit."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import orjson

from innkeeper import wire
from innkeeper.activation.hooks import Hooks, contained
from innkeeper.activation.jobs import JobEvents
from innkeeper.activation.membership import Membership
from innkeeper.activation.posts import Posts
from innkeeper.activation.requests import Requests
from innkeeper.activation.timers import TimerEvents
from innkeeper.context import RoomContext
from innkeeper.room import Room
from innkeeper.timers import JOB
from innkeeper.turn import Turn, dead_event

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper.functions import Claimed
    from innkeeper.meters import KindMeters
    from innkeeper.wire import InboxEvent

log = logging.getLogger("innkeeper.worker")

_MESSAGES = (b"text", b"binary")
# What is void in a room that was never created: it is about members or timers, and there are none.
_OF_NOBODY = (*_MESSAGES, b"leave", b"edge-gone", b"drop", b"resume", b"resync", b"timer", b"job")


class Activation:
    """One live instance of a room.

    Args:
        address: The room.
        room_class: The user's class.
        claimed: What the claim answered.
        on_suspend: Called when a hook first waits for something: what earlier events did may go out now.
        on_resume: Called when that hook has ended.
        condemned: Members, by connection id, whose ``on_leave`` is not run again, and why.
        meters: What is counted of rooms of this kind.
    """

    def __init__(
        self,
        address: "Address",
        room_class: type[Room],
        claimed: "Claimed",
        *,
        on_suspend: Callable[[], None],
        on_resume: Callable[[], None],
        condemned: Mapping[bytes, str] | None = None,
        meters: "KindMeters | None" = None,
    ) -> None:
        stored = {key.decode(): data for key, data in claimed.state.items()}
        state = room_class._make_state(stored)  # noqa: SLF001 - the framework's side of Room
        self.context = RoomContext(address, room_class.codec, state, moment=b"0-%d" % claimed.server_us)
        self.context.timers.load(claimed.timers)
        self._hooks = Hooks(self.context, on_suspend=on_suspend, on_resume=on_resume, meters=meters)
        self._membership = Membership(self._hooks, room_class, condemned or {})
        self._membership.load(claimed.members)
        self._requests = Requests(self._hooks, room_class)
        self._timers = TimerEvents(self._hooks, room_class, claimed.iseq)
        self._cursor = int(claimed.meta.get(b"cursor", 0))
        posts = Posts(self._hooks, room_class)
        self._room_class = room_class
        self._created = b"created" in claimed.meta
        self._is_started = False
        self._jobs = JobEvents(self._hooks)
        # Messages go another way, see handle.
        sessions = self._membership.sessions
        self._kinds: dict[bytes, Callable[[InboxEvent], Awaitable[None] | None]] = {
            b"join": self._membership.join,
            b"leave": self._membership.leave,
            b"edge-gone": self._membership.edge_gone,
            b"drop": sessions.drop,
            b"resume": sessions.resume,
            b"resync": sessions.resync,
            b"request": self._requests.request,
            b"post": posts.post,
            b"destroy": posts.destroy,
            b"kick": posts.kick,
            b"timer": self._timer,
            b"job": self._jobs.result,
        }

    @property
    def turn(self) -> Turn:
        """What has changed since the last commit."""
        return self._hooks.turn

    @property
    def is_partial(self) -> bool:
        """Whether the turn holds part of an event that has not ended: then it must not be committed yet."""
        return self._hooks.is_partial

    @property
    def leaving(self) -> str:
        """The member whose hook runs because it is gone, by connection id; empty where none is."""
        return self._membership.leaving

    @property
    def void_count(self) -> int:
        """How many events reached no hook: their connection was no member, or nobody waited for their timer or job."""
        membership, rest = self._membership, self._timers.void_count + self._jobs.void_count
        return membership.void_count + membership.sessions.void_count + rest

    @property
    def room(self) -> Room:
        """The room object; there is one from a successful start on."""
        assert self._hooks.room is not None  # noqa: S101 - start() comes first
        return self._hooks.room

    async def start(self) -> None:
        """Make the room object and run on_create (first time ever) and on_start.

        Raises:
            Exception: Whatever the hooks raise; then nothing of them counts.
        """
        hooks = self._hooks
        room = self._room_class()
        room._context = self.context  # noqa: SLF001 - the framework's side of Room
        hooks.room = room
        try:
            self.context.state.load()
            if not self._created:
                self.context.outside = "on_create"
                await hooks.run(room.on_create)
            self.context.outside = "on_start"
            await hooks.run(room.on_start)
            hooks.settle()
            self._timers.rearm_lost(self._cursor)
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            hooks.undo()
            error = contained(raised)
            hooks.meters.errors += 1
            raise error from error.__cause__
        finally:
            self.context.outside = ""
            hooks.is_partial = False
        self._created = self._is_started = True

    def concerns_nobody(self, event: "InboxEvent") -> bool:
        """Whether an event creates no room, and needs no start, where there is none.

        A room's last sockets say that they are gone after it was destroyed: that must not make it anew.
        """
        context = self.context
        return event.kind in _OF_NOBODY and not context.members and context.timers.is_empty

    async def sleep(self) -> None:
        """Run on_sleep before the instance is put away; what it raises is logged, and nothing of it counts."""
        hooks = self._hooks
        self.context.outside = "on_sleep"
        try:
            await hooks.run(self.room.on_sleep)
            hooks.settle()
        except BaseException as raised:
            error = contained(raised)
            hooks.meters.errors += 1
            hooks.undo()
            log.warning("room %s: on_sleep failed", self.context.address, exc_info=error)
        finally:
            hooks.is_partial = False

    @property
    def runs_hooks_at_start(self) -> bool:
        """Whether :meth:`start` runs code of the user's."""
        cls = self._room_class
        return any(getattr(cls, name) is not getattr(Room, name) for name in ("__init__", "on_create", "on_start"))

    @property
    def runs_hook_at_sleep(self) -> bool:
        """Whether :meth:`sleep` runs code of the user's; nothing has to be put to sleep that never started."""
        return self._is_started and self._room_class.on_sleep is not Room.on_sleep

    def handle(self, event: "InboxEvent") -> Awaitable[None] | None:
        """Run one event; whatever its hooks raise is undone and recorded, so it always counts as consumed.

        Returns what is left to await, None where the event is done: messages to sync hooks cost no coroutine.
        """
        self.context.moment = event.id
        rest = self._membership.message(event) if event.kind in _MESSAGES else self._rare(event)
        if rest is not None or self.context.is_destroyed or self._timers.lost_after is not None:
            return self._consumed(event, rest)
        self._hooks.turn.consume(event)
        self._hooks.is_partial = False
        return None

    async def _consumed(self, event: "InboxEvent", rest: Awaitable[None] | None) -> None:
        if rest is not None:
            await rest
        if self.context.is_destroyed:
            await self._destroyed(event)
        else:
            self._timers.rearm_lost(event.iseq)
        self._hooks.turn.consume(event)
        self._hooks.is_partial = False

    async def _rare(self, event: "InboxEvent") -> None:
        handle = self._kinds.get(event.kind)
        if handle is None:
            self._membership.void_count += 1
        elif (rest := handle(event)) is not None:
            await rest

    async def _timer(self, event: "InboxEvent") -> None:
        found = self._timers.timer_of(event)
        if found is None:
            self._timers.void_count += 1
        elif found[0].startswith(JOB):
            await self._jobs.deadline(event, found[0])
        else:
            await self._timers.timer(event, *found)

    async def _destroyed(self, event: "InboxEvent") -> None:
        """End the room with this event; it also ends the turn, and the room object is not used any more."""
        await self._membership.end(event)
        self._hooks.turn.outbox += [("cancel", job_id, b"") for job_id in self.context.timers.jobs()]
        self._hooks.turn.end_room()
        self._timers.lost_after = None
        self.context.is_destroyed = self.context.was_destroyed = False

    def condemn(self, event: "InboxEvent", reason: str) -> None:
        """Put an event aside without running it: it never ended, it killed its workers, or the room failed on it.

        Args:
            event: The next one.
            reason: One line; a traceback may follow below it.
        """
        why, _, trace = reason.partition("\n")
        log.error("room %s: event %s put aside: %s", self.context.address, event.id.decode(), why)
        turn = self._hooks.turn
        turn.dead.append(dead_event(event, why, trace))
        if event.kind in (b"request", b"destroy", b"kick"):
            self._requests.condemn(event)
        else:
            self._membership.condemn(event)
        self.context.moment = event.id
        if event.kind == b"timer":
            self._timers.condemn(event)
        elif event.kind == b"job":
            self._jobs.condemn(event)
        self._timers.rearm_lost(event.iseq)
        turn.consume(event)
        self._hooks.is_partial = False

    def seal(self, reason: str) -> None:
        """Make every later call of the running hook raise TurnClosed."""
        self.context.sealed = reason

    def tell_all(self, error: str) -> None:
        """Send an error frame to all members (json rooms only)."""
        if self.context.codec == "json":
            self.turn.show([(wire.ERROR_TO_ALL, orjson.dumps({"error": error}))])
