"""What a role exports: families of metrics, declared once, and their samples, read when somebody scrapes."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from innkeeper.meters import Histogram


class Family(NamedTuple):
    """One metric: its name as Prometheus shows it (counters end in ``_total``), its type, what it says, its labels.

    No label is ever a room's name: rooms are without number.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


Sample = tuple[Family, tuple[str, ...], float | Histogram]
"""A family, the values of its labels, and the value."""


class Source(Protocol):
    """A role, as the listener asks it."""

    @property
    def role(self) -> str:
        """Its name, as of the command."""

    @property
    def families(self) -> Sequence[Family]:
        """All families that there may be samples of."""

    @property
    def incarnation(self) -> str:
        """The id of this run."""

    def missing(self) -> list[str]:
        """Return what is missing before this process should get work; nothing: it is ready."""

    async def look(self) -> None:
        """Ask Redis what the next samples need; raises nothing, and takes a second at most."""

    def samples(self) -> Iterable[Sample]:
        """Return the samples as of now."""


INFO: Final = Family("innkeeper_info", "gauge", "Always 1; the labels say what runs.", ("role", "version"))
READY: Final = Family("innkeeper_ready", "gauge", "1 where /readyz answers 200, else 0.")
LOOP_LAG: Final = Family(
    "innkeeper_loop_lag_seconds", "histogram", "How late the event loop ran a timer; looked at ten times a second."
)
COMMON: Final = (INFO, READY, LOOP_LAG)

_TICK_S = 0.1
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """Measures how late the running loop is, until it is stopped."""

    def __init__(self) -> None:
        self.seconds = Histogram(_LAG_S)
        self._loop = asyncio.get_running_loop()
        self._due_at_s = self._loop.time() + _TICK_S
        self._handle = self._loop.call_at(self._due_at_s, self._tick)

    def stop(self) -> None:
        """Measure no more."""
        self._handle.cancel()

    def _tick(self) -> None:
        now_s = self._loop.time()
        self.seconds.observe(max(0.0, now_s - self._due_at_s))
        self._due_at_s = now_s + _TICK_S
        self._handle = self._loop.call_at(self._due_at_s, self._tick)
