"""Members of sessions in a room instance: dropped, back, asked for a snapshot, gone; and what failing hooks undo."""

from typing import Any

import orjson
import pytest

from harness.activations import Stage, staged
from innkeeper import Connection, Room
from innkeeper.turn import Turn
from innkeeper.wire import InboxEvent


class Inn(Room):
    """Writes down who comes and goes; fails where its attribute says so."""

    grace_s = 5.0
    failing = ""

    def note(self, what: str, conn: Connection) -> None:
        """Add a line, tell everybody, then fail if asked to."""
        self.state.setdefault("lines", []).append(f"{what} {conn.is_connected}")
        self.broadcast(what)
        conn.state = what
        if self.failing == what:
            raise RuntimeError(what)

    def on_connect(self, conn: Connection) -> None:
        """Write it down."""
        self.note("connect", conn)

    def on_drop(self, conn: Connection) -> None:
        """Write it down."""
        self.note("drop", conn)

    def on_resume(self, conn: Connection) -> None:
        """Write it down."""
        self.note("resume", conn)

    def on_resync(self, conn: Connection) -> None:
        """Write it down."""
        self.note("resync", conn)

    def on_leave(self, conn: Connection) -> None:
        """Write it down."""
        self.note("leave", conn)

    def on_message(self, conn: Connection, message: Any) -> None:
        """Close who asks for it."""
        if message == "close":
            conn.close(4321, "bye")
        else:
            raise ValueError


async def event(
    stage: Stage, kind: str, generation: int, *, edge: str = "e1", number: int = 0, data: bytes = b""
) -> Turn:
    """Run an event of the session s1 of connection c1; return its turn."""
    plain = stage.event(kind, "c1", data, edge)
    await run(stage, plain._replace(session=b"s1", number=number, generation=generation))
    return stage.take_turn()


async def run(stage: Stage, what: InboxEvent) -> None:
    """Run one event."""
    rest = stage.activation.handle(what)
    if rest is not None:
        await rest


async def joined(room_class: type[Room] = Inn) -> Stage:
    """Return a stage where c1 of session s1 has joined with generation 1."""
    stage = await staged(room_class)
    turn = await event(stage, "join", 1, data=b'{"user":["1","ann"]}')
    assert turn.outputs[0] == (b"join 1 c1 1", b"")
    assert row(turn) == {"join": 1, "edge": "e1", "session": "s1", "user": ["1", "ann"], "state": "connect", "gen": 1}
    return stage


def row(turn: Turn) -> dict[str, Any]:
    """Return the row of c1 in a turn."""
    return orjson.loads(turn.members_set["c1"])  # type: ignore[no-any-return]


def lines(stage: Stage) -> list[str]:
    """Return what the room wrote down."""
    return orjson.loads(stage.activation.context.state.stored["lines"])  # type: ignore[no-any-return]


async def test_a_drop_and_a_resume() -> None:
    """A drop keeps the member and sets the end of its grace; a resume takes that back and marks where it is now."""
    stage = await joined()
    dropped = await event(stage, "drop", 1)
    assert row(dropped)["up"] is False
    grace = orjson.loads(dropped.timers_set["~grace:s1"])
    assert grace["due"] == stage.iseq // 1000 + 5_000
    assert (grace["connection"], grace["generation"], grace["edge"]) == ("c1", 1, "e1")
    assert dropped.outputs == [(b"text *", b'"drop"')]
    resumed = await event(stage, "resume", 2, edge="e2")
    assert resumed.outputs == [(b"join 1 c1 2 back", b""), (b"text *", b'"resume"')]
    assert resumed.timers_del == {"~grace:s1"}
    assert (row(resumed)["edge"], row(resumed)["gen"], "up" in row(resumed)) == ("e2", 2, False)
    assert lines(stage) == ["connect True", "drop False", "resume True"]


async def test_a_resume_without_a_drop() -> None:
    """A half-open socket's member moves without on_drop; its late drop is void."""
    stage = await joined()
    await event(stage, "resume", 2, edge="e2")
    late = await event(stage, "drop", 1)
    assert (late.members_set, late.timers_set) == ({}, {})
    assert stage.activation.void_count == 1
    assert lines(stage) == ["connect True", "resume True"]


async def test_a_second_drop_and_an_old_resume_do_nothing() -> None:
    """Dropped is dropped; a resume of a past generation changes nothing."""
    stage = await joined()
    await event(stage, "resume", 3)
    await event(stage, "drop", 3)
    assert (await event(stage, "drop", 3)).members_set == {}
    assert (await event(stage, "resume", 2)).outputs == []
    assert stage.activation.void_count == 2


