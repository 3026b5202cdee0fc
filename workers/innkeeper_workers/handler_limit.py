"""Ends a hook that waits for too long."""

import asyncio
from collections.abc import Callable

_LATE_S = 0.1


class HandlerLimit:
    """The clock beside a waiting hook.

    A process that was stopped, or a loop that was held up, finds this clock and what the hook waits for due at one
    moment: then the hook gets the time that it had lost, once.

    Args:
        loop: Whose time counts.
        cut: Called when the time is over.

    Attributes:
        began_s: When the hook began to wait, by the loop's clock; None while none waits.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, cut: Callable[[], None]) -> None:
        self._loop = loop
        self._cut = cut
        self._handle: asyncio.TimerHandle | None = None
        self._is_extended = False
        self.began_s: float | None = None

    def start(self, limit_s: float) -> None:
        """A hook begins to wait."""
        self._is_extended = False
        self.began_s = self._loop.time()
        self._handle = self._loop.call_later(limit_s, self._over)

    def stop(self) -> float:
        """It has ended, or nobody waits for it any more; return for how long it has waited, in seconds."""
        waited_s = 0.0 if self.began_s is None else self._loop.time() - self.began_s
        self.began_s = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        return waited_s

    def _over(self) -> None:
        assert self._handle is not None  # noqa: S101 - it calls this
        late_s = self._loop.time() - self._handle.when()
        if late_s > _LATE_S and not self._is_extended:
            self._is_extended = True
            self._handle = self._loop.call_later(late_s, self._over)
        else:
            self._handle = None
            self._cut()
