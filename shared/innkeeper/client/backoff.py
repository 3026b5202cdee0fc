"""How long a client waits before it connects again."""

import random
from dataclasses import dataclass

_MOST_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class Backoff:
    """``first_s``, then ``factor`` times longer each time, up to ``most_s``.

    A random part of each wait, up to ``jitter`` of it, is left out: clients that lost one edge do not come back at one
    moment.

    Raises:
        ValueError: The numbers make no sense together.
    """

    first_s: float = 0.25
    factor: float = 2.0
    most_s: float = 15.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if not (self.first_s > 0 and self.factor >= 1 and self.most_s >= self.first_s and 0 <= self.jitter <= 1):
            raise ValueError("Backoff needs first_s > 0, factor >= 1, most_s >= first_s and jitter from 0 to 1")

    def wait_s(self, attempt: int) -> float:
        """Return how long to wait after that many attempts, from 0."""
        whole_s = min(self.most_s, self.first_s * self.factor ** min(attempt, _MOST_DOUBLINGS))
        return whole_s * (1 - self.jitter * random.random())  # noqa: S311 - spreads load, hides nothing
