"""What a program keeps of a room's outputs."""

import re
from pathlib import Path

import pytest

import innkeeper
from innkeeper.outside import Innkeeper, OutsideRoom, SyncRoom
from innkeeper.outside.ear import Output, Tap

PAGE = Path(__file__).parents[3] / "docs" / "outside.md"


async def test_a_tap_that_runs_over_says_so() -> None:
    """Ten thousand outputs wait; with the next one all are given up for a resync, and what follows is kept."""
    tap = Tap()
    for n in range(1, 10_003):
        tap.put(Output(f"{n}-1", "text *", b"%d" % n))
    first = tap.take()
    assert (first and first.kind, first and first.id) == ("resync", "10001-1")
    second = await tap.get()
    assert (second.kind, second.json(), second.text()) == ("text", 10_002, "10002")
    assert tap.take() is None


def test_the_two_kinds_of_rooms_offer_the_same() -> None:
    """Every call of the one is a call of the other, and stands on the page."""
    calls = {name for name in vars(OutsideRoom) if not name.startswith("_")}
    assert calls == {name for name in vars(SyncRoom) if not name.startswith("_")}
    assert calls == set(re.findall(r"^\| `(\w+)\(", PAGE.read_text(), re.MULTILINE))


def test_the_package_offers_it() -> None:
    """It is imported from the package like Room."""
    assert innkeeper.Innkeeper is Innkeeper
    assert set(innkeeper.__all__) <= set(vars(innkeeper))


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan")])
def test_timeouts_are_seconds(timeout_s: float) -> None:
    """Neither nothing nor for ever."""
    for connect in (Innkeeper.connect, Innkeeper.connect_sync):
        with pytest.raises(ValueError, match="timeout_s"):
            connect(timeout_s=timeout_s)
