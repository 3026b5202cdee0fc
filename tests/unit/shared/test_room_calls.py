"""What rooms call, run on a room instance: tags, the limit of members, time and chance, destroy, sleep."""

import asyncio
import logging
import uuid
from typing import Any

import orjson
import pytest

from harness.activations import Stage, row, staged, take_turn
from innkeeper import Connection, Event, Room


class Told(Room):
    """Does what its messages say: Python lines about ``room`` and ``conn``; keeps what is put into ``seen``."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_message(self, conn: Connection, message: str) -> None:
        """Do it."""
        exec(message, {"room": self, "conn": conn, "seen": self.seen})  # noqa: S102 - a test's own words


def tagged(join: int, *tags: str) -> bytes:
    """Return a row of ``members`` with tags."""
    return orjson.dumps({**orjson.loads(row(join)), "tags": tags})


async def crowd() -> Stage:
    """Return a stage with five members of several tags."""
    members = {
        "c1": row(1),
        "c2": tagged(2, "red"),
        "c3": tagged(3, "red", "vip"),
        "c4": tagged(4, "blue"),
        "c5": row(5),
    }
    return await staged(Told, members=members)


async def addressed(stage: Stage, line: str) -> list[bytes]:
    """Run a line; return the headers of its outputs."""
    turn = await stage.say(line)
    assert turn.dead == [], turn.dead[0].traceback
    return [header for header, _ in turn.outputs]


async def seen(stage: Stage, line: str) -> Any:
    """Run a line that must not fail; return what it put into ``seen``."""
    turn = await stage.say(line)
    assert turn.dead == [], turn.dead[0].traceback
    room = stage.activation.room
    assert isinstance(room, Told)
    return room.seen.pop()


# --- tags -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "headers"),
    [
        ("tags='red'", [b"text +2,3"]),
        ("tags=['red', 'blue']", [b"text +2,3,4"]),
        ("tags={'vip', 'red'}", [b"text +2,3"]),
        ("tags='nobody'", []),
        ("tags=[]", []),
        ("tags='red', exclude=room.connections.get('c3')", [b"text +2"]),
        ("tags='blue', exclude=room.get_connections('blue')", []),
        ("exclude=room.get_connections('red')", [b"text -2,3"]),
        ("exclude=(c for c in room.connections if c is not conn)", [b"text -2,3,4,5"]),
        ("exclude=conn", [b"text -1"]),
        ("exclude=[]", [b"text *"]),
        ("exclude=None", [b"text *"]),
        ("exclude=conn.id", [b"text -1"]),
        ("exclude=[conn.id, 'c3', 'nobody']", [b"text -1,3"]),
        ("tags='red', exclude=['c3']", [b"text +2"]),
        ("", [b"text *"]),
    ],
)
async def test_whom_a_broadcast_reaches(call: str, headers: list[bytes]) -> None:
    """The worker names the members by their joins: those with at least one of the tags, without those excluded."""
    assert await addressed(await crowd(), f"room.broadcast(1, {call})") == headers


@pytest.mark.parametrize("exclude", ["5", "[5]", "[None, object()]", "{'c1': 1}.items()"])
async def test_what_cannot_be_excluded(exclude: str) -> None:
    """Neither a connection nor an id: an error that says so, and nothing is sent."""
    turn = await (await crowd()).say(f"room.broadcast(1, exclude={exclude})")
    assert turn.dead[0].error.startswith("TypeError")
    assert [header for header, _ in turn.outputs] == [b"text +1"]  # that the handler failed


async def test_a_broadcast_to_nobody_is_still_looked_at() -> None:
    """What the codec cannot send is an error also where nobody has the tag."""
    turn = await (await crowd()).say("room.broadcast(object(), tags='nobody')")
    assert turn.dead[0].error.startswith("cannot send this value")


async def test_members_by_tag() -> None:
    """get_connections gives members in the order they joined, all without a tag."""
    stage = await crowd()
    assert await seen(stage, "seen.append([c.id for c in room.get_connections('red')])") == ["c2", "c3"]
    assert await seen(stage, "seen.append(room.get_connections('none'))") == []
    assert await seen(stage, "seen.append(len(room.get_connections()))") == 5


async def test_tags_are_stored_and_count_at_once() -> None:
    """A change of tags is in the member's row, in one order, and in what the same event sends after it."""
    stage = await crowd()
    turn = await stage.say("conn.tags.update(['vip', 'a']); room.broadcast(1, tags='vip')")
    assert [header for header, _ in turn.outputs] == [b"text +1,3"]
    assert orjson.loads(turn.members_set["c1"])["tags"] == ["a", "vip"]
    again = await staged(Told, members={"c1": turn.members_set["c1"]})
    assert await seen(again, "seen.append(conn.tags)") == {"a", "vip"}
    assert (await again.say("conn.tags.add('a')")).members_set == {}
    emptied = await again.say("conn.tags.clear()")
    assert "tags" not in orjson.loads(emptied.members_set["c1"])
    assert orjson.loads((await again.say("conn.tags = ('x', 'y')")).members_set["c1"])["tags"] == ["x", "y"]


