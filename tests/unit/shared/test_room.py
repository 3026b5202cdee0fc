"""The class users write: its rules, and what its calls ask for."""

from typing import Any

import pytest

from innkeeper import Connection, OutputInvalid, Room, StateInvalid, StateTooLarge, TurnClosed
from innkeeper.address import Address
from innkeeper.connection import User
from innkeeper.context import RoomContext
from innkeeper.state import State


class Lobby(Room):
    """A room for these tests."""


def member(context: RoomContext, join: int) -> Connection:
    """Return the connection of a join."""
    return Connection(context, f"c{join}", join=join, edge="e1", user=User("u", "u"), session="")


def made(codec: str = "json", *joins: int) -> tuple[Lobby, RoomContext, list[Connection]]:
    """Return a room object with members, as an activation makes it."""
    context = RoomContext(Address("lobby", "x"), codec, State({}, 1_000))
    for join in joins:
        context.members[f"c{join}"] = member(context, join)
    room = Lobby()
    room._context = context
    return room, context, list(context.members.values())


# --- the class --------------------------------------------------------------------------------------------------------
def test_kind_comes_from_the_name_of_the_class() -> None:
    """The class's name in lower case is the kind, unless it sets one; a subclass has its own again."""

    class GameTable(Room):
        pass

    class Other(GameTable):
        kind = "other-kind_2"

    class Third(Other):
        pass

    assert (GameTable.kind, Other.kind, Third.kind) == ("gametable", "other-kind_2", "third")


@pytest.mark.parametrize(
    ("name", "kind"), [("_Chat_", "chat_"), ("Chat2", "chat2"), ("Räume", "rume"), ("__9Lives", "lives")]
)
def test_kind_of_an_odd_name(name: str, kind: str) -> None:
    """What a kind may not hold is left out of the class's name."""
    assert type(name, (Room,), {}).kind == kind  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["Chat", "", "1a", "a b", "a" * 33, "a/b", "a{b"])
def test_a_kind_that_is_no_address(kind: str) -> None:
    """A kind that could not stand in an address is refused where the class is written."""
    with pytest.raises(ValueError, match="must match"):
        type("Bad", (Room,), {"kind": kind})


@pytest.mark.parametrize("name", ["Ж", "A" * 33])
def test_a_name_that_makes_no_kind(name: str) -> None:
    """A class whose name makes no kind must set one, and the text says so."""
    with pytest.raises(ValueError, match="kind"):
        type(name, (Room,), {})


@pytest.mark.parametrize(
    "wrong",
    [
        {"codec": "xml"},
        {"codec": None},
        {"message_bytes": 0},
        {"message_bytes": 1_048_577},
        {"backlog_count": 0},
        {"backlog_count": 1e4},
    ],
)
def test_limits_out_of_range(wrong: dict[str, Any]) -> None:
    """A codec or a limit that cannot be honoured is refused where the class is written, and named."""
    with pytest.raises(ValueError, match=f"Bad.{next(iter(wrong))}"):
        type("Bad", (Room,), wrong)


# --- its calls --------------------------------------------------------------------------------------------------------
def test_broadcast() -> None:
    """A broadcast goes to all, or to all but those named, by the numbers of their joins."""
    room, context, (one, two, three) = made("json", 3, 9, 20)
    room.broadcast({"a": 1})
    room.broadcast([1], exclude=two)
    room.broadcast(b"\x00", exclude=(three, one))
    room.broadcast("x", exclude=[])
    assert context.outputs == [
        (b"text *", b'{"a":1}'), (b"text -9", b"[1]"), (b"binary -3,20", b"\x00"), (b"text *", b'"x"'),
    ]  # fmt: skip


def test_send_and_close() -> None:
    """A direct send and a close go to one join, in the order they were asked for."""
    _, context, (one,) = made("raw", 7)
    one.send("hello")
    one.close(4001, "späť")
    one.close()
    assert context.outputs == [(b"text +7", b"hello"), (b"close +7", "4001 späť".encode()), (b"close +7", b"1000 ")]


