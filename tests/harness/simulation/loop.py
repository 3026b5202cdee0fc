"""An event loop on virtual time whose callbacks belong to processes that can be killed or stopped between any two."""

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any, cast

_STEP_S = 1e-6
_RESOLUTION_S = 1e-9


class Process:
    """What a kill or a stop hits as one: the tasks, callbacks and timers of one edge or worker.

    Attributes:
        context: Run something in it (``call_soon(…, context=process.context)``), and all it starts is the process's.
        is_alive: False from a kill on: nothing of the process runs any more, no ``finally`` either.
        is_stopped: Between SIGSTOP and SIGCONT: what comes waits.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.is_stopped = False
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)
        self.tasks: list[asyncio.Task[Any]] = []  # of all its life: a killed task must not be collected in mid-run
        self.waiting: deque[asyncio.Handle] = deque()
        self.due: deque[asyncio.Handle] = deque()
        self._fuse: tuple[int, Callable[[], object]] | None = None

    @property
    def is_ended(self) -> bool:
        """Whether it has come to its own end."""
        return False

    def light_fuse(self, steps: int, action: Callable[[], object]) -> None:
        """Call something before the process takes that many further steps; a step ends where all tasks await."""
        self._fuse = (steps, action)

    def burn(self) -> None:
        """Count one step."""
        if self._fuse is not None:
            steps, action = self._fuse
            if steps > 0:
                self._fuse = (steps - 1, action)
            else:
                self._fuse = None
                action()


PROCESS: ContextVar[Process] = ContextVar("process")
NOBODY = Context()
"""The context of what belongs to no process: network, server, clients, the hand that breaks things."""


class NothingLeft(RuntimeError):
    """All wait and no timer runs: the simulation itself is stuck."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Time stands still while anything can run, and then jumps to the next timer.

    Callbacks that are ready run in the order they became so, as asyncio promises; what a seed varies is when things
    become ready (delays of the network, kills and stops between any two steps of a process).
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.step_count = 0
        self.failures: list[str] = []
        self.set_exception_handler(self._note_failure)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self.now_s

    def resume(self, process: Process) -> None:
        """Let a stopped process go on: what came over the network first, then the timers, as a real loop does."""
        process.is_stopped = False
        for handle in (*process.waiting, *process.due):
            self._ready.append(handle)
        process.waiting.clear()
        process.due.clear()

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)
        if not ready:
            if not scheduled:
                raise NothingLeft(f"nothing is left to do at {self.now_s:.6f} s")
            self.now_s = max(self.now_s, scheduled[0].when())
        end_s = self.now_s + _RESOLUTION_S
        while scheduled and scheduled[0].when() < end_s:
            timer = heapq.heappop(scheduled)
            process = _process_of(timer)
            if process is not None and process.is_stopped:
                process.due.append(timer)
            else:
                ready.append(timer)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                self._step(handle)

    def _step(self, handle: asyncio.Handle) -> None:
        process = _process_of(handle)
        if process is not None:
            if process.is_alive and not process.is_stopped:
                process.burn()  # may kill or stop it
            if not process.is_alive:
                return
            if process.is_stopped:
                process.waiting.append(handle)
                return
        self.now_s += _STEP_S
        self.step_count += 1
        handle._run()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # cancelled timers leave when their time comes

    def _write_to_self(self) -> None:
        pass  # there is one thread

    def _process_events(self, event_list: object) -> None:
        pass  # there are no sockets

    def _note_failure(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG002
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")


def _process_of(handle: asyncio.Handle) -> Process | None:
    context: Context = cast("Any", handle)._context
    return context.get(PROCESS)


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, context: Context | None = None) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, context=context)
    cast("Any", task)._log_destroy_pending = False
    process = context.get(PROCESS) if context is not None else PROCESS.get(None)
    if process is not None:
        process.tasks.append(task)
    return task
