"""``Room[Shape]``: a state that is an object of the user's class, written field by field."""

import datetime as dt
import uuid
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
import orjson
import pydantic
import pytest

from harness.activations import Stage, row, staged
from innkeeper import Connection, Room, StateInvalid
from innkeeper.state import State
from innkeeper.typed_state import Shape, TypedState


class Point(msgspec.Struct):
    """A part of a state."""

    x: int = 0


class StructBoard(msgspec.Struct, rename="camel"):
    """A state as a Struct, which calls its fields otherwise in JSON."""

    move_count: int = 0
    names: list[str] = []
    points: dict[int, Point] = {}
    ends_at: dt.datetime | None = None


@dataclass
class DataBoard:
    """A state as a dataclass."""

    move_count: int = 0
    names: list[str] = field(default_factory=list)
    points: dict[int, Point] = field(default_factory=dict)
    ends_at: dt.datetime | None = None


class ModelPoint(pydantic.BaseModel):
    """A part of a model."""

    x: int = 0


class ModelBoard(pydantic.BaseModel):
    """A state as a strict pydantic model with an alias."""

    model_config = pydantic.ConfigDict(strict=True, serialize_by_alias=True)

    move_count: int = pydantic.Field(default=0, alias="moveCount")
    names: list[str] = []
    points: dict[int, ModelPoint] = {}
    ends_at: dt.datetime | None = None


BOARDS: list[Any] = [StructBoard, DataBoard, ModelBoard]
AT = dt.datetime(2026, 11, 26, 1, 2, 3, tzinfo=dt.UTC)


def room_of(shape: Any) -> type[Room[Any]]:
    """Return a room with a state of that shape, which does as its messages say."""

    class Board(Room[shape]):
        state_bytes = 2_000

        def on_message(self, conn: Connection, message: str) -> None:  # noqa: ARG002 - the hook's signature
            exec(message, {**globals(), "state": self.state, "room": self})  # noqa: S102 - a test's own words

    return Board


async def stage_of(shape: Any, **stored: Any) -> Stage:
    """Return a stage of that room with the member c1."""
    return await staged(room_of(shape), state=stored, members={"c1": row(1)})


def object_of(stage: Stage) -> Any:
    """Return the object that hooks see."""
    return stage.activation.room.state


async def written(stage: Stage, *lines: str) -> dict[str, Any]:
    """Run lines in a hook; return the fields that its turn writes, decoded."""
    turn = await stage.say("\n".join(lines))
    assert turn.dead == [], turn.dead[0].traceback
    assert turn.state_del == set()
    return {name: orjson.loads(data) for name, data in turn.state_set.items()}


# --- the three kinds --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", BOARDS)
async def test_only_changed_fields_are_written(shape: Any) -> None:
    """Nested changes count, looks do not; each field is a key under the name it has in Python."""
    stage = await stage_of(shape)
    assert await written(stage, "state.move_count += 1") == {"move_count": 1}
    assert await written(stage, "state.names.append('ann')") == {"names": ["ann"]}
    assert await written(stage, "state.move_count, state.names, state.points") == {}
    assert await written(stage, "state.names.append('bob'); state.move_count = 1") == {"names": ["ann", "bob"]}
    assert await written(stage, "state.names.sort()") == {}
    assert await written(stage, "") == {}


@pytest.mark.parametrize("shape", BOARDS)
async def test_a_reload_gives_the_same_object(shape: Any) -> None:
    """Numbers as keys, nested objects and times come back as what they were, also in a strict model."""
    stage = await stage_of(shape)
    point = "ModelPoint" if shape is ModelBoard else "Point"
    await written(stage, f"state.points[7] = {point}(x=5); state.ends_at = AT; state.move_count = 3")
    first = stage.activation.room.state
    stored = {name: orjson.loads(data) for name, data in stage.activation.context.state.stored.items()}
    assert set(stored) == {"points", "ends_at", "move_count"}
    second: Any = (await stage_of(shape, **stored)).activation.room.state
    assert second == first
    assert second is not first
    assert (second.points[7].x, second.ends_at, second.move_count, second.names) == (5, AT, 3, [])


