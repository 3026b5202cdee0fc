"""Timers in a room instance: what schedule and cancel ask for, which events run on_timer, and what failures do."""

import asyncio
from typing import Any

import orjson
import pytest

from harness.activations import Stage, row, staged
from innkeeper import Connection, Event, Room, StateInvalid, Timer, TimerInvalid, TurnClosed
from innkeeper.timers import GraceRow, TimerRow
from innkeeper.turn import Turn


class Clock(Room):
    """Does with timers what messages and payloads say."""

    def do(self, what: Any) -> None:
        """Schedule, cancel, show or fail."""
        for verb, *rest in what or []:
            match verb:
                case "schedule":
                    self.schedule(rest[0], **rest[1])
                case "cancel":
                    self.broadcast(self.cancel(rest[0]))
                case "show":
                    self.broadcast([list(timer) for timer in self.timers.values()])
                case "destroy":
                    self.destroy()
                case "raise":
                    raise RuntimeError("told to")
                case _:
                    raise ValueError(verb)

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Do it."""
        self.do(message)

    def on_timer(self, name: str, payload: Any) -> Any:
        """Note it, then do it."""
        self.state.setdefault("ran", []).append(name)
        self.do(payload)

    def on_error(self, error: Exception, event: Event) -> None:
        """Tell everybody."""
        self.broadcast(["error", str(error), event.kind, event.connection])


async def stage_of(room: type[Room] = Clock, /, **timers: TimerRow | GraceRow) -> Stage:
    """Return a stage of a room with one member and timers."""
    stored = {name.replace("grace_", "~grace:"): timer.to_row() for name, timer in timers.items()}
    return await staged(room, members={"c1": row(1)}, timers=stored)


async def fired(stage: Stage, name: str, timer_id: str = "1-1.1", kind: str = "timer") -> Turn:
    """Run a timer's event; return its turn."""
    return await stage.handle(kind, "-", orjson.dumps({"name": name, "id": timer_id, "due": 5}), "")


def rows(turn: Turn) -> dict[str, dict[str, Any]]:
    """Return the timers that a turn sets."""
    return {name: orjson.loads(data) for name, data in turn.timers_set.items()}


ONCE = TimerRow("1-1.1", 5)
EVERY = TimerRow("1-1.1", 5, every_ms=1000)


# --- what a handler asks for ------------------------------------------------------------------------------------------
async def test_schedules_are_in_the_turn() -> None:
    """Rows have ids of their event; the handler sees its timers at once, the next one first."""
    stage = await stage_of()
    turn = await stage.say(
        [["schedule", "b", {"at": 7, "payload": {"x": []}}], ["schedule", "a", {"every": 2, "at": 9, "missed": "all"}],
         ["show"]]
    )  # fmt: skip
    assert turn.timers_set == {
        "b": b'{"id":"1-1.1","due":7000,"payload":{"x":[]}}',
        "a": b'{"id":"1-1.2","due":9000,"every":2000,"missed":"all","payload":null}',
    }
    assert orjson.loads(turn.outputs[0][1]) == [["b", 7.0, {"x": []}, None, None], ["a", 9.0, None, 2.0, None]]
    later = await stage.say([["schedule", "b", {"at": 8}], ["cancel", "a"], ["cancel", "a"], ["cancel", "c"], ["show"]])
    assert (rows(later), later.timers_del) == ({"b": {"id": "2-2.1", "due": 8000, "payload": None}}, {"a"})
    assert [data for _, data in later.outputs] == [b"true", b"false", b"false", b'[["b",8.0,null,null,null]]']


async def test_events_of_one_turn_add_up() -> None:
    """What a later event of the turn says of a timer wins."""
    stage = await stage_of()
    for event in ([["schedule", "a", {"at": 1}]], [["cancel", "a"], ["schedule", "b", {"at": 1}]]):
        await stage.run("text", "c1", orjson.dumps(event))
    await stage.run("text", "c1", orjson.dumps([["cancel", "b"], ["schedule", "a", {"at": 3}]]))
    turn = stage.take_turn()
    assert (set(rows(turn)), turn.timers_del) == ({"a"}, {"b"})
    assert rows(turn)["a"]["due"] == 3000


async def test_a_failed_event_changes_no_timer() -> None:
    """What it scheduled and cancelled is undone with the rest."""
    stage = await stage_of(old=ONCE)
    turn = await stage.say([["schedule", "a", {"at": 1}], ["cancel", "old"], ["raise"]])
    assert (turn.timers_set, turn.timers_del) == ({}, set())
    assert orjson.loads((await stage.say([["show"]])).outputs[0][1]) == [["old", 0.005, None, None, None]]