async def test_tags_of_a_failed_event_are_undone() -> None:
    """So are those it set as a whole."""
    stage = await crowd()
    for line in ("conn.tags.add('red')", "conn.tags = {'red'}", "conn.tags = ['red']; conn.state = object()"):
        assert len((await stage.say(f"{line}; raise OSError")).dead) == 1
    assert await addressed(stage, "room.broadcast(1, tags='red')") == [b"text +2,3"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("conn.tags = 'vip'", "TypeError: conn.tags = 'vip'"),
        ("conn.tags.add(5)", "conn.tags of c1: tags are text"),
        ("conn.tags = ['x' * 20_000]", "conn.state of c1, tags included, is over 16384 bytes"),
    ],
)
async def test_tags_that_cannot_be(line: str, error: str) -> None:
    """One text as all tags, other values, or too many fail the event."""
    stage = await crowd()
    turn = await stage.say(line)
    assert turn.dead[0].error.startswith(error)
    assert turn.members_set == {}


# --- the limit of members ---------------------------------------------------------------------------------------------
async def test_a_full_room() -> None:
    """One more member than the limit is closed with 4503 and reaches no hook; a leave makes room again."""

    class Pair(Told):
        max_connections = 2

        def on_connect(self, conn: Connection) -> None:
            self.seen.append(conn.id)
            if conn.user.name == "bad":
                raise OSError

    stage = await staged(Pair)
    await stage.join("c1")
    assert (await stage.join("c2", name="bad")).outputs == [(b"refuse c2", b"4403 refused")]
    await stage.join("c3")
    turn = await stage.join("c4")
    assert (turn.outputs, turn.dead, turn.members_set) == ([(b"refuse c4", b"4503 room full")], [], {})
    await stage.handle("leave", "c1")
    await stage.join("c5")
    room = stage.activation.room
    assert isinstance(room, Pair)
    assert (room.seen, stage.members) == (["c1", "c2", "c3", "c5"], ["c3", "c5"])


async def test_members_over_a_lowered_limit_stay() -> None:
    """New code with a lower limit throws nobody out."""
    lowered = type("Lowered", (Told,), {"max_connections": 1})
    stage = await staged(lowered, members={"c1": row(1), "c2": row(2)})
    assert (await stage.join("c3")).outputs == [(b"refuse c3", b"4503 room full")]
    assert stage.members == ["c1", "c2"]


@pytest.mark.parametrize("most", [0, -1, 1.5, "2"])
def test_a_limit_that_is_none(most: Any) -> None:
    """The limit is a whole number from 1, or None."""
    with pytest.raises(ValueError, match=r"max_connections = .* a whole number from 1"):
        type("Bad", (Room,), {"max_connections": most})