@pytest.mark.parametrize("shape", BOARDS)
async def test_a_failed_event_is_undone(shape: Any) -> None:
    """A hook that raises leaves the state as it was, for the next hook and in Redis."""
    stage = await stage_of(shape, move_count=5, names=["ann"])
    turn = await stage.say("state.move_count = 9; state.names.append('x'); state.points = None; raise OSError")
    assert (turn.state_set, len(turn.dead)) == ({}, 1)
    assert await written(stage, "room.seen = (state.move_count, state.names, state.points)") == {}
    assert stage.activation.room.seen == (5, ["ann"], {})  # type: ignore[attr-defined]
    assert await written(stage, "state.names.append('bob')") == {"names": ["ann", "bob"]}


@pytest.mark.parametrize("shape", BOARDS)
@pytest.mark.parametrize(
    "line",
    [
        "state.move_count = 'many'",
        "state.names.append(5)",
        "state.names.append(object())",
        "state.points['seven'] = 7",
        "state.move_count = float('nan')",
    ],
)
async def test_what_could_not_be_read_again_is_not_written(shape: Any, line: str) -> None:
    """A value of another type fails its event, not the next start of the room."""
    stage = await stage_of(shape, names=["ann"])
    turn = await stage.say(line)
    assert (turn.state_set, turn.state_del) == ({}, set())
    assert turn.dead[0].error.startswith(("the state does not fit", "self.state"))
    assert "StateInvalid" in turn.dead[0].traceback
    assert await written(stage, "state.names.append('bob')") == {"names": ["ann", "bob"]}


@pytest.mark.parametrize("shape", BOARDS)
async def test_a_state_over_its_limit(shape: Any) -> None:
    """The limit is that of the room, names and JSON together."""
    stage = await stage_of(shape)
    turn = await stage.say("state.names.append('x' * 3000)")
    assert turn.dead[0].error.startswith("the state would be")
    assert await written(stage, "state.names.append('x')") == {"names": ["x"]}


@pytest.mark.parametrize("shape", BOARDS)
async def test_unknown_stored_fields_are_kept(shape: Any) -> None:
    """A field that an older class wrote is neither seen nor touched."""
    stage = await stage_of(shape, old={"a": 1}, move_count=2)
    assert not hasattr(stage.activation.room.state, "old")
    assert await written(stage, "state.move_count += 1") == {"move_count": 3}
    assert stage.activation.context.state.stored["old"] == b'{"a":1}'


@pytest.mark.parametrize("shape", BOARDS)
async def test_stored_state_that_does_not_fit_fails_at_the_start(shape: Any) -> None:
    """The start fails with the field's name before any hook, whatever else is stored is untouched, nothing is lost."""
    stage = Stage(room_of(shape), state={"names": "ann", "move_count": 2})
    with pytest.raises(StateInvalid, match=rf"the state does not fit {shape.__name__}: [\s\S]*names"):
        await stage.activation.start()
    assert stage.activation.turn.is_empty
    assert stage.activation.context.state.stored == {"names": b'"ann"', "move_count": b"2"}


@pytest.mark.parametrize("shape", BOARDS)
async def test_looking_at_a_new_state_stores_nothing(shape: Any) -> None:
    """A field that still has its default is not written, so that an unused room can expire; one set back is."""
    stage = await stage_of(shape)
    assert await written(stage, "state.move_count; state.names.append('x'); state.names.clear()") == {}
    assert await written(stage, "state.move_count = 1") == {"move_count": 1}
    assert await written(stage, "state.move_count = 0") == {"move_count": 0}


# --- particular fields ------------------------------------------------------------------------------------------------
async def test_a_default_drawn_anew_each_time_is_stored_at_the_first_look() -> None:
    """Such a default would be another one after a reload."""

    class Named(msgspec.Struct):
        id: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)

    stage = await stage_of(Named)
    assert await written(stage, "state.id") == {"id": object_of(stage).id}


async def test_a_set_is_stored_in_one_order() -> None:
    """The same set has the same bytes, whichever way it was made."""

    @dataclass
    class Tagged:
        tags: set[str] = field(default_factory=set)

    names = [f"tag {n}" for n in range(40)]
    stage = await stage_of(Tagged)
    await written(stage, f"state.tags.update({names})")
    assert await written(stage, f"state.tags = set({names[::-1]})") == {}
    assert stage.activation.context.state.stored["tags"] == orjson.dumps(sorted(names))


