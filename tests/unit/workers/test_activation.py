"""A room instance: which hooks run, what a turn holds after them, and who becomes and stays a member."""

import asyncio
from typing import Any

import orjson
import pytest

from harness.activations import Stage, row, staged, take_turn
from innkeeper import Connection, Event, Refused, Room, TurnClosed


class Diary(Room):
    """Writes down every hook in its state."""

    def note(self, what: str) -> None:
        """Add a line."""
        self.state.setdefault("lines", []).append(what)

    def on_create(self) -> None:
        """Write it down."""
        self.note("create")

    def on_start(self) -> None:
        """Write it down."""
        self.note("start")

    def on_connect(self, conn: Connection) -> None:
        """Write it down and greet."""
        self.note(f"connect {conn.user.name} {len(self.connections)}")
        conn.send("hi")

    def on_message(self, conn: Connection, message: Any) -> Any:
        """Write it down and show it."""
        self.note(f"message {conn.id} {message!r}")
        self.broadcast(message)

    def on_leave(self, conn: Connection) -> None:
        """Write it down."""
        self.note(f"leave {conn.id} {len(self.connections)}")


def lines(stage: Stage) -> list[str]:
    """Return what the diary holds."""
    return orjson.loads(stage.activation.context.state.stored["lines"])  # type: ignore[no-any-return]


# --- start ------------------------------------------------------------------------------------------------------------
async def test_create_runs_once_and_start_every_time() -> None:
    """The first time ever both run, later only on_start; what they did is in the turn of the first event."""
    first = Stage(Diary, created=False)
    await first.activation.start()
    assert lines(first) == ["create", "start"]
    assert set(first.activation.turn.state_set) == {"lines"}
    later = Stage(Diary, state={"lines": ["old"]})
    await later.activation.start()
    assert lines(later) == ["old", "start"]


async def test_a_start_that_fails_leaves_nothing_and_can_be_tried_again() -> None:
    """Neither on_create nor on_start of a failed start counts; the next try runs both again."""
    tries: list[str] = []

    class Fragile(Diary):
        def on_start(self) -> None:
            super().on_start()
            self.broadcast("up")
            tries.append("x")
            if len(tries) == 1:
                raise OSError("not yet")

    stage = Stage(Fragile, created=False)
    with pytest.raises(OSError, match="not yet"):
        await stage.activation.start()
    assert stage.activation.turn.is_empty
    assert not stage.activation.context.state
    await stage.activation.start()
    assert lines(stage) == ["create", "start"]
    assert stage.activation.turn.outputs == [(b"text *", b'"up"')]


async def test_members_come_back_in_the_order_they_joined() -> None:
    """After a takeover equal connections stand for the sockets, oldest join first, with their state."""
    stage = await staged(Diary, members={"b": row(9), "a": row(12, state=[1]), "c": row(2)})
    assert stage.members == ["c", "b", "a"]
    assert stage.activation.context.members["a"].state == [1]


# --- joins, messages, leaves ------------------------------------------------------------------------------------------
async def test_a_join() -> None:
    """The join mark comes before what on_connect sends; the member's row is in the same turn."""
    stage = await staged(Diary)
    turn = await stage.join("c1", name="ann")
    assert turn.outputs == [(b"join 1 c1", b""), (b"text +1", b'"hi"')]
    assert orjson.loads(turn.members_set["c1"]) == {
        "join": 1, "edge": "e1", "session": "", "user": ["ann", "ann"], "state": None,
    }  # fmt: skip
    assert lines(stage)[-1] == "connect ann 1"
    assert turn.consumed == [b"1-1"]


async def test_a_message() -> None:
    """Text is decoded, binary is bytes, and the sender is the member."""
    stage = await staged(Diary)
    await stage.join()
    assert (await stage.say({"a": 1})).outputs == [(b"text *", b'{"a":1}')]
    assert (await stage.handle("binary", data=b"\x00")).outputs == [(b"binary *", b"\x00")]
    assert lines(stage)[-2:] == ["message c1 {'a': 1}", "message c1 b'\\x00'"]


