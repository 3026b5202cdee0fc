"""A hook that raises: undone, recorded, told; the room goes on."""

import asyncio
import logging
import sys
from copy import deepcopy
from typing import Any

import orjson
import pytest

from harness.activations import Stage, row, staged
from innkeeper import Connection, Event, Room


class Unspeakable(Exception):
    """An exception whose text raises."""

    def __str__(self) -> str:
        raise ValueError("no text")


RAISED: dict[str, BaseException] = {
    "raise": ValueError("told to"),
    "memory": MemoryError(),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "generator": GeneratorExit(),
    "cancelled": asyncio.CancelledError(),
    "unspeakable": Unspeakable(),
}


class Clumsy(Room):
    """Changes everything, then fails if told to."""

    state_bytes = 200

    def fail(self, conn: Connection, how: str) -> None:
        """Change state, connection and outputs; then do as told."""
        self.state["n"] = self.state.get("n", 0) + 1
        self.state.setdefault("list", []).append(how)
        conn.state = {"how": how}
        conn.send("sent")
        self.broadcast("shown")
        if error := RAISED.get(how):
            raise error
        if how == "large":
            self.state["large"] = "x" * 500
        if how == "not json":
            self.state["odd"] = object()
        if how == "odd conn":
            conn.state = object()
        if how == "recurse":
            self.fail(conn, how)

    def on_connect(self, conn: Connection) -> None:
        """Fail where the name says so."""
        self.fail(conn, conn.user.name)

    def on_message(self, conn: Connection, message: Any) -> None:
        """Fail where the message says so."""
        self.fail(conn, message)

    def on_leave(self, conn: Connection) -> None:
        """Fail where the connection's state says so."""
        self.fail(conn, "raise" if conn.state == {"how": "leave badly"} else "ok")


FAILURES = [
    ("raise", "ValueError: told to"),
    ("large", "the state would be"),
    ("not json", "self.state['odd'] cannot be stored"),
    ("odd conn", "conn.state of c1 cannot be stored"),
    ("exit", "RuntimeError: the hook raised SystemExit: 3"),
    ("interrupt", "RuntimeError: the hook raised KeyboardInterrupt"),
    ("generator", "RuntimeError: the hook raised GeneratorExit"),
    ("cancelled", "RuntimeError: the hook raised CancelledError"),
    ("recurse", "RecursionError: maximum recursion depth exceeded"),
    ("unspeakable", "Unspeakable: (its text cannot be shown)"),
]


def state_of(stage: Stage) -> dict[str, Any]:
    """Return the state as a handler sees it."""
    return deepcopy(dict(stage.activation.room.state))


@pytest.mark.parametrize(("how", "error"), FAILURES)
async def test_a_message_that_fails_is_undone_recorded_and_told(how: str, error: str) -> None:
    """State, outputs and conn.state are as before; the sender alone is told; dead holds the event and a traceback."""
    stage = await staged(Clumsy, members={"c1": row(1, state=7), "c2": row(2)})
    await stage.say("ok")
    before = state_of(stage)
    turn = await stage.say(how)
    assert turn.outputs == [(b"text +1", b'{"error":"handler_failed"}')]
    assert (turn.state_set, turn.members_set, state_of(stage)) == ({}, {}, before)
    assert stage.activation.context.members["c1"].state == {"how": "ok"}
    (dead,) = turn.dead
    assert (dead.id, dead.kind, dead.connection, dead.data) == (b"2-2", b"text", b"c1", orjson.dumps(how))
    assert dead.error.startswith(error)
    assert dead.traceback.startswith("Traceback")
    assert len(turn.consumed) == 1
    after = await stage.say("ok")
    assert orjson.loads(after.state_set["n"]) == 2
    assert orjson.loads(after.state_set["list"]) == ["ok", "ok"]


