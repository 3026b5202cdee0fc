"""Time constants of ownership, and the order between them that safety of operation rests on.

Safety of the data does not: that is checked in the commit. These numbers decide when somebody else may try.
"""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseTimes:
    """How long an owner counts as alive; all figures in milliseconds, from PROTOCOL's failure studies.

    Raises:
        ValueError: Two figures are in the wrong order; the text names the pair.
    """

    heartbeat_ms: int = 250
    renew_ms: int = 500
    heartbeat_dead_ms: int = 1_000
    stop_handling_ms: int = 1_500
    lease_ms: int = 2_000
    edge_dead_ms: int = 3_000
    second_look_ms: int = 25
    redis_timeout_ms: int = 500

    def __post_init__(self) -> None:
        order = ("heartbeat_ms", "renew_ms", "heartbeat_dead_ms", "stop_handling_ms", "lease_ms", "edge_dead_ms")
        for smaller, larger in pairwise(order):
            if getattr(self, smaller) >= getattr(self, larger):
                raise ValueError(
                    f"{smaller} ({getattr(self, smaller)}) must be below {larger} ({getattr(self, larger)})"
                )
        if self.redis_timeout_ms * 4 > self.lease_ms:
            raise ValueError(f"redis_timeout_ms ({self.redis_timeout_ms}) must be at most a quarter of lease_ms")


DEFAULT_TIMES = LeaseTimes()
RESUME_WINDOW_MS = 600_000
STALE_EDGE_MS = 300_000