# --- time and chance --------------------------------------------------------------------------------------------------
CHANCE = "seen.append([room.now(), room.random.random(), room.new_id(), room.new_id()])"


async def test_time_and_chance_are_the_events_own() -> None:
    """A second run of the same event, in a new instance, finds the same; another event or room something else."""
    first, second = await crowd(), await crowd()
    one = await seen(first, CHANCE)
    two = await seen(first, CHANCE)
    assert [await seen(second, CHANCE), await seen(second, CHANCE)] == [one, two]
    assert one[0] == 1 / 1_000_000
    assert len({*one[1:], *two[1:]}) == 6
    elsewhere = await staged(type("Else", (Told,), {}), members={"c1": row(1)})
    assert not {*(await seen(elsewhere, CHANCE))[1:]} & {*one}


async def test_new_ids_are_ids() -> None:
    """32 hex digits, all of them used."""
    ids = await seen(await crowd(), "seen.append([room.new_id() for _ in range(2000)])")
    assert len(set(ids)) == 2000
    assert all(uuid.UUID(hex=text).hex == text for text in ids)
    assert all(len({text[place] for text in ids}) == 16 for place in range(32))


async def test_new_ids_do_not_depend_on_chance() -> None:
    """A handler that seeds its chance gets ids of its own all the same."""
    stage = await crowd()
    call = "room.random.seed(7); seen.append(room.new_id())"
    assert len({await seen(stage, call) for _ in range(3)}) == 3


async def test_the_time_of_a_start_is_the_claims() -> None:
    """Before the first event now() is when the worker took the room; in on_leave and on_error it is the event's."""

    class Clock(Told):
        def on_create(self) -> None:
            self.state["create"] = self.now()

        def on_start(self) -> None:
            self.state["start"] = self.now()

        def on_leave(self, conn: Connection) -> None:  # noqa: ARG002 - the hook's signature
            self.state["leave"] = self.now()

        def on_error(self, error: Exception, event: Event) -> None:  # noqa: ARG002 - the hook's signature
            self.state["error"] = self.now()

    stage = Stage(Clock, members={"c1": row(1)}, created=False)
    await stage.activation.start()
    await stage.run("text", data=b'"raise OSError"')
    await stage.handle("leave")
    stored = stage.activation.context.state.stored
    times = {key: round(float(data) * 1_000_000) for key, data in stored.items()}
    assert times == {"create": 1, "start": 1, "error": 1, "leave": 2}


# --- destroy ----------------------------------------------------------------------------------------------------------
class Doomed(Told):
    """Ends when told to, and says who left."""

    def on_create(self) -> None:
        """Make some state."""
        self.state["made"] = True

    def on_leave(self, conn: Connection) -> None:
        """Tell those who are still there."""
        self.broadcast(["left", conn.id, len(self.connections)])
        self.state["last"] = conn.id
        if conn.state == "bad":
            raise OSError


DOOM = "room.state['x'] = 1; room.broadcast('before'); room.destroy(); room.broadcast('after')"


async def test_destroy_ends_the_room_with_the_event() -> None:
    """What the event sends arrives, then everybody leaves, closed with 4404; of the turn's changes nothing stays."""
    stage = await staged(Doomed, state={"made": True}, members={"c1": row(1), "c2": row(2)})
    await stage.run("text", "c2", b"\"room.state['y'] = 2\"")
    await stage.run("join", "c3", b'{"user":["u","u"]}')
    turn = await stage.say(DOOM)
    assert turn.outputs == [
        (b"join 2 c3", b""), (b"text *", b'"before"'), (b"text *", b'"after"'),
        (b"close +1", b"4404 room destroyed"), (b"text *", b'["left","c1",2]'),
        (b"close +2", b"4404 room destroyed"), (b"text *", b'["left","c2",1]'),
        (b"close +2", b"4404 room destroyed"), (b"text *", b'["left","c3",0]'),
    ]  # fmt: skip
    assert turn.destroy
    assert (turn.state_set, turn.state_del, turn.members_set, turn.members_del) == ({}, set(), {}, set())
    assert len(turn.consumed) == 3
    assert stage.members == []


