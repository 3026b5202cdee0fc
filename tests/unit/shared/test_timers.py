"""Timers as values: what a schedule means, what follows a run or a failure, and the form of the rows."""

import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from innkeeper import InnkeeperError, TimerInvalid
from innkeeper.timers import (
    GraceRow,
    Timer,
    TimerRow,
    check_name,
    cron_after,
    following,
    planned,
    read_row,
    rearmed,
    retried,
)

# 2026-11-26 12:00:00.5 UTC, a Thursday
NOW_MS = 1_795_694_400_500
NOW_US = NOW_MS * 1000 + 250


def plan(**when: Any) -> TimerRow:
    """Return the row of a timer set now."""
    return planned("7-1.1", now_us=NOW_US, payload=b"null", **when)


def every(**parts: Any) -> TimerRow:
    """Return a row of a timer that runs every second since NOW."""
    return TimerRow(**{"id": "a", "due_ms": NOW_MS, "every_ms": 1000, **parts})


# --- what a schedule asks for -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("when", "due_ms"),
    [
        ({"after": 0}, NOW_MS + 1),  # never before the whole time has passed
        ({"after": 1.5}, NOW_MS + 1501),
        ({"at": 5}, 5000),
        ({"at": 12.3456}, 12346),
        ({"at": datetime(2026, 11, 26, 12, 0, 1, tzinfo=UTC)}, NOW_MS + 500),
        ({"at": datetime(2026, 11, 26, 14, 0, 1, tzinfo=timezone(timedelta(hours=2)))}, NOW_MS + 500),
        ({"at": datetime(1900, 1, 1, tzinfo=UTC)}, 0),
        ({"every": 2}, NOW_MS + 2001),
        ({"every": 2, "after": 1}, NOW_MS + 1001),
        ({"every": 2, "at": 7}, 7000),
        ({"cron": "*/5 * * * *"}, NOW_MS - 500 + 300_000),
        ({"cron": "1 12 * * *"}, NOW_MS - 500 + 60_000),
        ({"cron": "0 12 * * *"}, NOW_MS - 500 + 86_400_000),
        ({"cron": "0 0 29 2 *"}, 1_835_395_200_000),
        ({"cron": " 0  12 *   * fri "}, NOW_MS - 500 + 86_400_000),
    ],
)
def test_when_a_timer_is_due(when: dict[str, Any], due_ms: int) -> None:
    """Each way to say it means one moment of the server's clock."""
    assert plan(**when).due_ms == due_ms


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ({}, "say when"),
        ({"after": -0.1}, "not below 0"),
        ({"after": math.nan}, "a number"),
        ({"after": math.inf}, "a number"),
        ({"after": True}, "a number"),
        ({"after": "5"}, "a number"),
        ({"after": 1e15}, "9999"),
        ({"after": 252e9}, "9999"),
        ({"after": 1, "at": 1}, "not both"),
        ({"at": math.nan}, "a number"),
        ({"at": -1}, "1970"),
        ({"at": 1e13}, "9999"),
        ({"at": "tomorrow"}, "a number"),
        ({"at": datetime(2030, 1, 1)}, "time zone"),  # noqa: DTZ001 - the point
        ({"every": 0.019}, "at least 0.02"),
        ({"every": 0}, "at least"),
        ({"every": -1}, "not below 0"),
        ({"every": math.nan}, "a number"),
        ({"cron": ""}, "five fields"),
        ({"cron": 5}, "five fields"),
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "0 * * * * *"}, "five fields"),
        ({"cron": "60 * * * *"}, "minute"),
        ({"cron": "*/0 * * * *"}, "minute"),
        ({"cron": "a b c d e"}, "minute"),
        ({"cron": "0 0 31 2 *"}, "day"),
        ({"cron": "0 0 L/2 * x"}, "day"),
        ({"cron": "* * * * *", "after": 1}, "alone"),
        ({"cron": "* * * * *", "every": 1}, "alone"),
        ({"after": 1, "missed": "never"}, "missed"),
        ({"after": 1, "missed": None}, "missed"),
    ],
)
def test_schedules_that_make_no_sense(when: dict[str, Any], says: str) -> None:
    """Each is refused with a text that says what is wrong; the error is a ValueError and one of ours."""
    with pytest.raises(TimerInvalid, match=says) as caught:
        plan(**when)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, InnkeeperError)


