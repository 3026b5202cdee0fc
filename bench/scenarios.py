"""The load scenarios, and the floor each figure of Innkeeper is judged by."""

from typing import Literal, NamedTuple

SYSTEMS = ("baseline", "innkeeper", "innkeeper-raw")


class Floor(NamedTuple):
    """What a figure must reach.

    Attributes:
        figure: ``ratio`` is messages per second over the baseline's and must be at least the limit; the others must
            be at most the limit, ``p99_ms`` at most twice the baseline's where that is above half the limit.
        limit: In the figure's own unit.
    """

    figure: Literal["ratio", "p99_ms", "kb_per_connection"]
    limit: float

    def __str__(self) -> str:
        return {
            "ratio": f">= {self.limit:g} x",
            "p99_ms": f"p99 <= {self.limit:g} ms",
            "kb_per_connection": f"<= {self.limit:g} kB",
        }[self.figure]


class Scenario(NamedTuple):
    """Who is in how many rooms, who sends, and what opens the next message.

    Attributes:
        client_count: Clients in each room, spread evenly over the urls.
        sender_count: How many of them send.
        in_flight_count: Messages a sender has out at once; the next goes when all clients of the room have one.
            0 where the senders are paced.
        rate_hz: Messages per second of each sender where paced.
        floor: None where only faults are judged.
    """

    name: str
    title: str
    kind: str
    room_count: int
    client_count: int
    sender_count: int
    in_flight_count: int
    rate_hz: float
    floor: Floor | None


_ALL = (
    Scenario("S1", "20 rooms x 10 clients, 5 msg/s each", "echo", 20, 10, 10, 0, 5.0, Floor("p99_ms", 4.0)),
    Scenario("S2x", "50 rooms x 2 clients, 8 in flight each", "echo", 50, 2, 2, 8, 0.0, Floor("ratio", 0.6)),
    Scenario("S2x1", "50 rooms x 2 clients, 1 in flight each", "echo", 50, 2, 2, 1, 0.0, Floor("ratio", 0.3)),
    Scenario("S2b", "1 hot room, 10 clients, 16 in flight each", "echo", 1, 10, 10, 16, 0.0, Floor("ratio", 1.2)),
    Scenario("S3s", "1 sender to 1,000 clients, 8 in flight", "echo", 1, 1000, 1, 8, 0.0, Floor("ratio", 1.5)),
    Scenario("S3p", "1 sender to 1,000 clients, 20 msg/s", "echo", 1, 1000, 1, 0, 20.0, None),
    Scenario("S4", "5,000 idle connections in 500 rooms", "echo", 500, 10, 0, 0, 0.0, Floor("kb_per_connection", 20.0)),
    Scenario("S5", "counter, 20 rooms x 2 clients, 8 in flight", "counter", 20, 2, 2, 8, 0.0, Floor("ratio", 0.6)),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}


def room_kind(scenario: Scenario, system: str) -> str | None:
    """Return the kind of room a system serves a scenario with, None where it has none."""
    if system != "innkeeper-raw":
        return scenario.kind
    return "rawecho" if scenario.kind == "echo" and scenario.sender_count else None