@pytest.mark.parametrize(("how", "error"), FAILURES)
async def test_a_join_that_fails_is_refused(how: str, error: str) -> None:
    """The socket is refused without details, no member is left and nobody else sees anything; dead tells why."""
    stage = await staged(Clumsy)
    turn = await stage.join("c1", name=how)
    assert turn.outputs == [(b"refuse c1", b"4403 refused")]
    assert (turn.state_set, turn.members_set, stage.members, state_of(stage)) == ({}, {}, [], {})
    assert turn.dead[0].error.startswith(error)


async def test_a_leave_that_fails_removes_the_member_all_the_same() -> None:
    """What on_leave did is undone, the member is gone, once; nobody is told, dead is."""
    stage = await staged(Clumsy, members={"c1": row(1, state={"how": "leave badly"}), "c2": row(2)})
    turn = await stage.handle("leave")
    assert (turn.members_del, turn.outputs, turn.state_set, stage.members) == ({"c1"}, [], {}, ["c2"])
    assert len(turn.dead) == 1
    assert (await stage.handle("leave")).dead == []


async def test_of_an_edges_leaves_each_fails_for_itself() -> None:
    """One member's on_leave that raises keeps neither itself nor the others in the room."""
    members = {"a": row(1), "b": row(2, state={"how": "leave badly"}), "c": row(3)}
    stage = await staged(Clumsy, members=members)
    turn = await stage.handle("edge-gone", "-")
    assert (turn.members_del, stage.members, len(turn.dead)) == ({"a", "b", "c"}, [], 1)
    assert state_of(stage)["n"] == 2


async def test_two_connections_one_of_them_odd() -> None:
    """Where one connection's state cannot be stored, another one's change of the same event is undone too."""

    class Two(Room):
        def on_message(self, conn: Connection, message: Any) -> None:
            for other in self.connections:
                other.state = object() if other is conn else message

    for sender in ("c1", "c2"):
        stage = await staged(Two, members={"c1": row(1, state=1), "c2": row(2, state=2)})
        turn = await stage.say("new", sender)
        assert turn.members_set == {}
        assert [conn.state for conn in stage.activation.context.members.values()] == [1, 2]


async def test_memory_error_stops_the_worker() -> None:
    """MemoryError is nobody's event's fault: it is not caught, the event is not consumed."""
    stage = await staged(Clumsy, members={"c1": row(1)})
    with pytest.raises(MemoryError):
        await stage.say("memory")
    assert stage.activation.turn.consumed == []
    assert stage.activation.turn.dead == []


async def test_a_cut_hook_is_no_failure() -> None:
    """The cancellation of the room's own task goes through: the event is not consumed, nothing is recorded."""

    class Waiting(Room):
        async def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
            await asyncio.Event().wait()

    stage = await staged(Waiting, members={"c1": row(1)})
    running = asyncio.create_task(stage.say("x"))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (stage.activation.turn.consumed, stage.activation.turn.dead) == ([], [])


async def test_a_start_that_exits_raises_an_ordinary_error() -> None:
    """sys.exit() in on_start is a failed start like any other, and knows its cause."""

    class Exiting(Room):
        def on_start(self) -> None:
            sys.exit("enough")

    with pytest.raises(RuntimeError, match="the hook raised SystemExit: enough") as caught:
        await staged(Exiting)
    assert isinstance(caught.value.__cause__, SystemExit)


@pytest.mark.parametrize(("hook", "runs"), [("on_start", True), ("on_create", True), ("__init__", True), ("x", False)])
async def test_rooms_without_code_at_their_start_are_known(hook: str, runs: bool) -> None:
    """Only where the class has code of its own for it can a start be what kills."""
    room_class = type("Some", (Room,), {hook: lambda self: None})  # noqa: ARG005 - the hook's signature
    assert (await staged(room_class)).activation.runs_hooks_at_start is runs


async def test_no_error_frames_in_raw_rooms() -> None:
    """A raw room's clients only ever see what the room sends."""

    class Raw(Room):
        codec = "raw"

        def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
            raise ValueError

    stage = await staged(Raw, members={"c1": row(1)})
    turn = await stage.handle("text", data=b"x")
    stage.activation.tell_all("room_unavailable")
    assert (turn.outputs, len(turn.dead), stage.take_turn().outputs) == ([], 1, [])


