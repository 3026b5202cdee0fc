"""Counting: what histograms and counters take."""

import pytest

from innkeeper.errors import LeaseLost
from innkeeper.functions import Claimed
from innkeeper.meters import EdgeMeters, Histogram, KindMeters, WorkerMeters
from innkeeper.turn import Turn


def test_a_value_falls_into_the_first_range_that_holds_it() -> None:
    """Bounds are inclusive, and what is above the last one is counted too."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 99.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.sum == pytest.approx(103.5)
    assert histogram.count == 5


def test_a_commit_is_counted_with_what_it_carries() -> None:
    """Events, outputs and dead events of a turn count when it is committed."""
    meters, turn = KindMeters(), Turn()
    turn.consumed = [b"1-1", b"2-1"]
    turn.outputs = [(b"text *", b"x")]
    meters.committing(turn)
    assert (meters.commits, meters.events, meters.outputs, meters.dead) == (1, 2, 1, 0)


@pytest.mark.parametrize(
    ("taken_from", "meta", "is_own", "lapsed"),
    [
        ("", {b"marked": b"3"}, False, 1),
        ("", {b"marked": b"3"}, True, 0),  # it has cut a hook, and claims its own room anew
        ("w-1", {b"marked": b"3"}, False, 0),  # counted where it was taken
        ("", {}, False, 0),
    ],
)
def test_an_unclean_claim_is_a_takeover(taken_from: str, meta: dict[bytes, bytes], is_own: bool, lapsed: int) -> None:
    """A room with events whose owner vanished together with its lock counts as taken over."""
    meters = WorkerMeters()
    meters.claimed(Claimed("1:2", meta, {}, {}, {}, 0, 0, taken_from), is_own=is_own)
    assert meters.claims == 1
    assert meters.takeovers["lapsed"] == lapsed


def test_refusals_have_few_names() -> None:
    """Whatever a room answers, there are no more than some fifty labels."""
    meters = EdgeMeters()
    for number in range(1_000):
        meters.reject(f"made_up_{number}")
    for error in ("made_up_3", "Not A Name", "x" * 41, ""):
        meters.reject(error)
    assert len(meters.rejections) == 51
    assert meters.rejections["made_up_3"] == 2
    assert meters.rejections["other"] == 950 + 3


def test_rooms_end_in_one_way() -> None:
    """A room is given back, lost, or its task has failed."""
    meters = WorkerMeters()
    meters.ended("idle", None, is_dropped=False)
    meters.ended("", LeaseLost("a/b", "token"), is_dropped=False)
    meters.ended("", None, is_dropped=True)
    meters.ended("", ZeroDivisionError(), is_dropped=False)
    assert meters.releases == {"idle": 1}
    assert meters.failures == {"lost": 2, "failed": 1}