@pytest.mark.parametrize("name", ["", "x" * 129, "é" * 65, "~grace:x", "~", 5, None, b"x", "\ud800"])
def test_names_that_are_refused(name: object) -> None:
    """A name is text of 1 to 128 bytes; those with a tilde are the framework's."""
    with pytest.raises(TimerInvalid, match="timer name"):
        check_name(name)


@pytest.mark.parametrize("name", ["x", "x" * 128, "é" * 64, "a b/c~", "\0"])
def test_names_that_are_taken(name: str) -> None:
    """Everything else is a name."""
    assert check_name(name) == name


# --- rows -------------------------------------------------------------------------------------------------------------
ROWS = st.builds(
    TimerRow,
    id=st.from_regex(r"[0-9]{1,9}-[0-9]{1,16}\.[0-9]{1,4}", fullmatch=True),
    due_ms=st.integers(0, 253_402_300_799_000),
    payload=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(-1e300, 1e300) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ).map(orjson.dumps),
    every_ms=st.just(0) | st.integers(20, 10**12),
    cron=st.just(""),
    missed=st.just("skip"),
)  # fmt: skip


@given(ROWS)
def test_a_row_is_read_as_it_was_written(row: TimerRow) -> None:
    """Nothing of a row is lost in Redis, its payload byte for byte."""
    assert read_row("x", row.to_row()) == row


@pytest.mark.parametrize(
    "row",
    [
        every(missed="all", tries=3, tick_ms=NOW_MS - 5),
        TimerRow("a", 5, b"[]", cron="* * * * *", missed="once"),
        GraceRow("a", 5, "c-1", 3, "e-1"),
    ],
)
def test_every_kind_of_row(row: TimerRow | GraceRow) -> None:
    """Rows of all kinds are read as written, and begin as the act fire wants them."""
    data = row.to_row()
    assert read_row("~grace:s" if isinstance(row, GraceRow) else "x", data) == row
    assert data.startswith(b'{"id":"a","due":%d,' % row.due_ms)


def test_a_row_that_was_fired() -> None:
    """The mark that the act sets is read; a row that is written is never marked."""
    row = read_row("x", b'{"fired":true,' + every().to_row()[1:])
    assert row == every(is_fired=True)
    assert isinstance(row, TimerRow)
    assert b"fired" not in row.to_row()


@pytest.mark.parametrize(
    "row", [b"", b"{}", b"[]", b"5", b'{"id":"a"}', b'{"id":"a","due":"soon"}', b'{"id":"a","due":null}']
)
@pytest.mark.parametrize("name", ["x", "~grace:s"])
def test_rows_that_are_none(row: bytes, name: str) -> None:
    """The text names the timer."""
    with pytest.raises(ValueError, match=name):
        read_row(name, row)


def test_what_a_handler_sees() -> None:
    """Seconds, and the payload as a value."""
    row = TimerRow("a", 1500, b'{"x":1}', every_ms=250)
    assert row.shown("x") == Timer("x", 1.5, {"x": 1}, 0.25, None)
    assert TimerRow("a", 0, cron="* * * * *").shown("y") == Timer("y", 0.0, None, None, "* * * * *")


# --- what follows -----------------------------------------------------------------------------------------------------
def test_a_single_run_is_followed_by_nothing() -> None:
    """A timer without rhythm is gone."""
    assert following(TimerRow("a", 5), "b", NOW_MS) is None


