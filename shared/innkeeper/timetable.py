"""The timers of one room: as its commits leave them, and what the running event makes of them."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import orjson

from innkeeper.compact import compact
from innkeeper.errors import TimerInvalid
from innkeeper.state import encode
from innkeeper.timers import (
    GRACE,
    JOB,
    PAYLOAD_BYTES,
    TIMERS_A_ROOM,
    GraceRow,
    Timer,
    TimerRow,
    check_name,
    following,
    planned,
    read_row,
    rearmed,
    retried,
)
from innkeeper.wire import parse_id

if TYPE_CHECKING:
    from innkeeper.context import RoomContext
    from innkeeper.turn import Turn

log = logging.getLogger("innkeeper.worker")

Row = TimerRow | GraceRow

_GONE: Final = None


class Timetable:
    """The rows of a room's ``timers``; what an event changes counts from :meth:`settle` on.

    Args:
        context: Of the room: it knows the running event.
    """

    def __init__(self, context: "RoomContext") -> None:
        self._context = context
        self._rows: dict[str, Row] = {}
        self._changed: dict[str, Row | None] = {}
        self._counted_for = b""
        self._count = 0

    def load(self, rows: Mapping[bytes, bytes]) -> None:
        """Take the rows as stored. One that cannot be read stays in Redis and never fires."""
        for name, row in rows.items():
            try:
                self._rows[name.decode()] = read_row(name.decode(), row)
            except ValueError as error:
                log.error("room %s: %s", self._context.address, error)  # noqa: TRY400 - the text says it all

    @property
    def is_empty(self) -> bool:
        """Whether no timer is set, by commits and events that have ended."""
        return not self._rows

    # --- looks ----------------------------------------------------------------------------------------------------
    def get(self, name: str) -> Row | None:
        """Return a row as the running event sees it."""
        return self._changed[name] if name in self._changed else self._rows.get(name)

    def shown(self) -> dict[str, Timer]:
        """Return the handler's own timers, the next one first."""
        names = {**self._rows, **self._changed}
        rows = [(name, row) for name in names if name[0] != "~" and isinstance(row := self.get(name), TimerRow)]
        return {name: row.shown(name) for name, row in sorted(rows, key=lambda item: (item[1].due_ms, item[0]))}

    def loaded_as_fired(self) -> list[str]:
        """Return the names of timers that were loaded as fired, and whose event has not come since."""
        return [name for name, row in self._rows.items() if isinstance(row, TimerRow) and row.is_fired]

    # --- what a handler asks for ----------------------------------------------------------------------------------
    def schedule(self, name: object, payload: Any, **when: Any) -> None:
        """Set a timer, also in the place of one of that name.

        Raises:
            TimerInvalid: Something about it makes no sense, or the room has too many.
            StateInvalid: The payload is not JSON.
        """
        checked = check_name(name)
        data = encode(payload, f"the payload of timer {checked!r}")
        if len(data) > PAYLOAD_BYTES:
            raise TimerInvalid(f"timer {checked!r}: a payload of {len(data)} bytes, at most {PAYLOAD_BYTES}")
        row = planned(self._new_id(), now_us=self._now_us, payload=compact(data), **when)
        if self.get(checked) is None and self._size() >= TIMERS_A_ROOM:
            raise TimerInvalid(f"timer {checked!r}: the room has {TIMERS_A_ROOM} timers already")
        self._changed[checked] = row

    def cancel(self, name: object) -> bool:
        """Take a timer out; return whether there was one."""
        checked = check_name(name)
        if self.get(checked) is None:
            return False
        self._changed[checked] = _GONE
        return True

    # --- what the framework asks for ------------------------------------------------------------------------------
    def set_grace(self, *, session: str, connection: str, generation: int, edge: str, due_ms: int) -> None:
        """Let a session's grace end then: unless it has resumed with a newer generation, it is closed and leaves."""
        self._changed[GRACE + session] = GraceRow(self._new_id(), due_ms, connection, generation, edge)

    def clear_grace(self, session: str) -> None:
        """End a session's grace without consequence: it has resumed, or it is gone; may be called without one."""
        if self.get(GRACE + session) is not None:
            self._changed[GRACE + session] = _GONE

    def advance(self, name: str) -> None:
        """Put in a timer's place what follows its tick: the next one, or nothing."""
        self._changed[name] = following(self._row(name), self._new_id(), self._now_us // 1000)

    def retry(self, name: str) -> bool:
        """Let a failed tick be tried again later; False, and nothing changed, where it was tried often enough."""
        row = retried(self._row(name), self._new_id(), self._now_us // 1000)
        if row is None:
            return False
        self._changed[name] = row
        return True

    def rearm(self, name: str) -> None:
        """Let a timer fire anew whose event was lost."""
        self._changed[name] = rearmed(self._row(name), self._new_id())

    def await_job(self, job_id: str, function: str, due_ms: int) -> None:
        """Wait for a job's result until then.

        Raises:
            TimerInvalid: The room waits for as many jobs as it may have timers.
        """
        if len(self.jobs()) >= TIMERS_A_ROOM:
            raise TimerInvalid(f"the room waits for {TIMERS_A_ROOM} jobs already")
        self._changed[JOB + job_id] = TimerRow(self._new_id(), due_ms, orjson.dumps(function))

    def take_job(self, job_id: str) -> str | None:
        """End the wait for a job; return its function, None where the room does not wait for it (any more)."""
        row = self.get(JOB + job_id)
        if not isinstance(row, TimerRow):
            return None
        self._changed[JOB + job_id] = _GONE
        function: str = orjson.loads(row.payload)
        return function

    def jobs(self) -> list[str]:
        """Return the ids of the jobs that the room waits for."""
        names = {**self._rows, **self._changed}
        return [name[len(JOB) :] for name in names if name.startswith(JOB) and self.get(name) is not None]

    # --- the end of an event --------------------------------------------------------------------------------------
    @property
    def is_changed(self) -> bool:
        """Whether the running event has changed anything."""
        return bool(self._changed)

    def settle(self, turn: "Turn") -> None:
        """Take what the running event has changed into the turn."""
        for name, row in self._changed.items():
            if row is None:
                self._rows.pop(name, None)
                turn.change_timer(name, None)
            else:
                self._rows[name] = row
                turn.change_timer(name, row.to_row())
        self._changed.clear()

    def undo(self) -> None:
        """Forget what the running event has changed."""
        self._changed.clear()

    # --- pieces ---------------------------------------------------------------------------------------------------
    def _row(self, name: str) -> TimerRow:
        row = self.get(name)
        assert isinstance(row, TimerRow)  # noqa: S101 - callers have looked
        return row

    def _size(self) -> int:
        names = {**self._rows, **self._changed}
        return sum(name[0] != "~" and isinstance(self.get(name), TimerRow) for name in names)

    @property
    def _now_us(self) -> int:
        return parse_id(self._context.moment)[1]

    def _new_id(self) -> str:
        """Return an id that no other setting of a timer of this room has, the same in a second run of the event."""
        moment = self._context.moment
        if moment != self._counted_for:
            self._counted_for, self._count = moment, 0
        self._count += 1
        return f"{moment.decode()}.{self._count}"