async def test_a_room_without_on_timer() -> None:
    """It cannot schedule, and is told why."""
    stage = await stage_of(Room)
    with pytest.raises(TimerInvalid, match="Room has no on_timer"):
        stage.activation.room.schedule("x", after=1)


async def test_bad_calls() -> None:
    """Names, times and payloads are checked at the call; nothing of a bad one stays."""
    stage = await stage_of()
    room = stage.activation.room
    for name in ("~x", "", "x" * 129):
        with pytest.raises(ValueError, match="timer name"):
            room.schedule(name, after=1)
    with pytest.raises(ValueError, match="not below 0"):
        room.schedule("x", after=-1)
    with pytest.raises(StateInvalid, match="payload of timer 'x'"):
        room.schedule("x", after=1, payload=object())
    with pytest.raises(TimerInvalid, match="16384"):
        room.schedule("x", after=1, payload="x" * 16_384)
    with pytest.raises(TimerInvalid, match="timer name"):
        room.cancel("~grace:s")
    assert not room.timers
    with pytest.raises(TypeError):
        room.timers["x"] = None  # type: ignore[index]


async def test_no_more_than_a_thousand() -> None:
    """The limit counts what is there; setting one anew is no more."""
    stage = await stage_of(grace_s=GraceRow("1-1.1", 5, "c", 1, "e"), **{f"t{n}": ONCE for n in range(999)})
    room = stage.activation.room
    room.schedule("new", after=1)
    room.schedule("new", after=2)
    with pytest.raises(TimerInvalid, match="1000"):
        room.schedule("one more", after=1)
    room.cancel("t5")
    room.schedule("one more", after=1)


async def test_a_sealed_room_schedules_nothing() -> None:
    """After the turn was cut every call raises."""
    stage = await stage_of()
    stage.activation.seal("cut")
    room = stage.activation.room
    for call in (lambda: room.schedule("x", after=1), lambda: room.cancel("x"), lambda: room.timers):
        with pytest.raises(TurnClosed):
            call()


async def test_a_start_may_schedule() -> None:
    """What on_create and on_start schedule is in the first turn, with ids of the claim."""

    class Starting(Clock):
        def on_create(self) -> None:
            self.schedule("a", after=1)

        def on_start(self) -> None:
            self.schedule("b", after=2)

    stage = Stage(Starting, created=False)
    await stage.activation.start()
    found = {name: data["id"] for name, data in rows(stage.take_turn()).items()}
    assert found == {"a": "0-1.1", "b": "0-1.2"}


# --- events -----------------------------------------------------------------------------------------------------------
async def test_a_single_timer_runs_and_is_gone() -> None:
    """The hook gets name and payload; the row goes in the same turn."""
    stage = await stage_of(x=TimerRow("1-1.1", 5, b'[["show"]]'))
    turn = await fired(stage, "x")
    assert (turn.timers_set, turn.timers_del, turn.outputs) == ({}, {"x"}, [(b"text *", b"[]")])
    assert orjson.loads(turn.state_set["ran"]) == ["x"]
    assert len(turn.consumed) == 1


async def test_a_repeating_timer_goes_on() -> None:
    """The next tick has a new id and the old rest."""
    stage = await stage_of(x=EVERY)
    turn = await fired(stage, "x")
    assert rows(turn) == {"x": {"id": "1-1.1", "due": 1005, "every": 1000, "missed": "skip", "payload": None}}


@pytest.mark.parametrize("name", ["x", "y", 5, None])
@pytest.mark.parametrize("timer_id", ["1-1.2", 5, None])
async def test_events_of_timers_that_are_not_set(name: Any, timer_id: Any) -> None:
    """Set anew, cancelled, run already, or nonsense: the event is void."""
    stage = await stage_of(x=ONCE, grace_s=GraceRow("1-1.1", 5, "c", 1, "e"))
    turn = await fired(stage, name, timer_id)
    assert (turn.timers_set, turn.timers_del, turn.state_set, len(turn.consumed)) == ({}, set(), {}, 1)
    assert stage.activation.void_count == 1


async def test_the_framework_s_rows_are_not_the_handler_s() -> None:
    """An event cannot run a grace as a timer, and the handler does not see it."""
    stage = await stage_of(grace_s=GraceRow("1-1.1", 5, "c", 1, "e"))
    await fired(stage, "~grace:s")
    assert stage.activation.void_count == 1
    assert not stage.activation.room.timers


