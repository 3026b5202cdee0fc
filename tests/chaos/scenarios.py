"""The runs: how large, which faults how often, and what a run must show to count."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from chaos import faults
from chaos.faults import Fault


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Faults that come one after another; several lanes run side by side.

    Attributes:
        choices: Faults with their weights.
        pause_s: Shortest and longest wait before each.
        most: How many of them at most; 0 for as many as fit into the time.
        in_turn: One after the other as they stand there, instead of drawing them.
    """

    choices: tuple[tuple[Fault, float], ...]
    pause_s: tuple[float, float]
    most: int = 0
    in_turn: bool = False


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One run.

    Attributes:
        name: As ``make chaos SCENARIO=name`` has it.
        seconds: Of faults; it ends earlier once every lane has had its ``most``, and up to twice as late where one of
            ``must_bite`` has not bitten yet.
        must_bite: What must have been counted at least this often, or the run does not count.
        most: Figures of the verdict with the largest value that passes.
        may_end: Close codes that clients may see, beside none at all; None: any that may be retried.
    """

    name: str
    lanes: tuple[Lane, ...]
    must_bite: dict[str, int]
    seconds: float = 120.0
    rooms: int = 200
    clients: int = 3
    rate_hz: float = 550.0
    slow: float = 0.0
    workers: int = 3
    edges: int = 2
    proxied: bool = False
    appendfsync: str = "everysec"
    most: dict[str, float] = field(default_factory=dict)
    may_end: frozenset[str] | None = None

    def lacks(self, bitten: Mapping[str, int]) -> list[str]:
        """Return what has not bitten often enough."""
        return [name for name, least in self.must_bite.items() if bitten.get(name, 0) < least]


_NETWORK: tuple[tuple[Fault, float], ...] = (
    (faults.drop_replies, 3), (faults.slow_link, 2), (faults.cut_link, 1), (faults.half_close, 1),
    (faults.partition, 2),
)  # fmt: skip
_SERVER: tuple[tuple[Fault, float], ...] = (
    (faults.kill_pubsub, 4), (faults.flush_functions, 1), (faults.kill_redis, 1), (faults.fill_redis, 1),
    (faults.sleep_redis, 1),
)  # fmt: skip

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="kills",
            seconds=590,
            lanes=(Lane(choices=((faults.kill, 1),), pause_s=(0.2, 0.6), most=1000),),
            must_bite={"worker kills": 500, "edge kills": 300, "rooms taken over": 1, "edges found silent": 1},
        ),
        Scenario(
            name="freeze",
            seconds=600,
            workers=6,
            edges=3,
            slow=0.2,
            lanes=(
                *(Lane(choices=((faults.freeze_worker, 1),), pause_s=(0.2, 1), most=35) for _ in range(4)),
                *(Lane(choices=((faults.freeze_edge, 1),), pause_s=(0.2, 1), most=30) for _ in range(2)),
            ),
            must_bite={"worker freezes": 130, "edge freezes": 50, "rooms taken over": 1, "commits refused": 1,
                       "incarnations ended": 1},
        ),
        Scenario(
            name="rolling",
            seconds=300,
            rooms=500,
            clients=1,
            rate_hz=1000,
            lanes=(Lane(choices=((faults.roll_workers, 1),), pause_s=(2, 3), most=10),),
            must_bite={"rolling restarts": 10},
            most={"handover_p99_ms": 100, "handover_max_ms": 500},
            may_end=frozenset(),
        ),
        Scenario(
            name="redis-kills",
            seconds=400,
            appendfsync="always",  # everysec may hold writes back while the disk is busy, then a kill loses them
            lanes=(Lane(choices=((faults.kill_redis, 1),), pause_s=(1.5, 3), most=50),),
            must_bite={"Redis kills": 50, "pushes sent again": 1},
            may_end=frozenset(),
        ),
        Scenario(
            name="pubsub",
            seconds=600,
            lanes=(Lane(choices=((faults.kill_pubsub, 1),), pause_s=(0.2, 0.2)),),
            must_bite={"pub/sub kills": 2500, "pub/sub connections cut": 2500},
            may_end=frozenset(),
        ),
        Scenario(
            name="network",
            seconds=180,
            proxied=True,
            lanes=(
                Lane(choices=_NETWORK, pause_s=(0.1, 1)),
                Lane(choices=((faults.drop_replies, 3), (faults.partition, 2)), pause_s=(0.1, 1)),
            ),
            must_bite={"pieces delayed": 1, "replies dropped": 1, "cuts": 1, "half-closes": 1, "pieces held": 1,
                       "worker partitions": 1, "edge partitions": 1},
        ),
        Scenario(
            name="server",
            seconds=180,
            lanes=(
                Lane(
                    choices=((faults.sleep_redis, 2), (faults.fill_redis, 2), (faults.flush_functions, 2)),
                    pause_s=(0.5, 3),
                ),
            ),
            must_bite={"Redis sleeps": 1, "memory full": 1, "OOM refusals": 1, "functions flushed": 1},
        ),
        Scenario(
            name="flush",
            seconds=60,
            lanes=(Lane(choices=((faults.flush_all, 1),), pause_s=(4, 8)),),
            must_bite={"everything flushed": 1, "rooms resynced": 1},
        ),
        Scenario(
            name="storm",
            seconds=300,
            proxied=True,
            slow=0.1,
            lanes=(
                Lane(choices=((faults.kill, 4), (faults.end_edge, 1)), pause_s=(0.5, 3)),
                Lane(choices=((faults.freeze_worker, 2), (faults.freeze_edge, 1)), pause_s=(1, 6)),
                Lane(choices=_NETWORK, pause_s=(0.2, 2)),
                Lane(choices=_SERVER, pause_s=(1, 5), in_turn=True),
                Lane(choices=((faults.roll_workers, 1),), pause_s=(15, 30)),
            ),
            must_bite={"worker kills": 1, "edge kills": 1, "worker freezes": 1, "Redis kills": 1, "pub/sub kills": 1,
                       "Redis sleeps": 1, "memory full": 1, "functions flushed": 1, "replies dropped": 1,
                       "pieces held": 1, "pieces delayed": 1, "cuts": 1, "half-closes": 1, "worker partitions": 1,
                       "edge partitions": 1, "rolling restarts": 1, "rooms taken over": 1},
        ),
        Scenario(
            name="quick",
            seconds=11,
            rooms=40,
            rate_hz=250,
            proxied=True,
            slow=0.1,
            lanes=(
                Lane(
                    choices=((faults.kill_worker, 1), (faults.kill_edge, 1), (faults.roll_worker, 1)),
                    pause_s=(0.3, 0.8),
                    in_turn=True,
                ),
                Lane(choices=((faults.freeze_worker, 1),), pause_s=(0.1, 0.3), most=2),
                Lane(choices=_NETWORK, pause_s=(0.1, 0.4), in_turn=True),
                Lane(choices=_SERVER, pause_s=(0.2, 0.5), in_turn=True),
            ),
            must_bite={"worker kills": 1, "edge kills": 1, "workers rolled": 1, "worker freezes": 1,
                       "pub/sub kills": 1, "functions flushed": 1, "Redis kills": 1, "OOM refusals": 1,
                       "replies dropped": 1, "pieces held": 1, "rooms taken over": 1},
        ),
    )
}  # fmt: skip


def scaled(scenario: Scenario, *, seconds: float, rooms: int = 0, rate_hz: float = 0.0) -> Scenario:
    """Return a scenario made shorter, or smaller; of a shorter one as much less must bite."""
    share = min(1.0, seconds / scenario.seconds)
    return dataclasses.replace(
        scenario,
        seconds=seconds,
        rooms=rooms or scenario.rooms,
        rate_hz=rate_hz or scenario.rate_hz,
        must_bite={name: max(1, int(least * share)) for name, least in scenario.must_bite.items()},
    )