@pytest.mark.parametrize("code", [0, 999, 1001, 1006, 2999, 5000])
def test_a_close_code_that_is_not_ours_to_send(code: int) -> None:
    """Rooms may close with 1000 and 3000-4999."""
    _, context, (one,) = made("json", 7)
    with pytest.raises(ValueError, match=f"close code {code}"):
        one.close(code)
    assert context.outputs == []


def test_a_close_reason_that_is_too_long() -> None:
    """A reason is counted in bytes, and one that fits no close frame is refused."""
    _, _, (one,) = made("json", 7)
    one.close(4000, "é" * 60)
    with pytest.raises(ValueError, match="122 bytes: at most 120"):
        one.close(4000, "é" * 61)


def test_what_the_codec_cannot_send() -> None:
    """A value that cannot be sent raises in the hook, and nothing of it goes out."""
    room, context, (one,) = made("raw", 7)
    with pytest.raises(OutputInvalid):
        room.broadcast({"a": 1})
    with pytest.raises(OutputInvalid):
        one.send(5)
    assert context.outputs == []


def test_connections() -> None:
    """The members can be counted, found, and iterated while they change."""
    room, context, members = made("json", 1, 2)
    connections = room.connections
    assert (len(connections), connections.get("c1"), connections.get("x")) == (2, members[0], None)
    assert members[1] in connections
    assert "c1" not in connections
    assert member(context, 1) not in connections
    for connection in connections:
        del context.members[connection.id]
    assert (len(connections), list(connections)) == (0, [])


def test_a_sealed_turn() -> None:
    """After its turn was cut, every call of a hook raises and says why."""
    room, context, (one,) = made("json", 1)
    context.sealed = "cut"
    calls: list[Any] = [
        lambda: room.state, lambda: room.broadcast(1), lambda: one.send(1), one.close, lambda: one.state,
        lambda: setattr(one, "state", 1),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(TurnClosed, match="room lobby/x: cut"):
            call()


def test_names() -> None:
    """A room knows its name; a connection shows itself."""
    room, _, (one,) = made("json", 1)
    assert room.name == "x"
    assert repr(one) == "<Connection c1 'u' in lobby/x>"


# --- conn.state -------------------------------------------------------------------------------------------------------
def settle(connection: Connection) -> bytes | None:
    """End an event."""
    row = connection.changed_row()
    if row is not None:
        connection.settle(row)
    return row


def test_connection_state_is_written_when_it_changed() -> None:
    """Nested changes of conn.state are noticed; an unchanged one is not written."""
    _, context, (one,) = made("json", 1)
    assert one.state is None
    assert settle(one) is not None
    one.state = {"a": [1]}
    first = settle(one)
    one.state["a"].append(2)
    second = settle(one)
    assert first != second
    assert second is not None
    _ = one.state
    assert settle(one) is None
    again = Connection.from_row(context, "c1", second)
    assert (again.state, again.join, again.edge, again.user, again.session) == ({"a": [1, 2]}, 1, "e1", ("u", "u"), "")
    assert settle(again) is None


def test_connection_state_is_undone() -> None:
    """A failed event's change of conn.state is forgotten, also the first one, also if its row was looked at."""
    _, _, (one,) = made("json", 1)
    one.state = {"a": 1}
    one.undo()
    assert one.state is None
    one.state = {"a": 1}
    settle(one)
    one.state["a"] = 2
    assert one.changed_row() is not None
    one.undo()
    assert one.state == {"a": 1}


def test_connection_state_that_cannot_be_kept() -> None:
    """What is not JSON, or over 16 KiB, is refused by name; conn.state is for small values."""
    _, _, (one,) = made("json", 1)
    one.state = object()
    with pytest.raises(StateInvalid, match=r"conn\.state of c1"):
        one.changed_row()
    one.state = "x" * 17_000
    with pytest.raises(StateTooLarge, match=r"conn\.state of c1"):
        one.changed_row()
    one.state = "x" * 10_000
    assert one.changed_row() is not None
