"""The events of timers: one runs, and what follows it takes its place; one that fails is tried again."""

import logging
from typing import TYPE_CHECKING, Any

import orjson

from innkeeper.activation.hooks import contained
from innkeeper.room import Room
from innkeeper.timers import TRIES, TimerRow

if TYPE_CHECKING:
    from innkeeper.activation.hooks import Hooks
    from innkeeper.wire import InboxEvent

log = logging.getLogger("innkeeper.worker")


class TimerEvents:
    """What a room's timers do when they have fired.

    Attributes:
        void_count: Events whose timer was set anew, cancelled or has run already: no hook saw them.
        lost_after: After this event :meth:`rearm_lost` is due; None: not at all.

    Args:
        hooks: Run the room's hooks.
        room_class: The user's class.
        known_iseq: The room's last event when it was claimed: the events of the timers fired until then are up to it.
    """

    def __init__(self, hooks: "Hooks", room_class: type[Room], known_iseq: int) -> None:
        self.void_count = 0
        self._hooks = hooks
        self._timetable = hooks.context.timers
        self._has_hook = room_class.on_timer is not Room.on_timer
        self.lost_after = known_iseq if self._timetable.loaded_as_fired() else None

    async def timer(self, event: "InboxEvent", name: str, row: TimerRow) -> None:
        """Run on_timer for an event of the timer of this name and row, see :meth:`timer_of`."""
        hooks = self._hooks
        assert hooks.room is not None  # noqa: S101 - no event comes before the start
        try:
            self._timetable.advance(name)  # first: the hook may set this very timer anew, or cancel it
            hook = hooks.room.on_timer if self._has_hook else self._no_hook
            await hooks.run(hook, name, orjson.loads(row.payload))
            hooks.settle()
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            await self._failed(event, name, contained(raised))

    def _no_hook(self, name: str, payload: Any) -> None:
        raise NotImplementedError(f"timer {name!r}: the room's class has no on_timer (any more)")

    async def _failed(self, event: "InboxEvent", name: str, error: Exception) -> None:
        """Undo the event; try its tick again later or, after the last try, put it aside and go on."""
        hooks = self._hooks
        hooks.undo()
        hooks.is_partial = True
        if self._timetable.retry(name):
            hooks.settle()
            row = self._timetable.get(name)
            tries = row.tries if isinstance(row, TimerRow) else 0
            hooks.meters.errors += 1
            log.warning(
                "room %s: timer %r failed (try %d of %d) and was undone",
                hooks.context.address, name, tries, TRIES, exc_info=error,
            )  # fmt: skip
            return
        hooks.record(event, error)
        self._timetable.advance(name)
        hooks.settle()
        await hooks.tell_room(event, None, error)

    def condemn(self, event: "InboxEvent") -> None:
        """Let a timer go on whose event is put aside without running."""
        found = self.timer_of(event)
        if found is not None:
            self._timetable.advance(found[0])
            self._hooks.settle()

    def rearm_lost(self, iseq: int) -> None:
        """Let timers fire anew whose events were lost: put aside by a contradiction, or run by an older version.

        Called with the last event that was run; there is nothing to say before the last one known at the claim.
        """
        if self.lost_after is None or iseq < self.lost_after:
            return
        self.lost_after = None
        for name in self._timetable.loaded_as_fired():
            log.warning("room %s: timer %r was fired, but its event is lost: again", self._hooks.context.address, name)
            self._timetable.rearm(name)
        self._hooks.settle()

    def timer_of(self, event: "InboxEvent") -> tuple[str, TimerRow] | None:
        """Return the timer that an event is about, if it is still the one that fired."""
        try:
            fields = orjson.loads(event.data)
            name, timer_id = fields["name"], fields["id"]
        except (ValueError, TypeError, KeyError):
            return None
        row = self._timetable.get(name) if isinstance(name, str) else None
        return (name, row) if isinstance(row, TimerRow) and row.id == timer_id else None
