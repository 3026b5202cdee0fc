"""Timers as values: their rows in Redis, when they are due, and what follows a run. No clock: callers bring the time.

All moments are the server's time in ms since 1970. The Lua act ``fire`` reads the beginning of a row as text: the order
of a row's first fields is part of its form.
"""

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, get_args

import orjson
from cronsim import CronSim, CronSimError

from innkeeper.compact import compact
from innkeeper.errors import TimerInvalid
from innkeeper.finite import is_number

Missed = Literal["skip", "once", "all"]

TIMERS_A_ROOM: Final = 1_000
PAYLOAD_BYTES: Final = 16_384
TRIES: Final = 8
GRACE: Final = "~grace:"
"""How the names of the rows begin that end a session's grace; names with ``~`` are the framework's."""
JOB: Final = "~job:"
"""How the names of the rows begin that end the wait for a job; the payload is the job's function."""

_NAME_BYTES: Final = 128
_LEAST_EVERY_MS: Final = 20
_FIRST_RETRY_MS: Final = 2_000
_LONGEST_RETRY_MS: Final = 300_000
_LAST_MS: Final = 253_402_300_799_000  # the last second of the year 9999, the last that datetime knows
_CRON_FIELDS: Final = 5


class Timer(NamedTuple):
    """A timer of a room, as its handler sees it.

    Attributes:
        name: Its own part of the room's timers.
        due_s: When it runs next, Unix seconds by the server's clock.
        payload: The JSON value that ``on_timer`` gets.
        every: Seconds between two runs; None where it has no such grid.
        cron: Its cron expression; None without.
    """

    name: str
    due_s: float
    payload: Any
    every: float | None
    cron: str | None


@dataclass(frozen=True, slots=True)
class TimerRow:
    """One row of ``timers``.

    Attributes:
        id: Tells this setting of the timer from every other one: ``moment.count``.
        due_ms: When it fires.
        payload: JSON.
        every_ms: Between two ticks; 0: none.
        cron: Five fields, UTC; empty: none.
        missed: What becomes of ticks that nobody was there for.
        tries: How often the running tick has failed.
        tick_ms: The tick that is tried again, where ``due_ms`` is when that happens; 0: ``due_ms`` itself is the tick.
        is_fired: Its event stands in the inbox.
    """

    id: str
    due_ms: int
    payload: bytes = b"null"
    every_ms: int = 0
    cron: str = ""
    missed: Missed = "skip"
    tries: int = 0
    tick_ms: int = 0
    is_fired: bool = False

    def to_row(self) -> bytes:
        """Return the row as Redis holds it, not fired."""
        fields: dict[str, Any] = {"id": self.id, "due": self.due_ms}
        if self.every_ms:
            fields["every"] = self.every_ms
        if self.cron:
            fields["cron"] = self.cron
        if self.every_ms or self.cron:
            fields["missed"] = self.missed
        if self.tries:
            fields |= {"tries": self.tries, "tick": self.tick_ms}
        fields["payload"] = orjson.Fragment(self.payload)
        return orjson.dumps(fields)

    def shown(self, name: str) -> Timer:
        """Return what a handler sees of it."""
        every_s = self.every_ms / 1000 if self.every_ms else None
        return Timer(name, self.due_ms / 1000, orjson.loads(self.payload), every_s, self.cron or None)


@dataclass(frozen=True, slots=True)
class GraceRow:
    """One row of ``timers`` that ends the grace of a session; the act ``fire`` does it, without the owner."""

    id: str
    due_ms: int
    connection: str
    generation: int
    edge: str

    def to_row(self) -> bytes:
        """Return the row as Redis holds it."""
        return orjson.dumps(
            {
                "id": self.id,
                "due": self.due_ms,
                "connection": self.connection,
                "generation": self.generation,
                "edge": self.edge,
            }
        )


def read_row(name: str, row: bytes) -> TimerRow | GraceRow:
    """Return what a row of ``timers`` describes.

    Raises:
        ValueError: It is none; the text names the timer.
    """
    try:
        fields = orjson.loads(row)
        if name.startswith(GRACE):
            return GraceRow(
                fields["id"], int(fields["due"]), fields["connection"], int(fields["generation"]), fields["edge"]
            )
        return TimerRow(
            str(fields["id"]),
            int(fields["due"]),
            compact(orjson.dumps(fields.get("payload"))),
            int(fields.get("every", 0)),
            str(fields.get("cron", "")),
            fields.get("missed", "skip"),
            int(fields.get("tries", 0)),
            int(fields.get("tick", 0)),
            bool(fields.get("fired", False)),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"timer {name!r}: its row cannot be read: {error!r}") from None


# --- what a schedule asks for -------------------------------------------------------------------------------------
def check_name(name: object) -> str:
    """Return a name that a handler may give a timer.

    Raises:
        TimerInvalid: It is not text of 1 to 128 bytes, or begins with ``~``.
    """
    if not isinstance(name, str):
        raise TimerInvalid(f"timer name {name!r}: it must be text")
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise TimerInvalid(f"timer name {name!r}: it is not valid Unicode") from None
    if not 1 <= size_bytes <= _NAME_BYTES:
        raise TimerInvalid(f"timer name {name[:40]!r} of {size_bytes} bytes: 1 to {_NAME_BYTES}")
    if name.startswith("~"):
        raise TimerInvalid(f"timer name {name!r}: names that begin with ~ are the framework's")
    return name