async def test_destroy_ends_the_turn() -> None:
    """Whatever follows wants a fresh room: a turn that destroys is full."""
    stage = await staged(Doomed, members={"c1": row(1)})
    await stage.run("text", data=orjson.dumps("1"))
    assert not stage.activation.turn.is_full
    await stage.run("text", data=orjson.dumps(DOOM))
    assert stage.activation.turn.is_full


@pytest.mark.parametrize("hook", ["on_connect", "on_leave", "on_error"])
async def test_destroy_in_other_hooks(hook: str) -> None:
    """Every hook that an event runs may end the room, an async one too."""

    async def end(self: Room, *_: Any) -> None:
        await asyncio.sleep(0)
        self.destroy()

    stage = await staged(type("Ending", (Told,), {hook: end}), members={"c1": row(1), "c2": row(2)})
    event = {"on_connect": ("join", "c3", b'{"user":["u","u"]}'), "on_leave": ("leave", "c1", b"")}
    turn = await stage.handle(*event.get(hook, ("text", "c1", b'"raise OSError"')))
    assert turn.destroy
    assert (len(turn.consumed), stage.members, turn.dead) == (1, [], [])
    closed = [header for header, _ in turn.outputs if header.startswith(b"close")]
    assert closed == {"on_connect": [b"close +1", b"close +2", b"close +1"], "on_leave": [b"close +2"]}.get(
        hook, [b"close +1", b"close +2"]
    )


async def test_destroy_of_an_event_that_fails_is_undone() -> None:
    """A hook that raises after destroy() has not destroyed anything."""
    stage = await staged(Doomed, members={"c1": row(1)})
    turn = await stage.say(f"{DOOM}; raise OSError")
    assert (turn.destroy, len(turn.dead), stage.members) == (False, 1, ["c1"])
    assert not (await stage.say("1")).destroy


async def test_a_later_hook_that_fails_does_not_undo_the_end() -> None:
    """Two members leave by one event: the one's on_leave ends the room, the other's fails."""

    class Boss(Told):
        def on_leave(self, conn: Connection) -> None:
            if conn.id == "c1":
                self.destroy()
            else:
                raise OSError("not this one")

    stage = await staged(Boss, members={"c1": row(1), "c2": row(2)})
    assert (await stage.handle("edge-gone", connection="-", edge="e1")).destroy


async def test_a_leave_that_fails_does_not_keep_a_destroyed_room() -> None:
    """An on_leave that raises is undone, the others still leave and the room still ends."""
    stage = await staged(Doomed, members={"c1": row(1, state="bad"), "c2": row(2)})
    turn = await stage.say(DOOM)
    assert turn.destroy
    assert [body for header, body in turn.outputs if header == b"text *"][2:] == [b'["left","c2",0]']
    assert (stage.members, turn.dead) == ([], [])


async def test_a_destroyed_rooms_sessions_are_closed() -> None:
    """A member with a session cannot resume into a room that has ended."""
    session = orjson.dumps({**orjson.loads(row(1)), "session": "ab12"})
    turn = await (await staged(Doomed, members={"c1": session, "c2": row(2)})).say(DOOM)
    assert turn.sessions_closed == ["ab12"]


@pytest.mark.parametrize("hook", ["on_create", "on_start"])
async def test_destroy_needs_an_event(hook: str) -> None:
    """At a start there is nothing to end the room with: destroy() raises, and the next event finds a living room."""
    stage = Stage(type("Early", (Told,), {hook: lambda self: self.destroy()}), created=False)
    with pytest.raises(RuntimeError, match=rf"destroy\(\) in {hook}: it ends the room with an event"):
        await stage.activation.start()
    assert not stage.activation.context.is_destroyed