@pytest.mark.parametrize(
    ("missed", "late_ms", "due_ms"),
    [
        ("skip", 0, 1000), ("once", 0, 1000), ("all", 0, 1000),
        ("skip", 999, 1000), ("once", 999, 1000), ("all", 999, 1000),
        ("skip", 1000, 2000), ("once", 1000, 1000), ("all", 1000, 1000),
        ("skip", 5300, 6000), ("once", 5300, 5000), ("all", 5300, 1000),
        ("skip", -50, 1000), ("once", -50, 1000), ("all", -50, 1000),
    ],
)  # fmt: skip
def test_the_next_tick(missed: Any, late_ms: int, due_ms: int) -> None:
    """Ticks keep their grid; of those that were missed none, the last or each is due at once."""
    after = following(every(missed=missed), "b", NOW_MS + late_ms)
    assert after == every(id="b", missed=missed, due_ms=NOW_MS + due_ms)


@given(st.integers(20, 10_000), st.integers(0, 200_000), st.sampled_from(["skip", "once", "all"]))
def test_policies_run_as_often_as_they_say(every_ms: int, away_ms: int, missed: Any) -> None:
    """After a time away the first tick runs late; of those after it none, one for all of them, or each."""
    passed = away_ms // every_ms  # ticks after the first
    assert _runs_after(every_ms, away_ms, missed) == {"skip": 1, "once": 1 + min(passed, 1), "all": 1 + passed}[missed]


@pytest.mark.parametrize(("missed", "runs"), [("skip", 1), ("once", 2), ("all", 5)])
def test_a_pause_of_five_runs(missed: Any, runs: int) -> None:
    """It is followed by as many as the page for authors says."""
    assert _runs_after(1000, 4300, missed) == runs
    page = (Path(__file__).parents[3] / "docs" / "handlers.md").read_text("utf-8")
    assert "after a pause of five runs there are 1, 2 or 5" in page


def _runs_after(every_ms: int, away_ms: int, missed: Any) -> int:
    """Return how often a timer runs at once, whose first tick was so long ago."""
    row = every(every_ms=every_ms, missed=missed, due_ms=NOW_MS)
    runs, back_ms = 0, NOW_MS + away_ms
    while row.due_ms <= back_ms:
        found = following(row, "b", back_ms)
        assert found is not None
        assert (found.due_ms - NOW_MS) % every_ms == 0
        assert found.due_ms > row.due_ms
        row, runs = found, runs + 1
    return runs


@pytest.mark.parametrize(("missed", "due_ms"), [("skip", 180_000), ("once", 130_000), ("all", 60_000)])
def test_the_next_moment_of_cron(missed: Any, due_ms: int) -> None:
    """Two minutes were missed: none is made up for, one now, or each in turn."""
    at_ms = NOW_MS - 500
    row = TimerRow("a", at_ms, cron="* * * * *", missed=missed)
    assert following(row, "b", at_ms + 130_000) == TimerRow("b", at_ms + due_ms, cron="* * * * *", missed=missed)
    assert following(row, "b", at_ms + 100) == TimerRow("b", at_ms + 60_000, cron="* * * * *", missed=missed)


def test_cron_is_utc() -> None:
    """Hours are those of UTC wherever the worker stands."""
    assert (
        datetime.fromtimestamp(cron_after("30 3 * * *", NOW_MS) / 1000, UTC).isoformat() == "2026-11-27T03:30:00+00:00"
    )


def test_failures() -> None:
    """A tick is tried again after 2 s, then twice as long each time; after the eighth try no more."""
    row, waits, now_ms = every(), [], NOW_MS + 70
    while (after := retried(row, "b", now_ms)) is not None:
        waits.append((after.due_ms - now_ms) / 1000)
        assert (after.tick_ms, after.tries) == (NOW_MS, len(waits))
        row, now_ms = after, after.due_ms + 5
    assert waits == [2, 4, 8, 16, 32, 64, 128]
    assert following(row, "c", now_ms) == every(id="c", due_ms=NOW_MS + (now_ms - NOW_MS) // 1000 * 1000 + 1000)


def test_a_lost_event() -> None:
    """The timer fires anew, as what it was."""
    row = every(is_fired=True, tries=2, tick_ms=5)
    assert rearmed(row, "b") == every(id="b", tries=2, tick_ms=5)