def planned(
    timer_id: str,
    *,
    now_us: int,
    payload: bytes,
    after: object = None,
    at: object = None,
    every: object = None,
    cron: object = None,
    missed: object = "skip",
) -> TimerRow:
    """Return the row of a timer that is set now; the arguments are those of ``Room.schedule``.

    Raises:
        TimerInvalid: They say nothing, contradict each other, or hold a number or text that makes no sense.
    """
    if missed not in get_args(Missed):
        raise TimerInvalid(f'missed={missed!r}: "skip", "once" or "all"')
    if after is not None and at is not None:
        raise TimerInvalid("schedule: give after= or at=, not both")
    if cron is not None:
        if not (after is None and at is None and every is None):
            raise TimerInvalid("schedule: cron= stands alone, it says when the first run is")
        due_ms = cron_after(cron, now_us // 1000)
        return TimerRow(timer_id, due_ms, payload, cron=" ".join(str(cron).split()), missed=missed)  # type: ignore[arg-type]
    every_ms = 0 if every is None else round(_seconds("every", every) * 1000)
    if every is not None and every_ms < _LEAST_EVERY_MS:
        raise TimerInvalid(f"every={every!r}: at least {_LEAST_EVERY_MS / 1000} s")
    if at is not None:
        due_ms = math.ceil(_moment_s(at) * 1000)
    elif after is not None:
        due_ms = math.ceil(now_us / 1000 + _seconds("after", after) * 1000)
    elif every is not None:
        due_ms = math.ceil(now_us / 1000) + every_ms
    else:
        raise TimerInvalid("schedule: say when, by after=, at=, every= or cron=")
    if due_ms > _LAST_MS:
        raise TimerInvalid("schedule: that is after the year 9999")
    return TimerRow(timer_id, due_ms, payload, every_ms, missed=missed)  # type: ignore[arg-type]


def _number(what: str, value: object) -> float:
    if not is_number(value):
        raise TimerInvalid(f"{what}={value!r}: a number")
    return value


def _seconds(what: str, value: object) -> float:
    seconds = _number(what, value)
    if seconds < 0:
        raise TimerInvalid(f"{what}={value!r}: not below 0")
    if seconds * 1000 > _LAST_MS:
        raise TimerInvalid(f"{what}={value!r}: that is after the year 9999")
    return seconds


def _moment_s(at: object) -> float:
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise TimerInvalid(f"at={at!r}: a datetime without a time zone; add tzinfo=UTC, say")
        return max(at.timestamp(), 0.0)
    seconds = _number("at", at)
    if seconds < 0 or seconds * 1000 > _LAST_MS:
        raise TimerInvalid(f"at={at!r}: Unix seconds between 1970 and the year 9999, or a datetime")
    return seconds


def cron_after(cron: object, moment_ms: int) -> int:
    """Return the first moment after another that a cron expression (five fields, UTC) means.

    Raises:
        TimerInvalid: It is no such expression, or it means no moment of the next 50 years.
    """
    if not isinstance(cron, str) or len(cron.split()) != _CRON_FIELDS:
        raise TimerInvalid(f"cron={cron!r}: five fields, minute hour day month weekday")
    try:
        found = next(CronSim(cron, datetime.fromtimestamp(moment_ms // 1000, UTC)))
    except StopIteration:
        raise TimerInvalid(f"cron={cron!r}: there is no such moment in the next 50 years") from None
    except (CronSimError, ValueError, TypeError, AssertionError, OverflowError) as error:
        raise TimerInvalid(f"cron={cron!r}: {error}") from None
    return int(found.timestamp()) * 1000


# --- what follows a run -------------------------------------------------------------------------------------------
def following(row: TimerRow, timer_id: str, now_ms: int) -> TimerRow | None:
    """Return what stands in a row's place after its tick was run (or given up) at a moment; None for nothing.

    The ticks are those of the old grid. Of ticks that have passed by then, ``skip`` runs none, ``once`` one more now,
    ``all`` each in turn.
    """
    tick_ms = row.tick_ms or row.due_ms
    if row.every_ms:
        due_ms = tick_ms + row.every_ms
        if due_ms <= now_ms and row.missed != "all":
            last_ms = tick_ms + (now_ms - tick_ms) // row.every_ms * row.every_ms
            due_ms = last_ms if row.missed == "once" else last_ms + row.every_ms
    elif row.cron:
        try:
            due_ms = cron_after(row.cron, tick_ms)
            if due_ms <= now_ms and row.missed != "all":
                due_ms = now_ms if row.missed == "once" else cron_after(row.cron, now_ms)
        except TimerInvalid:  # its last moment has passed
            return None
    else:
        return None
    if due_ms > _LAST_MS:
        return None
    return replace(row, id=timer_id, due_ms=due_ms, tries=0, tick_ms=0, is_fired=False)


def retried(row: TimerRow, timer_id: str, now_ms: int) -> TimerRow | None:
    """Return the row that tries a failed tick again, after 2 s, 4, 8 … up to 5 min; None after the eighth try."""
    tries = row.tries + 1
    if tries >= TRIES:
        return None
    wait_ms = min(_FIRST_RETRY_MS << row.tries, _LONGEST_RETRY_MS)
    tick_ms = row.tick_ms or row.due_ms
    return replace(row, id=timer_id, due_ms=now_ms + wait_ms, tries=tries, tick_ms=tick_ms, is_fired=False)


def rearmed(row: TimerRow, timer_id: str) -> TimerRow:
    """Return a row that was fired, whose event was lost, as one that fires anew."""
    return replace(row, id=timer_id, is_fired=False)
