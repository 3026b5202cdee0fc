"""Keeps one program running: starts it again after a crash, replaces it without a gap, ends it."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from innkeeper.supervise.child import BootFailed, Child, Program
from innkeeper.supervise.role import STOP_GRACE_S

logger = logging.getLogger("innkeeper.supervise")


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before the next start of a program that keeps ending."""

    first_s: float = 0.1
    longest_s: float = 5.0
    reset_after_s: float = 10.0
    """A child that lived this long counts as sound: the waits begin anew."""

    def delay_s(self, failures_count: int) -> float:
        """Return the wait after the given number of failures in a row (1 is the first)."""
        # The exponent is bounded, or a program that fails all night would overflow the float.
        return min(self.longest_s, self.first_s * 2.0 ** min(failures_count - 1, 60))


class Keeper:
    """Keeps one child of a program running until :meth:`stop`."""

    def __init__(self, program: Program, *, backoff: Backoff | None = None, grace_s: float = STOP_GRACE_S) -> None:
        """Prepare; nothing runs yet.

        Args:
            program: What to keep running; may be exchanged at any time, the next start takes it.
            backoff: The waits after crashes.
            grace_s: Seconds from SIGTERM to SIGKILL.
        """
        self.program = program
        self.restarts_count = 0
        self._backoff = backoff or Backoff()
        self._grace_s = grace_s
        self._child: Child | None = None
        self._failures_count = 0
        self._leaving: set[Child] = set()
        self._watchers: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()
        self._stopping = False

    @property
    def child(self) -> Child:
        """The child that is in charge; right after a crash, the one that crashed."""
        if self._child is None:
            raise RuntimeError(f"{self.program.name} was never started")
        return self._child

    async def start(self) -> Child:
        """Start the program and keep it running from then on; return the first child, ready.

        Raises:
            BootFailed: It did not get ready; it is not tried again.
        """
        async with self._starting:
            return self._put_in_charge(await Child.start(self.program))

    async def replace(self) -> Child:
        """Start a successor; once it is ready, end the old child; return the successor.

        Cancelling is safe: either the old child or the successor stays in charge, and :meth:`stop` ends both.

        Raises:
            BootFailed: The successor did not get ready; the old child goes on undisturbed.
        """
        async with self._starting:
            old = self.child
            successor = await Child.start(self.program)
            self._leaving.add(old)
            self._put_in_charge(successor)
        await old.stop(self._grace_s)
        self._leaving.discard(old)
        return successor

    async def stop(self) -> None:
        """End every child of the program and start none any more; return when they are gone."""
        self._stopping = True
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        children = self._leaving if self._child is None else {*self._leaving, self._child}
        await asyncio.gather(*(child.stop(self._grace_s) for child in children))

    def _put_in_charge(self, child: Child) -> Child:
        self._child = child
        watcher = asyncio.create_task(self._watch(child), name=f"watch {child.program.name} {child.pid}")
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return child

    async def _watch(self, child: Child) -> None:
        loop = asyncio.get_running_loop()
        started_at_monotonic_s = loop.time()
        exit_code = await child.wait()
        if loop.time() - started_at_monotonic_s >= self._backoff.reset_after_s:
            self._failures_count = 0
        reason = f"ended (exit code {exit_code})"
        while self._child is child and not self._stopping:
            self._failures_count += 1
            delay_s = self._backoff.delay_s(self._failures_count)
            logger.warning("%s %s: starting it again in %.1f s", self.program.name, reason, delay_s)
            await asyncio.sleep(delay_s)
            with contextlib.suppress(BootFailed):
                await self._start_again(child)
            reason = "did not get ready"

    async def _start_again(self, dead: Child) -> None:
        async with self._starting:
            if self._child is dead:  # else a successor came while we waited
                self._put_in_charge(await Child.start(self.program))
                self.restarts_count += 1
                logger.info("%s runs again (process %s)", self.program.name, self.child.pid)
