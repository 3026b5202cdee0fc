"""After a burst, what lives on is out of the collector's sight; what has gone is found again once it is as much."""

import gc
from collections.abc import Iterator

import pytest

from innkeeper.memory import Thrift


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.collect()


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
    """A few a second are no burst, however long they go on, and fewer than two hundred give no memory back."""
    thrift = Thrift()
    before = gc.get_freeze_count()
    for _ in range(20):
        for _ in range(31):
            thrift.made()
        thrift.settle()
    assert gc.get_freeze_count() == before


def test_a_burst_is_taken_out_of_sight_while_it_lasts() -> None:
    """What came since the last look is looked at alone; what waits to be made counts, too."""
    thrift, knots = Thrift(), list[Knot]()
    gc.freeze()
    for n in range(64):
        knots.append(Knot())
        (thrift.made if n % 2 else thrift.grew)()
    assert not any(each is knot for each in gc.get_objects() for knot in knots[:64])
    knots.append(Knot())
    assert any(each is knots[-1] for each in gc.get_objects())
