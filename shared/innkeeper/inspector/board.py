"""What the inspector knows of all rooms: surveyed while somebody watches, at a tenth of the time at most."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from innkeeper import keys
from innkeeper.address import Address, parse_address
from innkeeper.errors import InnkeeperError
from innkeeper.load import Load
from innkeeper.operator.reasons import house, reasons
from innkeeper.operator.survey import ProcessRow, RoomRow, addresses, counters, kinds, loads, processes, rows
from innkeeper.topology import Commands

log = logging.getLogger("innkeeper.inspector")

_WATCHED_S: Final = 10.0
_LEAST_S: Final = 1.0
_SHARE: Final = 10
_FRESH_S: Final = 1.5
_LEAST_BETWEEN_S: Final = 0.5
_NO_RATE: Final = 0.0

ORDERS: Final[dict[str, Callable[["Seen"], Any]]] = {
    "room": lambda seen: seen.row.room,
    "owner": lambda seen: seen.row.owner,
    "lag": lambda seen: (seen.row.lag_s, seen.row.lag),
    "members": lambda seen: seen.row.members,
    "events_s": lambda seen: seen.events_s,
    "trouble": lambda seen: (bool(seen.trouble), seen.row.lag_s),
}
"""What rooms may be sorted by."""


class Seen(NamedTuple):
    """A room as a list shows it: its row, why it is stuck (empty: it is not), and its events a second."""

    row: RoomRow
    trouble: str
    events_s: float


@dataclass(frozen=True, slots=True)
class Survey:
    """All rooms that some index names, in the order of their names, as of one moment.

    Attributes:
        rooms: The rooms.
        at_s: When it was taken, by the loop's clock.
        took_s: How long that took.
        events_s: Events a second of all of them.
    """

    rooms: list[Seen]
    at_s: float
    took_s: float
    events_s: float


class Wanted(NamedTuple):
    """Which rooms a list shows; empty texts mean any. ``owner`` may be ``-``: those without one."""

    search: str
    kind: str
    owner: str
    stuck: bool

    def fits(self, seen: Seen) -> bool:
        """Return whether a room is wanted."""
        row = seen.row
        return (
            (not self.search or self.search in row.room)
            and (not self.kind or row.room.startswith(f"{self.kind}/"))
            and (not self.owner or row.owner == ("" if self.owner == "-" else self.owner))
            and (not self.stuck or bool(seen.trouble))
        )


class Worker(NamedTuple):
    """A worker, and what it last said of its load; None: nothing of late."""

    row: ProcessRow
    load: Load | None


class Board:
    """Keeps the newest survey.

    Args:
        link: To the Redis of the rooms.
    """

    def __init__(self, link: Commands) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._survey: Survey | None = None
        self._asked_at_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[Survey] | None = None
        self._readings: dict[str, tuple[float, int, float]] = {}  # room → when, accepted, events a second

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def survey(self) -> Survey:
        """Return the newest survey; the first takes as long as it takes.

        Raises:
            InnkeeperError: Redis does not answer, or refuses.
        """
        self._asked_at_s = self._loop.time()
        if self._task is None or self._task.done():
            self._survey, self._first = None, self._loop.create_future()
            self._task = asyncio.create_task(self._watch(self._first))
        if self._survey is not None:
            return self._survey
        assert self._first is not None  # noqa: S101 - made with the task
        return await asyncio.shield(self._first)

    async def _watch(self, first: "asyncio.Future[Survey]") -> None:
        while self._loop.time() - self._asked_at_s < _WATCHED_S:
            try:
                self._survey = await self._look()
            except Exception as error:
                if not isinstance(error, InnkeeperError):
                    log.exception("the survey failed")
                if not first.done():
                    first.set_exception(error)
                    first.exception()  # somebody may have stopped to wait for it
                return  # whoever asks next begins anew
            if not first.done():
                first.set_result(self._survey)
            await asyncio.sleep(max(_LEAST_S - self._survey.took_s, self._survey.took_s * (_SHARE - 1)))

    async def _look(self) -> Survey:
        began_s = self._loop.time()
        rooms = await self.look_at(await addresses(self._link))
        known = {seen.row.room for seen in rooms}
        self._readings = {room: reading for room, reading in self._readings.items() if room in known}
        now_s = self._loop.time()
        return Survey(rooms, now_s, now_s - began_s, sum(seen.events_s for seen in rooms))

    async def look_at(self, rooms: Sequence[Address]) -> list[Seen]:
        """Return some rooms as they are now."""
        found = await rows(self._link, rooms)
        texts = await reasons(self._link, found, await house(self._link))
        now_s = self._loop.time()
        return [Seen(row, why, self._rate(row, now_s)) for row, why in zip(found, texts, strict=True)]

    def _rate(self, row: RoomRow, now_s: float) -> float:
        at_s, accepted, rate = self._readings.get(row.room, (now_s, row.accepted, _NO_RATE))
        if now_s - at_s >= _LEAST_BETWEEN_S:
            rate = max(0.0, (row.accepted - accepted) / (now_s - at_s))  # below 0: destroyed and made anew
        elif now_s > at_s:
            return rate
        self._readings[row.room] = (now_s, row.accepted, rate)
        return rate

    async def page(
        self, wanted: Wanted, *, order: str, descending: bool, offset: int, limit: int
    ) -> tuple[list[Seen], int]:
        """Return a page of rooms, as they are now, and how many are wanted in all.

        Which they are, and their order, is as of the newest survey.
        """
        survey = await self.survey()
        found = [seen for seen in survey.rooms if wanted.fits(seen)]
        found.sort(key=ORDERS[order], reverse=descending)  # stable: equals stay in the order of their names
        shown = found[offset : offset + limit]
        if self._loop.time() - survey.at_s > _FRESH_S:
            shown = await self.look_at([parse_address(seen.row.room) for seen in shown])
        return shown, len(found)

    async def processes(self) -> tuple[list[Worker], list[ProcessRow]]:
        """Return workers and edges."""
        workers = await processes(self._link, keys.WORKERS)
        told = await loads(self._link)
        return [Worker(row, told.get(row.name)) for row in workers], await processes(self._link, keys.EDGES)

    async def counters(self) -> dict[str, int]:
        """Return what went wrong, by name, since the counters were made."""
        return await counters(self._link)

    async def kinds(self) -> list[str]:
        """Return the kinds of rooms that a worker ever served."""
        return await kinds(self._link)
