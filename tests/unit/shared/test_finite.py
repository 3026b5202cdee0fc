"""Values that JSON would change: refused where they would be stored or sent."""

import dataclasses
import enum
import math
import uuid
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from harness.activations import row, staged
from innkeeper import Connection, Room, codec, jobs, posting
from innkeeper.errors import JobInvalid, OutputInvalid, StateInvalid
from innkeeper.finite import is_finite
from innkeeper.request import Response
from innkeeper.state import State, encode

NAN, INF = math.nan, math.inf


@dataclasses.dataclass
class Point:
    """A pair."""

    x: float = 0.0
    y: Any = None


class Colour(enum.Enum):
    """A member has a value that is another type's."""

    RED = "red"


class Level(enum.IntEnum):
    """A member is equal to its number."""

    LOW = 1


ODD = [NAN, INF, -INF, [None, NAN], {"a": {"b": (1, INF)}}, Point(NAN), Point(1.0, [Point(INF)]), OrderedDict(a=-INF)]
PLAIN: list[Any] = [
    None, "null", [None], {"null": None}, {"a": [1.5, None, "null", -0.0, 1e308]}, Point(), OrderedDict(a=None),
    [None, 0xCB7FF00000000000, 0xCBFFF8], ["\N{LATIN SMALL LETTER IOTA}\x7f", None], (None, {"a": ()}),
    [None, uuid.UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC), Colour.RED],
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_odd_floats_are_found(value: Any) -> None:
    """NaN and the infinities are found wherever they stand, and no place takes them."""
    assert not is_finite(value, orjson.dumps(value))
    with pytest.raises(StateInvalid):
        encode(value, "it")
    for refused in (
        lambda: codec.encode("json", value),
        lambda: posting.encode_post("a/b", value),
        lambda: Response([value]),
    ):
        with pytest.raises(OutputInvalid, match="NaN and Infinity would arrive"):
            refused()
    with pytest.raises(JobInvalid, match="NaN"):
        jobs.job_data("j", (1,), {"x": value}, timeout_s=1)


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_everything_else_passes(value: Any) -> None:
    """What JSON keeps, or may turn into text on its way to a client, is sent."""
    assert is_finite(value, orjson.dumps(value))
    assert codec.encode("json", value) == (False, orjson.dumps(value))


@pytest.mark.parametrize(
    "value",
    [
        NAN,
        [INF],
        Point(),
        [Point()],
        datetime(2026, 1, 1, tzinfo=UTC),
        {"a": datetime(2026, 1, 1, tzinfo=UTC).date()},
        uuid.UUID(int=1),
        Colour.RED,
    ],
    ids=repr,
)
async def test_state_refuses_what_would_come_back_as_something_else(value: Any) -> None:
    """A key of the state, conn.state and a timer's payload refuse it with StateInvalid, and name where it stands."""

    class Keeper(Room):
        def on_message(self, conn: Connection, message: Any) -> None:
            if message == "state":
                self.state["it"] = value
            elif message == "conn":
                conn.state = value
            else:
                self.schedule("it", after=1, payload=value)

        def on_timer(self, name: str, payload: Any) -> None:
            raise NotImplementedError

    stage = await staged(Keeper, members={"c1": row(1)})
    for message, where in [("state", "self.state['it']"), ("conn", "conn.state of c1"), ("timer", "timer 'it'")]:
        turn = await stage.say(message)
        assert where in turn.dead[0].error
        assert "cannot be stored as JSON" in turn.dead[0].error
        assert (turn.state_set, turn.members_set, turn.timers_set) == ({}, {}, {})


def test_members_of_enums_that_are_numbers_or_text_are_kept() -> None:
    """They are equal to what comes back."""
    state = State({}, 100)
    state["level"] = Level.LOW
    assert state.settle() == ({"level": b"1"}, set())


def test_only_changed_keys_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was only looked at is encoded and compared, no more."""
    state = State({"a": b"[null]"}, 100)
    monkeypatch.setattr("innkeeper.state.check_kept", lambda *_: pytest.fail("looked"))
    assert state["a"] == [None]
    assert state.settle() == ({}, set())


def test_values_too_odd_for_the_fast_look_are_walked_through() -> None:
    """What MessagePack cannot hold is looked at value by value."""

    class Text(str):
        __slots__ = ()

    class Names(dict[str, Any]):
        pass

    for value in ([Text("x"), None], Names(a=Text("null"), b=None)):
        assert is_finite(value, orjson.dumps(value))
    assert not is_finite([Text("x"), NAN], b"[null]")
    assert not is_finite([object(), NAN], b"[null]")