async def test_a_hook_may_set_its_own_timer_anew_or_cancel_it() -> None:
    """What it says stands in the place of what would have followed."""
    again = TimerRow("1-1.1", 5, orjson.dumps([["schedule", "x", {"at": 60}]]))
    turn = await fired(await stage_of(x=again), "x")
    assert (rows(turn)["x"]["due"], turn.timers_del) == (60_000, set())
    cancelled = TimerRow("1-1.1", 5, orjson.dumps([["cancel", "x"]]), every_ms=1000)
    turn = await fired(await stage_of(x=cancelled), "x")
    assert (turn.timers_set, turn.timers_del) == ({}, {"x"})


async def test_a_timer_may_destroy_the_room() -> None:
    """Nothing of timers is written with the end."""
    stage = await stage_of(x=TimerRow("1-1.1", 5, b'[["destroy"]]', every_ms=1000), y=ONCE)
    turn = await fired(stage, "x")
    assert (turn.destroy, turn.timers_set, turn.timers_del) == (True, {}, set())


# --- failures ---------------------------------------------------------------------------------------------------------
FAILING = TimerRow("1-1.1", 5, orjson.dumps([["schedule", "y", {"at": 1}], ["raise"]]), every_ms=1000)


async def test_a_failed_timer_is_tried_again() -> None:
    """Its effects are undone, and its row tries again two seconds later; nobody is told yet."""
    stage = await stage_of(x=FAILING)
    turn = await fired(stage, "x")
    assert (turn.dead, turn.outputs, turn.state_set) == ([], [], {})
    found = rows(turn)
    assert found.keys() == {"x"}
    assert found["x"] == {
        "id": "1-1.3", "due": 2000, "every": 1000, "missed": "skip", "tries": 1, "tick": 5,
        "payload": [["schedule", "y", {"at": 1}], ["raise"]],
    }  # fmt: skip
    assert (await fired(stage, "x", "1-1.1")).consumed == [b"2-2"]
    assert stage.activation.void_count == 1


@pytest.mark.parametrize("every_ms", [0, 1000])
async def test_after_eight_tries_it_is_put_aside(every_ms: int) -> None:
    """Then on_error runs; a single timer is gone, a repeating one goes on."""
    stage = await stage_of(x=TimerRow("1-1.1", 5, b'[["raise"]]', every_ms=every_ms))
    timer_id, turn = "1-1.1", Turn()
    for _ in range(8):
        assert not turn.dead
        turn = await fired(stage, "x", timer_id)
        timer_id = rows(turn).get("x", {}).get("id", "")
    assert [dead.error for dead in turn.dead] == ["RuntimeError: told to"]
    assert turn.outputs == [(b"text *", b'["error","told to","timer",null]')]
    if every_ms:
        assert rows(turn)["x"] == {
            "id": timer_id, "due": 1005, "every": 1000, "missed": "skip", "payload": [["raise"]],
        }  # fmt: skip
    else:
        assert (turn.timers_set, turn.timers_del) == ({}, {"x"})


async def test_a_retry_that_succeeds() -> None:
    """The grid goes on from the tick that was tried, and failures are forgotten."""
    stage = await stage_of(x=TimerRow("1-1.1", 9_000, every_ms=1000, tries=3, tick_ms=5))
    assert rows(await fired(stage, "x"))["x"] == {
        "id": "1-1.1", "due": 1005, "every": 1000, "missed": "skip", "payload": None,
    }  # fmt: skip


async def test_a_timer_whose_effects_cannot_be_stored() -> None:
    """That is a failure like any other."""

    class Odd(Clock):
        def on_timer(self, name: str, payload: Any) -> None:  # noqa: ARG002 - the hook's signature
            self.state[name] = object()

    turn = await fired(await stage_of(Odd, x=ONCE), "x")
    assert (turn.state_set, rows(turn)["x"]["tries"]) == ({}, 1)


async def test_a_class_that_has_lost_its_hook() -> None:
    """The timer is tried again: the next version of the code may have it."""

    class Bare(Room):
        pass

    turn = await fired(await stage_of(Bare, x=ONCE), "x")
    assert (rows(turn)["x"]["tries"], turn.dead) == (1, [])


