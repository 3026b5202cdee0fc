"""What a jobs process shows operators. Jobs run in processes that it forks, so counts are in memory that all share."""

import asyncio
import contextlib
import mmap
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from innkeeper.ops import Family, OpsSettings, Sample
from innkeeper.ops.listener import Listener

if TYPE_CHECKING:
    from rq import Worker

_ENDS = ("done", "failed", "timeout", "died")
_CELL_BYTES = 8
_START_S = 10.0

ENDED = Family("innkeeper_jobs_ended_total", "counter", "Jobs by their end: done, failed, timeout or died.", ("end",))
SECONDS = Family("innkeeper_jobs_run_seconds_total", "counter", "Time in jobs' functions.")
UNTOLD = Family("innkeeper_jobs_untold_total", "counter", "Ends of jobs that could not be told to their rooms.")
BUSY = Family("innkeeper_jobs_busy", "gauge", "1 while a job runs, else 0.")
FAMILIES: Final = (ENDED, SECONDS, UNTOLD, BUSY)


class JobMeters:
    """Counts of one jobs process and of the processes it forks, of which one runs at a time."""

    def __init__(self) -> None:
        size = len(_ENDS) + 2
        self._cells = memoryview(mmap.mmap(-1, size * _CELL_BYTES)).cast("Q")  # shared by those forked from here on

    def ended(self, end: str, run_s: float = 0.0) -> None:
        """Count a job by its end, and the time in its function."""
        self._cells[_ENDS.index(end)] += 1
        self._cells[len(_ENDS)] += max(0, int(run_s * 1_000_000))

    def untold(self) -> None:
        """Count a result that did not reach its room."""
        self._cells[len(_ENDS) + 1] += 1

    def samples(self) -> Iterator[Sample]:
        """Return the samples as of now."""
        for number, end in enumerate(_ENDS):
            yield ENDED, (end,), self._cells[number]
        yield SECONDS, (), self._cells[len(_ENDS)] / 1_000_000
        yield UNTOLD, (), self._cells[len(_ENDS) + 1]


class JobsSource:
    """One jobs process, as the operators' listener asks it.

    Args:
        worker: rq's, which takes the jobs.
        meters: What is counted.
    """

    role = "jobs"
    families = FAMILIES

    def __init__(self, worker: "Worker", meters: JobMeters) -> None:
        self._worker = worker
        self._meters = meters

    @property
    def incarnation(self) -> str:
        """The name of rq's worker."""
        return str(self._worker.name)

    def missing(self) -> list[str]:
        """Return what is missing before this process takes jobs."""
        if getattr(self._worker, "_stop_requested", False):
            return ["this process ends after its job"]
        return [] if self._state in ("idle", "busy") else ["jobs are not taken yet"]

    @property
    def _state(self) -> str:
        state = self._worker.get_state()
        return str(getattr(state, "value", state))

    async def look(self) -> None:
        """Nothing: all figures are this process's own."""

    def samples(self) -> Iterator[Sample]:
        """Return the samples as of now."""
        yield from self._meters.samples()
        yield BUSY, (), int(self._state == "busy")


@contextlib.contextmanager
def shown(settings: OpsSettings, source: JobsSource) -> Iterator[int]:
    """Serve a source from a thread, because rq's own loop is none of asyncio's; yield the port, 0 without one.

    Raises:
        PortTaken: The port cannot be had.
    """
    if settings.port is None:
        yield 0
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="ops", daemon=True)
    thread.start()
    try:
        listener = Listener(settings, source)
        asyncio.run_coroutine_threadsafe(listener.start(), loop).result(_START_S)
        # A job that outlives this process must not keep the port from the next one.
        os.register_at_fork(after_in_child=listener.abandon)
        yield listener.port
        asyncio.run_coroutine_threadsafe(listener.close(), loop).result(_START_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_START_S)
        loop.close()
