"""How far behind a room is, and when a worker counts as ready."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from innkeeper.meters import WorkerMeters
from innkeeper.wire import InboxEvent
from innkeeper_workers.metrics import WorkerSource, facts_of, lag_of

NOW_S = 1_000_000.0


def event(iseq: int, age_s: float) -> InboxEvent:
    """Return an event that was accepted so long ago."""
    return InboxEvent(b"%d-%d" % (iseq, (NOW_S - age_s) * 1_000_000), iseq, b"text", b"c", b"e", b"", 0, 0, b"")


def owner(**fields: Any) -> Any:
    """Return an owner that has read up to 5 and has nothing to do."""
    turn = SimpleNamespace(consumed=[])
    idle: dict[str, Any] = {
        "known_iseq": 5,
        "read_iseq": 5,
        "unsettled": None,
        "pending": [],
        "inside": None,
        "used_at_s": 90.0,
    }
    return SimpleNamespace(activation=SimpleNamespace(turn=turn), **{**idle, **fields})


@pytest.mark.parametrize(
    ("fields", "events", "age_s"),
    [
        ({}, 0, 0),
        ({"read_iseq": 7, "known_iseq": 5}, 0, 0),  # what the bell brought counts as known
        ({"pending": [event(4, 3), event(5, 1)]}, 2, 3),
        ({"unsettled": event(3, 4), "pending": [event(5, 1)]}, 3, 4),  # 3 and 4 are in the turn under way
        ({"known_iseq": 9}, 4, 10),  # not read: at least since the room was last heard of
        ({"known_iseq": 9, "pending": [event(5, 2)]}, 5, 2),
        ({"unsettled": event(3, 4), "inside": event(4, 3), "pending": [event(5, 1)]}, 2, 3),  # 3 was committed early
    ],
)
def test_lag_is_what_was_accepted_and_not_committed(fields: dict[str, Any], events: int, age_s: float) -> None:
    """Events count from the first that is not committed to the last that is known, and the first one's age."""
    found = lag_of(owner(**fields), now_s=100.0, server_now_s=NOW_S)
    assert found.events == events
    assert found.age_s == pytest.approx(age_s, abs=0.001)


def test_clocks_apart_make_no_negative_age() -> None:
    """The server's time is known to some ms only."""
    assert lag_of(owner(pending=[event(5, -0.01)]), now_s=100.0, server_now_s=NOW_S).age_s == 0


def fleet(**fields: Any) -> Any:
    """Return a fleet that is ready."""
    meters = WorkerMeters()
    meters.heard_at_s = 99.0
    whole = {"draining": False, "is_registered": True, "meters": meters, "incarnation": "w-1", "owners": {}}
    return SimpleNamespace(loop=SimpleNamespace(time=lambda: 100.0), **{**whole, **fields})


def test_readiness_says_what_is_missing() -> None:
    """A worker is ready while it is registered, hears of Redis and keeps its rooms."""
    assert WorkerSource(fleet(), cast("Any", None)).missing() == []
    silent = fleet()
    silent.meters.heard_at_s = 90.0
    for lacking, word in (
        (fleet(draining=True), "hands over"),
        (fleet(is_registered=False), "registered"),
        (silent, "10 s"),
    ):
        (why,) = WorkerSource(lacking, cast("Any", None)).missing()
        assert word in why


def test_logs_name_owner_and_token_of_owned_rooms_only() -> None:
    """A line about a room that is not here has no owner."""
    assert facts_of(fleet(), "chat/a") == facts_of(fleet(), "") == {"incarnation": "w-1"}
