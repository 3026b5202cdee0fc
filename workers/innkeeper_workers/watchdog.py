"""Watches the event loop: a hook that holds it is named in the log; past twice the lease, the process ends.

A thread does that, and needs the interpreter's lock for it. A hook inside a call that never lets go of the lock (a
regular expression run wild, a sum over a huge range) is stopped by the kernel: a timer of the process's own CPU time
that the loop keeps winding up. A stopped or sleeping process uses no CPU, so neither ends by it.
"""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
import traceback

log = logging.getLogger("innkeeper.worker")

EXIT_CODE = 70
_TICK_S = 0.05
_SLOW_S = 0.25
_CPU_GRACE_S = 0.5


class Watchdog:
    """Watches the running loop from a daemon thread.

    Args:
        end_after_s: How long the loop may stand still before the process ends itself (twice the lease: its rooms
            were taken over long ago, and it would only be in the way).
    """

    def __init__(self, *, end_after_s: float) -> None:
        self._end_after_s = end_after_s
        self._ticked_at_s = time.monotonic()
        self._stopped = threading.Event()
        self._loop_thread_id = threading.get_ident()
        self._ticker = asyncio.create_task(self._tick(), name="watchdog tick")
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        # Somebody's profiler may use the signal: then it is his.
        self._has_timer = False
        if signal.getsignal(signal.SIGPROF) == signal.SIG_DFL and sys.__stderr__ is not None:
            # Written by the signal handler in C, which needs no lock; then the default action ends the process.
            faulthandler.register(signal.SIGPROF, file=sys.__stderr__, all_threads=True, chain=True)
            self._has_timer = True

    def stop(self) -> None:
        """End the thread, the tick and the timer."""
        self._stopped.set()
        self._ticker.cancel()
        if self._has_timer:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.unregister(signal.SIGPROF)
            self._has_timer = False

    async def _tick(self) -> None:
        while True:
            self._ticked_at_s = time.monotonic()
            if self._has_timer:
                signal.setitimer(signal.ITIMER_PROF, self._end_after_s + _CPU_GRACE_S)
            await asyncio.sleep(_TICK_S)

    def _watch(self) -> None:
        named = False
        checked_at_s = time.monotonic()
        while not self._stopped.wait(_TICK_S):
            now_s = time.monotonic()
            if now_s - checked_at_s > _SLOW_S:
                # The whole process stood still (SIGSTOP, a frozen machine): the loop deserves a fresh start.
                self._ticked_at_s = now_s
            checked_at_s = now_s
            still_s = now_s - self._ticked_at_s
            if still_s < _SLOW_S:
                named = False
                continue
            if not named:
                named = True
                log.warning("the event loop stands still for %.2f s, held by:\n%s", still_s, self._stack())
            if still_s > self._end_after_s:
                log.critical("the event loop stood still for %.1f s: ending this worker", still_s)
                logging.shutdown()
                os._exit(EXIT_CODE)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread_id)  # noqa: SLF001 - the documented way to see it
        return "".join(traceback.format_stack(frame)[-8:]) if frame else "(no stack)"