async def test_a_leave() -> None:
    """The member is out before on_leave runs, and its row goes in the same turn."""
    stage = await staged(Diary)
    await stage.join()
    turn = await stage.handle("leave")
    assert (turn.members_del, stage.members, lines(stage)[-1]) == ({"c1"}, [], "leave c1 0")


async def test_edge_gone_is_a_leave_of_each_of_its_members() -> None:
    """One event makes the leaves of that edge's members only, in order, and is one consumed event."""
    stage = await staged(Diary, members={"a": row(1), "b": row(2, edge="e2"), "c": row(3)})
    turn = await stage.handle("edge-gone", "-", edge="e1")
    assert (turn.members_del, stage.members) == ({"a", "c"}, ["b"])
    assert lines(stage)[-2:] == ["leave a 2", "leave c 1"]
    assert len(turn.consumed) == 1


@pytest.mark.parametrize("kind", ["text", "binary", "leave", "edge-gone", "drop", "timer", "nonsense"])
async def test_void_events(kind: str) -> None:
    """An event of nobody here, or of a kind this version does not know, is consumed and reaches no hook."""
    stage = await staged(Diary)
    turn = await stage.handle(kind, "stranger", b"1", edge="e9")
    assert lines(stage) == ["start"]
    assert (len(turn.consumed), turn.outputs, turn.dead) == (1, [], [])
    assert stage.activation.void_count == (0 if kind == "edge-gone" else 1)


async def test_a_second_join_of_a_member_is_void() -> None:
    """A join that stands twice in an inbox runs on_connect once."""
    stage = await staged(Diary)
    await stage.join()
    assert (await stage.join()).outputs == []
    assert (stage.activation.void_count, stage.members) == (1, ["c1"])


async def test_text_that_is_not_json() -> None:
    """It reaches no hook; the sender alone is told."""
    stage = await staged(Diary)
    await stage.join()
    turn = await stage.handle("text", data=b"{no")
    assert turn.outputs == [(b"text +1", b'{"error":"invalid_json"}')]
    assert (turn.dead, turn.state_set) == ([], {})


async def test_a_raw_room() -> None:
    """In raw rooms text is str, whatever it holds, and goes out as it came."""

    class Raw(Diary):
        codec = "raw"

    stage = await staged(Raw)
    await stage.join()
    assert (await stage.handle("text", data=b"{no")).outputs == [(b"text *", b"{no")]


async def test_the_state_of_a_connection_is_in_its_row() -> None:
    """A hook that changes conn.state writes that member's row, and only if it changed."""

    class Counting(Room):
        def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
            for each in self.connections:
                each.state = {**(each.state or {}), "n": message}

    stage = await staged(Counting, members={"a": row(1, state={"n": 5}), "b": row(2)})
    turn = await stage.say(5, "a")
    assert {name: orjson.loads(data)["state"] for name, data in turn.members_set.items()} == {"b": {"n": 5}}


async def test_events_of_one_turn_add_up() -> None:
    """Several events between two commits make one delta, outputs in order, every id consumed."""
    stage = await staged(Diary)
    activation = stage.activation
    await stage.run("join", "a", b'{"user":["u","u"]}')
    await stage.run("text", "a", b"1")
    await stage.run("leave", "a")
    await stage.run("join", "b", b'{"user":["u","u"]}')
    turn = take_turn(activation)
    assert [header for header, _ in turn.outputs] == [b"join 1 a", b"text +1", b"text *", b"join 4 b", b"text +4"]
    assert (set(turn.members_set), turn.members_del) == ({"b"}, {"a"})
    assert (len(turn.consumed), take_turn(activation).is_empty) == (4, True)


# --- async hooks ------------------------------------------------------------------------------------------------------
class Waiting(Room):
    """Waits as often as the message says."""

    async def on_message(self, conn: Connection, message: Any) -> None:
        """Wait, then answer."""
        for _ in range(message):
            await asyncio.sleep(0)
        conn.send(message)
        if message == 9:
            raise RuntimeError("after waiting")

    async def on_error(self, error: Exception, event: Event) -> None:
        """Tell everybody."""
        self.broadcast([str(error), event.kind])


