"""``@on``: which handler takes a message, what it is given, and what a sender is told whose message fits nowhere."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
import orjson
import pydantic
import pytest

from harness.activations import Stage, row, staged
from innkeeper import Connection, Room, on

if TYPE_CHECKING:
    from decimal import Decimal as OnlyChecked


class StructMove(msgspec.Struct):
    """A move as a Struct."""

    x: int
    y: int = 0


class TaggedMove(msgspec.Struct, tag_field="type", tag="move", forbid_unknown_fields=True):
    """A move as a strict Struct that knows its type."""

    x: int
    y: int = 0


@dataclass
class DataMove:
    """A move as a dataclass."""

    x: int
    y: int = 0


class DictMove(TypedDict):
    """A move as a dict."""

    x: int


class ModelMove(pydantic.BaseModel):
    """A move as a pydantic model."""

    x: int
    y: int = 0


class Odd:
    """A class that nothing can be converted to."""


SHAPES = [StructMove, TaggedMove, DataMove, DictMove, ModelMove]


def room_of(annotation: Any) -> type[Room]:
    """Return a room with one handler for moves, whose message has that annotation."""

    def move(self: Room, conn: Connection, message: Any) -> None:  # noqa: ARG001 - a handler's signature
        x = message["x"] if isinstance(message, dict) else message.x
        self.broadcast([type(message).__name__, x])

    move.__annotations__["message"] = annotation
    return type("Board", (Room,), {"move": on("move")(move)})


async def stage_of(room_class: type[Room]) -> Stage:
    """Return a stage of that room with the member c1, who joined first."""
    return await staged(room_class, members={"c1": row(1), "c2": row(2)})


async def said(stage: Stage, value: Any) -> Any:
    """Send a message; return the one output, decoded, and check that an error went to its sender alone."""
    turn = await stage.say(value)
    ((header, body),) = turn.outputs
    answer = orjson.loads(body)
    assert header == (b"text +1" if isinstance(answer, dict) and "error" in answer else b"text *")
    assert len(turn.consumed) == 1
    return answer


# --- what a handler gets ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_message_becomes_what_its_handler_wants(shape: Any) -> None:
    """Whatever the class of the annotation, the handler gets one of it, made from the message."""
    stage = await stage_of(room_of(shape))
    name = "dict" if shape is DictMove else shape.__name__
    assert await said(stage, {"type": "move", "x": 3}) == [name, 3]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("message", [{"x": "east"}, {}, {"x": None}, {"x": 1.5}, {"x": [3]}])
async def test_a_message_of_the_wrong_shape(shape: Any, message: dict[str, Any]) -> None:
    """It reaches no hook; its sender is told the type and where it does not fit, and nothing lies in dead."""
    stage = await stage_of(room_of(shape))
    turn = await stage.say({"type": "move", **message})
    ((header, body),) = turn.outputs
    answer = orjson.loads(body)
    assert (header, turn.dead, set(answer)) == (b"text +1", [], {"error", "message_type", "detail"})
    assert (answer["error"], answer["message_type"]) == ("invalid_message", "move")
    assert "x" in answer["detail"]


@pytest.mark.parametrize("annotation", [Any, object, dict[str, Any], "dict[str, object]"])
async def test_messages_as_they_came(annotation: Any) -> None:
    """Without a class in the annotation a handler gets the JSON value."""
    stage = await stage_of(room_of(annotation))
    assert await said(stage, {"type": "move", "x": 3, "more": [1]}) == ["dict", 3]


async def test_a_message_without_annotation() -> None:
    """No annotation, other parameters with defaults and ``*rest`` are fine."""

    class Loose(Room):
        @on("a")
        def a(self, conn, message, extra=5):  # type: ignore[no-untyped-def]
            conn.send([message["type"], extra])

        @on("b")
        def b(self, *rest: Any) -> None:
            rest[0].send([rest[1]["type"], len(rest)])

        @on("c")
        async def c(self, conn: "Connection", message: StructMove, /) -> None:
            conn.send(message.x)

    stage = await stage_of(Loose)
    answers = [(await stage.say({"type": name, "x": 1})).outputs[0][1] for name in "abc"]
    assert answers == [b'["a",5]', b'["b",2]', b"1"]


async def test_names_beside_the_messages_may_be_known_to_type_checkers_only() -> None:
    """Only the annotation of the message is looked at."""

    class Careful(Room):
        @on("move")
        def move(self, conn: Connection, message: "StructMove", *, more: "OnlyChecked | None" = None) -> None:
            self.broadcast(message.x, exclude=[conn] if more else [])

    assert await said(await stage_of(Careful), {"type": "move", "x": 3}) == 3


# --- which handler ----------------------------------------------------------------------------------------------------
class Base(Room):
    """Two handlers and one of other messages."""

    @on("move")
    @on("step")
    def move(self, conn: Connection, message: StructMove) -> None:  # noqa: ARG002 - a handler's signature
        """Show the place."""
        self.broadcast(["base", message.x])

    @on("stop")
    def stop(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - a handler's signature
        """Show the end."""
        self.broadcast(["base stop"])


class Sub(Base):
    """Overrides one, takes another's type over, and takes the rest."""

    def move(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - a handler's signature
        """Show what came."""
        self.broadcast(["sub", message])

    @on("stop")
    async def halt(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - a handler's signature
        """Show the end in its own way."""
        self.broadcast(["sub halt"])

    @on("*")
    def rest(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - a handler's signature
        """Show that it came."""
        self.broadcast(["rest", message])


async def test_inheritance() -> None:
    """A subclass has its base's handlers; its own override them by the method's name or by the type of message."""
    base, sub = await stage_of(Base), await stage_of(Sub)
    step = {"type": "step", "x": 1}
    assert await said(base, step) == ["base", 1]
    assert await said(sub, step) == ["sub", step]
    assert await said(base, {"type": "stop"}) == ["base stop"]
    assert await said(sub, {"type": "stop"}) == ["sub halt"]


@pytest.mark.parametrize("message", [{"type": "nobody"}, {"type": 5}, {"type": None}, {}, [], 5, "text", None])
async def test_the_handler_of_the_rest(message: Any) -> None:
    """``@on("*")`` takes every message that no other handler takes, whatever it is."""
    assert await said(await stage_of(Sub), message) == ["rest", message]


async def test_a_mixin_may_bring_handlers() -> None:
    """Handlers of a class that is no room count for the rooms that inherit it."""

    class Pings:
        @on("ping")
        def ping(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - a handler's signature
            conn.send("pong")

    class Chat(Pings, Room):
        pass

    assert (await (await stage_of(Chat)).say({"type": "ping"})).outputs == [(b"text +1", b'"pong"')]


async def test_types_that_nobody_takes() -> None:
    """Their sender is told, cut to 200 characters; so is one whose message has no type."""
    stage = await stage_of(Base)
    assert await said(stage, {"type": "nobody"}) == {"error": "unknown_type", "message_type": "nobody"}
    assert await said(stage, {"type": "é" * 900}) == {"error": "unknown_type", "message_type": "é" * 200}
    wanted = {"error": "invalid_message", "detail": 'a message is an object with a "type"'}
    for message in ({}, {"type": 5}, {"type": ["move"]}, [1], "move", None, 7):
        assert await said(stage, message) == wanted


async def test_on_message_takes_what_handlers_do_not() -> None:
    """Where a class has both, on_message takes other types, messages without one, and all binary messages."""

    class Both(Base):
        def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
            self.broadcast(["on_message", len(message)])

    stage = await stage_of(Both)
    assert await said(stage, {"type": "step", "x": 1}) == ["base", 1]
    assert await said(stage, {"type": "nobody"}) == ["on_message", 1]
    assert await said(stage, [1, 2]) == ["on_message", 2]
    assert (await stage.handle("binary", data=b'{"type":"step"}')).outputs == [(b"text *", b'["on_message",15]')]


async def test_binary_messages_without_on_message() -> None:
    """They reach no handler, not even that of the rest, and are consumed."""
    turn = await (await stage_of(Sub)).handle("binary", data=b'{"type":"stop"}')
    assert (turn.outputs, turn.dead, len(turn.consumed)) == ([], [], 1)


async def test_a_fallback_that_wants_a_class() -> None:
    """What a sender is told holds its type only where that is a text, and never more than 200 characters of it."""

    class Strict(Room):
        @on("*")
        def rest(self, conn: Connection, message: StructMove) -> None:  # noqa: ARG002 - a handler's signature
            self.broadcast(message.x)

    stage = await stage_of(Strict)
    assert await said(stage, {"type": ["x"], "x": 2}) == 2
    answer = await said(stage, {"type": ["x" * 5000]})
    assert set(answer) == {"error", "detail"}
    assert await said(stage, {"type": "t" * 5000}) == {
        "error": "invalid_message", "message_type": "t" * 200, "detail": "Object missing required field `x`",
    }  # fmt: skip


# --- validators that do more ------------------------------------------------------------------------------------------
class Checked(pydantic.BaseModel):
    """A model whose validator does as it is told."""

    x: str

    @pydantic.field_validator("x")
    @classmethod
    def check(cls, value: str) -> str:
        """Raise what the value says."""
        if value == "value":
            raise ValueError("no such place")
        if value == "key":
            raise KeyError(value)
        return value


async def test_what_a_validator_says_is_told() -> None:
    """A ValueError of a user's validator refuses the message, with its text and place."""
    answer = await said(await stage_of(room_of(Checked)), {"type": "move", "x": "value"})
    assert answer == {
        "error": "invalid_message", "message_type": "move", "detail": "Value error, no such place - at `x`",
    }  # fmt: skip


async def test_a_validator_that_fails_is_a_failed_event() -> None:
    """Another exception out of a validator is undone and recorded as if the handler had raised it; the room goes on."""
    stage = await stage_of(room_of(Checked))
    turn = await stage.say({"type": "move", "x": "key"})
    assert turn.outputs == [(b"text +1", b'{"error":"handler_failed"}')]
    assert [dead.error for dead in turn.dead] == ["KeyError: 'key'"]
    assert await said(stage, {"type": "move", "x": "ok"}) == ["Checked", "ok"]


# --- what is refused where the class is written -----------------------------------------------------------------------
@pytest.mark.parametrize("message_type", ["", None, 5, b"move"])
def test_a_type_that_is_no_text(message_type: Any) -> None:
    """A message type is text."""
    with pytest.raises(ValueError, match="a message type is text"):
        on(message_type)


def test_handlers_need_the_json_codec() -> None:
    """Messages of a raw room have no type."""
    with pytest.raises(ValueError, match="@on handlers need the json codec"):
        type("Raw", (Base,), {"codec": "raw"})


def test_two_handlers_for_one_type() -> None:
    """Two methods of one class cannot take the same type."""
    with pytest.raises(ValueError, match="two handlers for messages of type 'a': one and two"):
        type("Twice", (Room,), {name: on("a")(lambda self, conn, message: None) for name in ("one", "two")})  # noqa: ARG005


SIGNATURES: list[Any] = [
    lambda self: None,  # noqa: ARG005
    lambda self, conn: None,  # noqa: ARG005
    lambda self, conn, *, message: None,  # noqa: ARG005
    lambda self, conn, **message: None,  # noqa: ARG005
    lambda self, conn, message, more: None,  # noqa: ARG005
]


@pytest.mark.parametrize("number", range(len(SIGNATURES)))
def test_a_handler_that_could_not_be_called(number: int) -> None:
    """A handler takes a connection and a message, by position."""
    with pytest.raises(TypeError, match="a handler takes a connection and a message"):
        type("Bad", (Room,), {"bad": on("a")(SIGNATURES[number])})


@pytest.mark.parametrize("override", [None, staticmethod(lambda conn, message: None)])  # noqa: ARG005
def test_an_override_that_could_not_be_called(override: Any) -> None:
    """The same holds for what a subclass puts in a handler's place."""
    with pytest.raises(TypeError, match="a handler takes a connection and a message"):
        type("Bad", (Base,), {"move": override})


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        ("Missing", "'Missing' cannot be used: name 'Missing' is not defined"),
        ("not python", "cannot be used"),
        (Odd, "messages cannot be converted to"),
        (list[ModelMove], "not to .*ModelMove"),
        (Odd | None, "not to .*Odd"),
    ],
)
def test_an_annotation_that_cannot_be_used(annotation: Any, why: str) -> None:
    """A class that no message could ever become is refused at once, by name."""
    with pytest.raises(TypeError, match=why):
        room_of(annotation)