# --- sleep ------------------------------------------------------------------------------------------------------------
class Sleeper(Told):
    """Writes down that it sleeps."""

    how = ""

    async def on_sleep(self) -> None:
        """Do so, then as the class says."""
        self.state["slept"] = self.now()
        self.broadcast("good night")
        await asyncio.sleep(0)
        if self.how == "destroy":
            self.destroy()
        if self.how == "not json":
            self.state["odd"] = object()


async def test_on_sleep_is_settled() -> None:
    """What on_sleep does goes into one more turn, without an event; its time is the last event's."""
    stage = await staged(Sleeper, members={"c1": row(1)})
    assert stage.activation.runs_hook_at_sleep
    await stage.say("1")
    await stage.activation.sleep()
    turn = take_turn(stage.activation)
    assert (turn.consumed, turn.state_set, turn.outputs) == (
        [], {"slept": b"1e-6"}, [(b"text *", b'"good night"')],
    )  # fmt: skip
    assert not stage.activation.is_partial


@pytest.mark.parametrize("how", ["destroy", "not json"])
async def test_on_sleep_that_fails(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is undone and logged; the room sleeps all the same. destroy() needs an event."""
    stage = await staged(type("Sleeper", (Sleeper,), {"how": how}), members={"c1": row(1)})
    with caplog.at_level(logging.WARNING, logger="innkeeper.worker"):
        await stage.activation.sleep()
    assert stage.activation.turn.is_empty
    assert [record.message for record in caplog.records] == ["room sleeper/x: on_sleep failed"]
    assert not stage.activation.context.is_destroyed


async def test_what_never_started_is_not_put_to_sleep() -> None:
    """After a failed start there is nothing that on_sleep could be run on."""

    class Failing(Sleeper):
        def on_start(self) -> None:
            raise OSError

    stage = Stage(Failing)
    assert not stage.activation.runs_hook_at_sleep
    with pytest.raises(OSError):  # noqa: PT011 - the test's own
        await stage.activation.start()
    assert not stage.activation.runs_hook_at_sleep


def test_rooms_without_on_sleep_have_nothing_to_run() -> None:
    """Most rooms go to sleep without a further commit."""
    assert not Stage(Told).activation.runs_hook_at_sleep


# --- what creates a room ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["text", "binary", "leave", "edge-gone", "drop", "timer"])
async def test_events_of_members_create_no_room(kind: str) -> None:
    """The last leaves of a destroyed room come after its end: without members they need no start and run no hook."""
    stage = Stage(Doomed, created=False)
    event = stage.event(kind)
    assert stage.activation.concerns_nobody(event)
    rest = stage.activation.handle(event)
    if rest is not None:
        await rest
    turn = stage.take_turn()
    assert (turn.consumed, turn.changes_nothing, turn.outputs) == ([event.id], True, [])


@pytest.mark.parametrize("kind", ["resume", "resync"])
async def test_a_session_that_comes_back_creates_no_room(kind: str) -> None:
    """Its room was destroyed meanwhile: it is told that its session is over, without a start."""
    stage = Stage(Doomed, created=False)
    event = stage.event(kind)._replace(session=b"s1", generation=2)
    assert stage.activation.concerns_nobody(event)
    rest = stage.activation.handle(event)
    assert rest is not None
    await rest
    turn = stage.take_turn()
    assert (turn.outputs, turn.sessions_closed) == ([(b"refuse c1 2", b"4410 session over")], ["s1"])
    assert (turn.state_set, turn.members_set) == ({}, {})


async def test_what_does_create_or_concern_a_room() -> None:
    """A join, or what this version does not know, wants a room; so does everything where somebody is."""
    empty, full = Stage(Doomed, created=False), Stage(Doomed, members={"c1": row(1)})
    assert [empty.activation.concerns_nobody(empty.event(kind)) for kind in ("join", "nonsense")] == [False, False]
    assert not full.activation.concerns_nobody(full.event("leave", "c9"))
