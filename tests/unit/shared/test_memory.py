"""After a burst, what lives on is out of the collector's sight; what has gone is found again once it is as much."""

import gc
from collections.abc import Iterator

import pytest

from innkeeper.memory import Thrift


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    yield
    gc.unfreeze()


class Knot:
    """Refers to itself."""

    count = 0

    def __init__(self) -> None:
        self.me = self
        Knot.count += 1

    def __del__(self) -> None:
        Knot.count -= 1


def settled(thrift: Thrift) -> None:
    """Let a burst be over."""
    thrift.settle()
    thrift.settle()


def test_what_lives_is_not_looked_at_again() -> None:
    """Five hundred that were made are frozen; two hundred that went are garbage until as many have gone as live."""
    thrift, knots = Thrift(), [Knot() for _ in range(500)]
    before = gc.get_freeze_count()
    for _ in knots:
        thrift.made()
    settled(thrift)
    assert gc.get_freeze_count() > before
    for _ in range(200):
        knots.pop()
        thrift.dropped()
    settled(thrift)
    assert Knot.count == 500
    for _ in range(200):
        knots.pop()
        thrift.dropped()
    settled(thrift)
    assert Knot.count == 100


def test_little_is_left_alone() -> None:
    """Fewer than two hundred are no burst, and one that goes on is not over."""
    thrift = Thrift()
    before = gc.get_freeze_count()
    for _ in range(199):
        thrift.made()
    settled(thrift)
    for _ in range(5):
        for _ in range(100):
            thrift.made()
        thrift.settle()
    assert gc.get_freeze_count() == before
