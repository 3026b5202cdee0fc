"""The time of a room in memory: it stands still until a test moves it."""

import math
from collections.abc import Awaitable, Callable

START_S = 1_767_225_600.0
"""Where the clock begins, Unix seconds: 2026-01-01."""


class VirtualClock:
    """What ``self.now()`` of the room tells. Hooks that sleep on the event loop do so in real time.

    Args:
        fire: Runs what is due up to a moment in µs; given by the harness.
    """

    def __init__(self, fire: Callable[[int], Awaitable[None]]) -> None:
        self.now_us = round(START_S * 1_000_000)
        self._fire = fire

    @property
    def now_s(self) -> float:
        """The time, Unix seconds."""
        return self.now_us / 1_000_000

    async def advance(self, seconds: float) -> None:
        """Move the clock on; timers of the room run on the way, each when it is due.

        Raises:
            ValueError: It would not move on, or not by a number.
        """
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"clock.advance({seconds!r}): a number of seconds from 0")
        until_us = self.now_us + round(seconds * 1_000_000)
        await self._fire(until_us)
        self.now_us = max(self.now_us, until_us)

    def tick(self) -> int:
        """Move on by one µs and return the time: no two events have the same."""
        self.now_us += 1
        return self.now_us