async def test_a_field_that_is_unset_is_deleted() -> None:
    """A field that is UNSET is not stored, and takes away what was."""

    class Perhaps(msgspec.Struct):
        x: int | msgspec.UnsetType = msgspec.UNSET
        y: int = 0

    stage = await stage_of(Perhaps)
    assert await written(stage, "state.y = 1") == {"y": 1}
    assert await written(stage, "state.x = 3") == {"x": 3}
    turn = await stage.say("state.x = msgspec.UNSET")
    assert (turn.state_set, turn.state_del) == ({}, {"x"})
    assert set(stage.activation.context.state.stored) == {"y"}


async def test_fields_that_a_model_leaves_out_live_with_the_instance() -> None:
    """A field with ``exclude=True`` is not stored, nor a computed one."""

    class Hidden(pydantic.BaseModel):
        x: int = 0
        cache: int = pydantic.Field(default=0, exclude=True)

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def double(self) -> int:
            return self.x * 2

    stage = await stage_of(Hidden)
    assert await written(stage, "state.cache = 5; state.x = 1") == {"x": 1}
    assert object_of(stage).cache == 5


async def test_a_check_of_the_whole_state() -> None:
    """A class may refuse combinations of fields; an event that would store such a one fails."""

    class Even(pydantic.BaseModel):
        x: int = 0
        y: int = 0

        @pydantic.model_validator(mode="after")
        def check(self) -> "Even":
            if self.x + self.y > 10:
                raise ValueError("too much together")
            return self

    stage = await stage_of(Even)
    await written(stage, "state.x = 6")
    assert "too much together" in (await stage.say("state.y = 6")).dead[0].error
    assert await written(stage, "state.x = 4; state.y = 6") == {"x": 4, "y": 6}


# --- the class --------------------------------------------------------------------------------------------------------
def test_which_state_a_room_has() -> None:
    """A shape is inherited, may come through a generic room of one's own, and may be taken back."""
    shape = TypeVar("shape")

    class Base(Room[shape], Generic[shape]):
        pass

    class Typed(Base[DataBoard]):
        pass

    class Sub(Typed):
        pass

    class Plain(Room):
        pass

    class Mapped(Room[State]):
        pass

    for room_class in (Typed, Sub):
        state = room_class._make_state({})
        assert isinstance(state, TypedState)
        assert state.opened() == DataBoard()
    for plain in (Base, Plain, Mapped):
        assert isinstance(plain._make_state({}), State)


class Required(msgspec.Struct):
    """A field without a default."""

    x: int


@dataclass
class AlsoRequired:
    """A field without a default."""

    x: int


class RequiredModel(pydantic.BaseModel):
    """A field without a default."""

    x: int


class Listed(msgspec.Struct, array_like=True):
    """A Struct that is a list in JSON."""

    x: int = 0


@dataclass
class Unreadable:
    """Its default does not fit its own annotation."""

    x: int = "five"  # type: ignore[assignment]


@dataclass
class Unwritable:
    """Its default is not JSON."""

    x: Any = object


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (Required, "every field needs a default: Missing required argument 'x'"),
        (AlsoRequired, "every field needs a default"),
        (RequiredModel, "every field needs a default"),
        (dict, r"Room\[dict\]: the state is a msgspec.Struct, a dataclass or a pydantic model"),
        (int, "the state is a msgspec.Struct"),
        (Listed, "array_like"),
        (Unreadable, "its defaults cannot be stored: the state does not fit Unreadable: Expected `int`"),
        (Unwritable, "its defaults cannot be stored"),
        ("DataBoard", "the state is a class, not its name"),
    ],
)
def test_shapes_that_cannot_be(shape: Any, why: str) -> None:
    """What could not be loaded or stored is refused where the room's class is written."""
    with pytest.raises(TypeError, match=why):
        room_of(shape)


def test_names_of_a_shape() -> None:
    """Fields are stored under their names in Python."""
    assert [list(Shape(board).names) for board in BOARDS] == [["move_count", "names", "points", "ends_at"]] * 3