@pytest.mark.parametrize(("times", "calls"), [(0, []), (1, ["suspend", "resume"]), (5, ["suspend", "resume"])])
async def test_a_hook_that_waits_is_told_once(times: int, calls: list[str]) -> None:
    """An async hook that does not wait costs nothing; one that does is told when it first waits, and at its end."""
    stage = await staged(Waiting, members={"c1": row(1)})
    turn = await stage.say(times)
    assert stage.calls == calls
    assert turn.outputs == [(b"text +1", b"%d" % times)]


async def test_a_hook_that_waited_and_raised() -> None:
    """The end of a waiting hook is told also when it raises; on_error then runs."""
    stage = await staged(Waiting, members={"c1": row(1)})
    turn = await stage.say(9)
    assert stage.calls == ["suspend", "resume"]
    assert turn.outputs == [(b"text +1", b'{"error":"handler_failed"}'), (b"text *", b'["after waiting","text"]')]


async def test_a_cancelled_hook_is_told_to_have_ended() -> None:
    """Cancelling reaches the hook itself, and its end is told."""
    seen: list[str] = []

    class Hanging(Room):
        async def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

    stage = await staged(Hanging, members={"c1": row(1)})
    task = asyncio.create_task(stage.say(1))
    await asyncio.sleep(0)  # the hook's first step
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (seen, stage.calls) == (["cancelled"], ["suspend", "resume"])


async def test_what_a_waiting_hook_did_is_not_in_the_turn_yet() -> None:
    """A commit under a waiting hook holds the earlier events whole and nothing of the running one."""
    gate = asyncio.Event()

    class Slow(Diary):
        async def on_message(self, conn: Connection, message: Any) -> None:
            super().on_message(conn, message)
            conn.state = message
            await gate.wait()

    stage = await staged(Slow, members={"c1": row(1)})
    await stage.run("join", "c2", b'{"user":["u","u"]}')
    task = asyncio.create_task(stage.say("late"))
    await asyncio.sleep(0)  # the hook's first step
    early = stage.take_turn()
    assert (early.consumed, set(early.members_set)) == ([b"1-1"], {"c2"})
    assert b"late" not in early.state_set["lines"]
    gate.set()
    turn = await task
    assert (turn.consumed, set(turn.members_set), len(turn.outputs)) == ([b"2-2"], {"c1"}, 1)


async def test_a_sealed_hook() -> None:
    """After its turn was sealed a hook's calls raise, and nothing of it is kept."""

    class Late(Room):
        async def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
            self.broadcast("before")
            stage.activation.seal("cut")
            conn.send("after")

    stage = await staged(Late, members={"c1": row(1)})
    turn = await stage.say(1)
    assert turn.outputs == [(b"text +1", b'{"error":"handler_failed"}')]
    assert "TurnClosed" in turn.dead[0].traceback
    with pytest.raises(TurnClosed):
        _ = stage.activation.room.state


# --- refusals ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("error", "body"),
    [
        (Refused("members only"), b"4403 members only"),
        (Refused(), b"4403 refused"),
        (Refused("é" * 100), b"4403 " + "é".encode() * 60),
        (Refused("x" * 119 + "é"), b"4403 " + b"x" * 119),
    ],
)
async def test_a_refused_join(error: Refused, body: bytes) -> None:
    """Refused closes the socket with 4403 and its text, cut at a character; that is no failure and leaves no member."""

    class Closed(Diary):
        def on_connect(self, conn: Connection) -> None:
            super().on_connect(conn)
            conn.state = 1
            raise error

    stage = await staged(Closed)
    turn = await stage.join()
    assert turn.outputs == [(b"refuse c1", body)]
    assert (turn.dead, turn.state_set, turn.members_set, stage.members) == ([], {}, {}, [])
    assert (await stage.handle("leave")).state_set == {}
    assert stage.activation.void_count == 1