async def test_a_leave_of_the_dropped() -> None:
    """It leaves once, and the row of its grace goes with it."""
    stage = await joined()
    await event(stage, "drop", 1)
    left = await event(stage, "leave", 1)
    assert (left.members_del, left.timers_del) == ({"c1"}, {"~grace:s1"})
    assert lines(stage)[-1] == "leave False"
    assert (await event(stage, "leave", 1)).outputs == []


async def test_no_grace() -> None:
    """With grace_s = 0 a drop is a leave: no on_drop, no timer, and the session is closed by the commit."""

    class Strict(Inn):
        grace_s = 0

    stage = await joined(Strict)
    turn = await event(stage, "drop", 1)
    assert (turn.members_del, turn.sessions_closed, turn.timers_set) == ({"c1"}, ["s1"], {})
    assert lines(stage) == ["connect True", "leave True"]


@pytest.mark.parametrize("kind", ["resume", "resync"])
async def test_a_session_that_is_no_member(kind: str) -> None:
    """Its socket is told 4410 and the session closed: the member has left while the event was on its way."""
    stage = await staged(Inn)
    turn = await event(stage, kind, 2)
    assert turn.outputs == [(b"refuse c1 2", b"4410 session over")]
    assert turn.sessions_closed == ["s1"]


async def test_a_refused_join_closes_the_session() -> None:
    """Of a connection that on_connect refused nothing stays, the session neither."""

    class Shut(Inn):
        failing = "connect"

    stage = await staged(Shut)
    turn = await event(stage, "join", 1, data=b'{"user":["1","ann"]}')
    assert turn.outputs == [(b"refuse c1 1", b"4403 refused")]
    assert turn.sessions_closed == ["s1"]
    assert stage.members == []


async def test_a_resync() -> None:
    """The mark comes before what on_resync sends; the member is where it was."""
    stage = await joined()
    turn = await event(stage, "resync", 1)
    assert turn.outputs == [(b"resync 1 c1 1", b""), (b"text *", b'"resync"')]


async def test_a_resync_of_a_rolled_back_resume() -> None:
    """Where the room has forgotten the resume, the resync is one too."""
    stage = await joined()
    await event(stage, "drop", 1)
    turn = await event(stage, "resync", 2, edge="e2")
    assert [header for header, _ in turn.outputs] == [b"text *", b"resync 1 c1 2", b"text *"]
    assert (row(turn)["edge"], row(turn)["gen"], "up" in row(turn)) == ("e2", 2, False)
    assert lines(stage)[-2:] == ["resume True", "resync True"]
    assert turn.timers_del == {"~grace:s1"}


@pytest.mark.parametrize(
    ("kind", "generation", "mark"),
    [("resume", 2, b"join 1 c1 2 back"), ("resync", 1, b"resync 1 c1 1"), ("drop", 1, b"")],
)
async def test_a_hook_that_fails_undoes_itself_alone(kind: str, generation: int, mark: bytes) -> None:
    """What the event did to the member stays, in the row and at its socket; the hook's doings are gone; it is told."""

    class Broken(Inn):
        failing = kind

    stage = await joined(Broken)
    turn = await event(stage, kind, generation, edge="e2")
    shown = [output for output in turn.outputs if output[0] != b"error +1"]
    assert shown == ([(mark, b"")] if mark else [])
    assert (b"error +1", b'{"error":"handler_failed"}') in turn.outputs
    assert row(turn)["state"] == "connect"
    assert ("up" in row(turn)) is (kind == "drop")
    assert bool(turn.timers_set) is (kind == "drop")
    assert len(turn.dead) == 1
    assert lines(stage) == ["connect True"]


async def test_an_edge_is_gone() -> None:
    """Its raw members leave, its sessions are dropped; those elsewhere, and the dropped already, see nothing of it."""
    stage = await joined()
    await stage.join("raw")
    await stage.join("far", edge="e2")
    turn = await stage.handle("edge-gone", "-")
    assert stage.members == ["c1", "far"]
    assert turn.members_del == {"raw"}
    assert row(turn)["up"] is False
    assert orjson.loads(turn.timers_set["~grace:s1"])["generation"] == 1
    again = await stage.handle("edge-gone", "-")
    assert (again.members_set, again.timers_set) == ({}, {})


