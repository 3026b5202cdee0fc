"""Numbers of room classes that make no sense are refused where the class is written."""

from typing import Any

import pytest

from innkeeper import Room

WRONG = [
    *[
        (name, value)
        for name in ("message_bytes", "state_bytes", "backlog_count")
        for value in (0, -1, 1.5, "64k", None)
    ],
    *[(name, value) for name in ("handler_s", "idle_s", "request_s") for value in (0, -1, "5", None, True)],
    ("message_bytes", 1_048_577),
    ("request_s", 301),
    ("handler_s", float("inf")),
    ("idle_s", float("nan")),
    ("max_connections", 0),
    ("grace_s", -1),
    ("grace_s", 90_000),
    ("grace_s", None),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_limit_that_makes_no_sense(name: str, value: Any) -> None:
    """The error names the class, the attribute and the value."""
    with pytest.raises(ValueError, match=f"Odd.{name} = "):
        type("Odd", (Room,), {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("idle_s", float("inf")), ("idle_s", 1), ("grace_s", 0), ("handler_s", 0.1), ("max_connections", None)],
)
def test_limits_that_are_fine(name: str, value: Any) -> None:
    """A room that never sleeps, sessions without grace, and the like."""
    assert getattr(type("Even", (Room,), {name: value}), name) == value