# --- on_error ---------------------------------------------------------------------------------------------------------
class Telling(Clumsy):
    """Keeps what on_error saw."""

    def on_error(self, error: Exception, event: Event) -> None:
        """Keep it."""
        member = event.connection.id if event.connection else None
        self.state["errors"] = [*self.state.get("errors", []), [str(error), event.kind, event.id, member]]
        if b"worse" in event.data:
            raise OSError("even worse")


async def test_on_error_runs_after_the_undo_and_its_effects_count() -> None:
    """The hook sees the error and the event; what it does is committed with the failed event."""
    stage = await staged(Telling, members={"c1": row(1)})
    turn = await stage.say("raise")
    assert orjson.loads(turn.state_set["errors"]) == [["told to", "text", "1-1", "c1"]]
    assert "n" not in state_of(stage)
    refused = await stage.join("c9", name="raise")
    assert orjson.loads(refused.state_set["errors"])[1] == ["told to", "join", "2-2", None]


async def test_on_error_that_raises_is_logged_and_undone(caplog: pytest.LogCaptureFixture) -> None:
    """A second failure is logged, nothing more: the event is consumed and recorded once."""

    class Worse(Telling):
        def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
            raise ValueError("bad")

    stage = await staged(Worse, members={"c1": row(1)})
    with caplog.at_level(logging.WARNING, logger="innkeeper.worker"):
        turn = await stage.say("worse")
    assert (len(turn.dead), turn.state_set, len(turn.consumed)) == (1, {}, 1)
    assert [record.message for record in caplog.records] == [
        "room worse/x: event 1-1 failed and was undone", "room worse/x: on_error failed too",
    ]  # fmt: skip


# --- condemned events -------------------------------------------------------------------------------------------------
async def test_a_condemned_message() -> None:
    """An event that killed its workers or never ended is put aside unrun; its sender is told."""
    stage = await staged(Clumsy, members={"c1": row(1)})
    stage.activation.condemn(stage.event("text", data=b'"ok"'), "it killed three workers")
    turn = stage.take_turn()
    assert turn.outputs == [(b"text +1", b'{"error":"handler_timeout"}')]
    assert [(dead.error, dead.data) for dead in turn.dead] == [("it killed three workers", b'"ok"')]
    assert (turn.consumed, turn.state_set) == ([b"1-1"], {})


async def test_a_condemned_join_is_refused() -> None:
    """A join whose on_connect never ended leaves no socket waiting."""
    stage = await staged(Clumsy)
    stage.activation.condemn(stage.event("join", "c1", b'{"user":["u","u"]}'), "cut")
    assert stage.take_turn().outputs == [(b"refuse c1", b"4403 refused")]
    assert stage.members == []


@pytest.mark.parametrize("kind", ["leave", "edge-gone"])
async def test_a_condemned_leave_removes_its_members(kind: str) -> None:
    """A leave whose on_leave never ended leaves no ghost: those who are gone are out, without the hook."""
    stage = await staged(Clumsy, members={"c1": row(1), "c2": row(2, edge="e2")})
    stage.activation.condemn(stage.event(kind), "cut")
    turn = stage.take_turn()
    assert (turn.members_del, stage.members, len(turn.dead)) == ({"c1"}, ["c2"], 1)


async def test_a_waiting_hook_that_is_closed_with_its_instance_has_not_failed() -> None:
    """At the interpreter's end a waiting hook is closed; nothing of the room's runs on that, on_error neither."""
    seen: list[str] = []

    class Waiting(Room):
        async def on_message(self, conn: Connection, message: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(f"{conn.id} {message} closed")

        def on_error(self, error: Exception, event: Event) -> None:
            seen.append(f"{error} {event}")

    stage = await staged(Waiting, members={"c1": row(1)})
    running = stage.run("text", "c1", b"1")
    running.send(None)
    running.close()
    assert seen == ["c1 1 closed"]
    assert stage.activation.turn.dead == []