async def test_closed_by_the_room_while_away() -> None:
    """A close is remembered in the row: whoever comes back is closed then."""
    stage = await joined()
    closed = await event(stage, "text", 1, number=1, data=b'"close"')
    assert row(closed)["close"] == [4321, "bye"]
    await event(stage, "drop", 1)
    resumed = await event(stage, "resume", 2)
    assert resumed.outputs[:2] == [(b"join 1 c1 2 back", b""), (b"close +1", b"4321 bye")]


async def test_a_failed_event_takes_its_close_back() -> None:
    """What is undone is not remembered either."""

    class Fickle(Inn):
        def on_message(self, conn: Connection, message: Any) -> None:
            conn.close(4321, message)
            raise ValueError

    stage = await joined(Fickle)
    turn = await event(stage, "text", 1, number=1, data=b'"x"')
    assert turn.members_set == {}
    assert (await event(stage, "resume", 2)).outputs[1][0] == b"text *"


async def test_errors_carry_the_number() -> None:
    """A session is told which of its messages an error is about, in a raw room too; a raw socket as ever."""

    class Plain(Inn):
        codec = "raw"

    for room_class in (Inn, Plain):
        stage = await joined(room_class)
        turn = await event(stage, "text", 1, number=7, data=b'"x"')
        assert turn.outputs == [(b"error +1", b'{"error":"handler_failed","n":7}')]
    stage = await staged(Inn)
    await stage.join("c2")
    assert (await stage.say("x", "c2")).outputs == [(b"text +1", b'{"error":"handler_failed"}')]


async def test_a_reload_finds_the_dropped() -> None:
    """The next owner knows from the rows who is away, of which generation, and whom the room has closed."""
    stored = {"join": 1, "edge": "e1", "session": "s1", "user": ["1", "ann"], "state": None, "gen": 4, "up": False}
    stage = await staged(Inn, members={"c1": orjson.dumps(stored | {"close": [4321, "bye"]})})
    member = stage.activation.context.members["c1"]
    assert (member.is_connected, member.generation, member.parting) == (False, 4, (4321, "bye"))
    assert (await event(stage, "resume", 5)).outputs[1] == (b"close +1", b"4321 bye")


async def test_who_was_moved_while_away_is_moved_when_back() -> None:
    """The row says where it goes, and each return shows that again; a move that is undone leaves nothing behind."""

    class Mover(Inn):
        def on_message(self, conn: Connection, message: Any) -> None:
            conn.move(message)
            if message == "inn/no":
                raise ValueError(message)

    stage = await joined(Mover)
    turn = await event(stage, "text", 1, number=1, data=b'"inn/no"')
    assert [header for header, _ in turn.outputs] == [b"error +1"]
    turn = await event(stage, "text", 1, number=2, data=b'"inn/b"')
    assert turn.outputs == [(b"move +1", b"inn/b")]
    stored = row(turn)
    assert (stored["move"], "close" in stored) == ("inn/b", False)
    await event(stage, "drop", 1)
    assert (await event(stage, "resume", 2)).outputs[1] == (b"move +1", b"inn/b")
    again = await staged(Mover, members={"c1": orjson.dumps(stored)})
    assert again.activation.context.members["c1"].parting == "inn/b"
    assert (await event(again, "resync", 3)).outputs[1] == (b"move +1", b"inn/b")


@pytest.mark.parametrize(("kind", "outputs"), [("resume", 1), ("resync", 1), ("drop", 0)])
async def test_condemned(kind: str, outputs: int) -> None:
    """An event that is put aside still does to the member what it says, without its hook."""
    stage = await joined()
    plain = stage.event(kind, "c1")._replace(session=b"s1", generation=2)
    stage.activation.condemn(plain, "too slow")
    turn = stage.take_turn()
    assert (len(turn.outputs), len(turn.dead), row(turn)["gen"]) == (outputs, 1, 2)
    assert lines(stage) == ["connect True"]


async def test_condemned_with_its_edge() -> None:
    """An edge's end that is put aside drops its sessions and removes its raw members, without hooks."""
    stage = await joined()
    await stage.join("raw")
    stage.activation.condemn(stage.event("edge-gone", "-"), "too slow")
    turn = stage.take_turn()
    assert (row(turn)["up"], turn.members_del) == (False, {"raw"})
    assert "~grace:s1" in turn.timers_set


@pytest.mark.parametrize("grace_s", [-1, float("nan"), float("inf"), 86_401, "30", True, None])
def test_a_senseless_grace(grace_s: Any) -> None:
    """A class is refused where its grace is no number of seconds up to a day."""
    with pytest.raises(ValueError, match="grace_s"):
        type("Odd", (Room,), {"grace_s": grace_s})