@pytest.mark.parametrize("every_ms", [0, 1000])
async def test_a_condemned_timer(every_ms: int) -> None:
    """Put aside without running: a single one is gone, a repeating one goes on."""
    stage = await stage_of(x=TimerRow("1-1.1", 5, every_ms=every_ms))
    data = orjson.dumps({"name": "x", "id": "1-1.1", "due": 5})
    stage.activation.condemn(stage.event("timer", "-", data, ""), "it hung")
    turn = stage.take_turn()
    assert [dead.error for dead in turn.dead] == ["it hung"]
    assert (set(turn.timers_set), turn.timers_del) == (({"x"}, set()) if every_ms else (set(), {"x"}))
    assert len(turn.consumed) == 1


async def test_a_hook_that_waits_shows_nothing_before_its_end() -> None:
    """A commit under a waiting on_timer holds the row as it was."""
    gate = asyncio.Event()

    class Slow(Clock):
        async def on_timer(self, name: str, payload: Any) -> None:  # noqa: ARG002 - the hook's signature
            self.schedule("y", after=1)
            await gate.wait()

    stage = await stage_of(Slow, x=ONCE)
    task = asyncio.create_task(fired(stage, "x"))
    await asyncio.sleep(0)
    early = stage.take_turn()
    assert (early.timers_set, early.timers_del, early.consumed) == ({}, set(), [])
    gate.set()
    turn = await task
    assert (set(turn.timers_set), turn.timers_del) == ({"y"}, {"x"})


# --- lost events ------------------------------------------------------------------------------------------------------
def marked(timer: TimerRow) -> bytes:
    """Return a row as the act fire leaves it."""
    return b'{"fired":true,' + timer.to_row()[1:]


async def test_a_fired_timer_whose_event_is_lost() -> None:
    """Nothing waits in the inbox when the room starts: the timer fires anew, under a new id."""
    stage = Stage(Clock, timers={"x": marked(EVERY), "y": ONCE.to_row()}, iseq=3, cursor=3)
    await stage.activation.start()
    assert rows(stage.take_turn()) == {"x": {"id": "0-1.1", "due": 5, "every": 1000, "missed": "skip", "payload": None}}


async def test_a_fired_timer_whose_event_waits() -> None:
    """It runs once; what is still marked after the last event known at the claim fires anew."""
    stage = await staged(Clock, members={"c1": row(1)}, timers={"x": marked(ONCE), "y": marked(EVERY)}, iseq=2)
    assert (await fired(stage, "x")).timers_del == {"x"}
    turn = await stage.say([])
    assert rows(turn) == {"y": {"id": "2-2.1", "due": 5, "every": 1000, "missed": "skip", "payload": None}}
    assert rows(await stage.say([])) == {}


async def test_rows_that_cannot_be_read() -> None:
    """They stay as they are, and the room works."""
    stage = await staged(Clock, members={"c1": row(1)}, timers={"x": b"{}", "y": ONCE.to_row()})
    assert list(stage.activation.room.timers) == ["y"]
    assert (await stage.say([["cancel", "x"]])).outputs == [(b"text *", b"false")]


# --- the grace of sessions --------------------------------------------------------------------------------------------
async def test_a_grace_is_a_row_of_the_turn() -> None:
    """It is set and cleared with the running event."""
    stage = await stage_of()
    timers = stage.activation.context.timers
    timers.set_grace(session="s1", connection="c-1", generation=3, edge="e1", due_ms=9)
    stage.activation._hooks.settle()
    turn = stage.take_turn()
    assert turn.timers_set == {"~grace:s1": b'{"id":"0-1.1","due":9,"connection":"c-1","generation":3,"edge":"e1"}'}
    timers.clear_grace("s1")
    timers.clear_grace("s2")
    stage.activation._hooks.settle()
    assert stage.take_turn().timers_del == {"~grace:s1"}
    timers.clear_grace("s1")
    stage.activation._hooks.settle()
    assert stage.take_turn().is_empty


def test_what_users_import() -> None:
    """The types of this page are part of the package."""
    assert Timer("x", 1.0, None, None, None).due_s == 1.0


@pytest.mark.parametrize("timers", [{}, {"x": ONCE.to_row()}])
async def test_what_creates_a_room(timers: dict[str, bytes]) -> None:
    """A timer's event that is left over creates none; one whose timer is set wants its hook."""
    stage = Stage(Clock, timers=timers, created=False)
    event = stage.event("timer", "-", b'{"name":"x","id":"1-1.1","due":5}', "")
    assert stage.activation.concerns_nobody(event) == (not timers)
