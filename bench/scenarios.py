"""The load scenarios; NUMBERS in the project's studies used the same."""

from typing import NamedTuple


class Scenario(NamedTuple):
    """Rooms, clients in each, who sends, and what opens the next message.

    Attributes:
        in_flight: Messages a sender has out at once; the next goes when all clients of the room have one. 0: paced.
        rate_hz: Messages per second of each sender, where paced.
        senders: How many clients of each room send.
        floor: What the figure is judged by (see ``judge`` in run.py).
    """

    name: str
    kind: str
    rooms: int
    clients: int
    senders: int
    in_flight: int
    rate_hz: float
    floor: str


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("S1", "echo", 20, 10, 10, 0, 5.0, "p99 <= 4 ms"),
        Scenario("S2x", "echo", 50, 2, 2, 8, 0.0, ">= 0.6 x"),
        Scenario("S2x1", "echo", 50, 2, 2, 1, 0.0, ">= 0.3 x"),
        Scenario("S2b", "echo", 1, 10, 10, 16, 0.0, ">= 1.2 x"),
        Scenario("S3s", "echo", 1, 1000, 1, 8, 0.0, ">= 1.5 x"),
        Scenario("S4", "echo", 500, 10, 0, 0, 0.0, "<= 20 kB"),
        Scenario("S5", "counter", 20, 2, 2, 8, 0.0, ">= 0.6 x"),
    )
}
