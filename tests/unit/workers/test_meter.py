"""What a room is thought to take of the core: its turns, and of the rest its part by its events."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from innkeeper_workers.meter import Meter


def metered(cpu: float, **rooms: tuple[float, float]) -> tuple[Meter, dict[str, float]]:
    """Return a meter that has seen rooms with so many events a second and so much time in turns; and their costs."""
    meter = Meter(cast("Any", SimpleNamespace(loop=SimpleNamespace(time=lambda: 0.0), owners={})))
    meter.cpu = cpu
    meter.events_s = {cast("Any", name): events for name, (events, _) in rooms.items()}
    meter.busy = {cast("Any", name): busy for name, (_, busy) in rooms.items()}
    return meter, {str(name): cost for name, cost in meter.costs().items()}


def test_an_expensive_room_costs_what_it_takes() -> None:
    """However few its events are beside those of cheap rooms; what no turn took goes by the events."""
    _, costs = metered(0.6, heavy=(3.0, 0.5), **{f"cheap{n}": (9.7, 0.0) for n in range(10)})
    assert costs["heavy"] == pytest.approx(0.503)
    assert costs["cheap0"] == pytest.approx(0.0097)
    assert sum(costs.values()) == pytest.approx(0.6)


def test_time_that_the_process_did_not_have_counts_by_its_parts() -> None:
    """Turns that stood still while another process had the core make no room dearer than it is."""
    _, costs = metered(0.3, a=(1.0, 0.4), b=(1.0, 0.2))
    assert costs == {"a": pytest.approx(0.2), "b": pytest.approx(0.1)}


def test_rooms_without_events_cost_nothing() -> None:
    """Nor is anything divided by them."""
    _, costs = metered(0.1, a=(0.0, 0.0))
    assert costs == {"a": 0.0}


async def test_seconds_are_smoothed_and_new_rooms_begin_at_nothing() -> None:
    """A room that came with a history is not charged for it; one that stays nears what it does."""
    loop = asyncio.get_running_loop()
    owner = SimpleNamespace(read_iseq=1_000, busy_s=500.0)
    fleet = SimpleNamespace(loop=loop, owners={"a/1": cast("Any", HashableOwner(owner))})
    meter = Meter(cast("Any", fleet))
    await meter.second()
    (first,) = meter.busy.values()
    assert (first, meter.events_s[next(iter(meter.events_s))]) == (0.0, 0.0)
    owner.read_iseq, owner.busy_s = 1_100, 500.5
    await meter.second()
    (second,) = meter.busy.values()
    assert 0.1 < second < 0.16  # three tenths of half a core


class HashableOwner:
    """An owner that can be a key; what it counts is the namespace's."""

    def __init__(self, counts: SimpleNamespace) -> None:
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._counts, name)
