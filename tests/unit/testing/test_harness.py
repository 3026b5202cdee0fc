"""Rooms in memory: what a test of a user's room sees is what clients, Redis and time would make of it."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from innkeeper import Connection, Event, Refused, Room, StateInvalid, on
from innkeeper.errors import LeaseLost
from innkeeper.testing import Client, RoomHarness
from innkeeper.testing.clock import START_S
from innkeeper.testing.stored import StoredRoom
from innkeeper.turn import Turn


class Chat(Room):
    """Does most of what a room can."""

    handler_s = 0.05
    message_bytes = 1_000
    max_connections = 3

    def on_create(self) -> None:
        """Begin."""
        self.state["starts"] = 0

    def on_start(self) -> None:
        """Count."""
        self.state["starts"] += 1
        self.cached: list[Any] = []

    def on_connect(self, conn: Connection) -> None:
        """Let in whom the name allows."""
        if conn.user.name == "stranger":
            raise Refused("members only")
        conn.tags.add(conn.user.id or "guest")
        conn.send({"hello": conn.user.name, "at": self.now()})

    async def on_message(self, conn: Connection, message: Any) -> None:  # noqa: C901 - one word, one case
        """Do what the message says."""
        self.cached.append(message)
        match message:
            case {"do": "raise"}:
                self.state["broken"] = True
                raise ValueError("told to")
            case {"do": "hang"}:
                await asyncio.Event().wait()
            case {"do": "close", "name": name}:
                for other in self.connections:
                    if other.user.name == name:
                        other.close(4321, "told to")
            case {"do": "move"}:
                conn.move("chat/elsewhere")
            case {"do": "end"}:
                self.destroy()
            case {"do": "owe"}:
                self._context.owe("post", "other/room", b'{"n":1}')
            case {"do": "whisper", "tag": tag}:
                self.broadcast(message, tags=tag)
            case bytes():
                self.broadcast(message, exclude=conn)
            case _:
                await asyncio.sleep(0)
                self.state["said"] = [*self.state.get("said", []), message]
                self.broadcast(message)

    def on_leave(self, conn: Connection) -> None:
        """Say who."""
        self.broadcast({"left": conn.user.name})

    def on_sleep(self) -> None:
        """Say so."""
        self.broadcast("good night")

    def on_error(self, error: Exception, event: Event) -> None:
        """Write it down."""
        self.state["error"] = [str(error), event.kind]


async def pair(room: RoomHarness) -> tuple[Client, Client]:
    """Let two clients join, and forget what they got."""
    ann, bob = await room.join("ann", user_id="u1"), await room.join("bob")
    ann.take()
    bob.take()
    return ann, bob


# --- clients ----------------------------------------------------------------------------------------------------------
async def test_clients_get_what_the_room_sends() -> None:
    """From its join on a client gets what is addressed to it, decoded, each its own value."""
    room = RoomHarness(Chat, "lobby")
    ann = await room.join("ann", user_id="u1")
    assert ann.received == [{"hello": "ann", "at": room.clock.now_s}]
    await ann.send({"n": 1})
    bob = await room.join("bob")
    await bob.send({"n": 2})
    await bob.send(b"\x00")
    await ann.send({"do": "whisper", "tag": "u1"})
    assert ann.take()[1:] == [{"n": 1}, {"n": 2}, b"\x00", {"do": "whisper", "tag": "u1"}]
    assert bob.take()[1:] == [{"n": 2}]
    assert (ann.take(), room.members, room.state["said"]) == ([], ["c-1", "c-2"], [{"n": 1}, {"n": 2}])
    ann.received[1]["n"] = 99
    assert bob.received[1] == {"n": 2}
    assert (room.address, repr(bob)) == ("chat/lobby", "<Client c-2 'bob' open>")
    await room.leave(ann)
    assert (bob.take(), ann.take(), room.members) == ([{"left": "ann"}], [], ["c-2"])
    assert repr(ann) == "<Client c-1 'ann' gone>"
    room.check()


async def test_refused_joins() -> None:
    """What refuses a join, the room, its limit or a failure, shows in the client's close."""
    room = RoomHarness(Chat)
    stranger = await room.join("stranger")
    assert stranger.closed == (4403, "members only")
    await pair(room)
    await room.join("eve")
    full = await room.join("too many")
    assert (full.closed, full.received, len(room.members)) == ((4503, "room full"), [], 3)
    with pytest.raises(RuntimeError, match="closed 4503> cannot send"):
        await full.send(1)


async def test_closes_of_the_room_are_leaves() -> None:
    """A client that the room closes leaves, once; a test's own leave after that is none."""
    room = RoomHarness(Chat)
    ann, bob = await pair(room)
    await ann.send({"do": "close", "name": "bob"})
    assert (bob.closed, ann.received[-1], room.members) == ((4321, "told to"), {"left": "bob"}, ["c-1"])
    await room.leave(bob)
    assert ann.received.count({"left": "bob"}) == 1
    await ann.send({"do": "move"})
    assert (ann.moved, ann.closed, room.members) == ("chat/elsewhere", None, [])
    with pytest.raises(RuntimeError, match="cannot send"):
        await ann.send(1)


async def test_frames_that_are_no_messages() -> None:
    """Text that is no JSON is answered; a frame over the limit closes with 1009, as an edge would."""
    room = RoomHarness(Chat)
    ann, bob = await pair(room)
    await ann.send_frame("{no")
    assert ann.take() == [{"error": "invalid_json"}]
    await ann.send("x" * 998)
    assert ann.closed is None
    await ann.send("x" * 999)
    assert ann.closed == (1009, "message too big")
    assert (bob.received[-1], room.members) == ({"left": "ann"}, ["c-2"])
    with pytest.raises(TypeError, match="a frame is str or bytes, not dict"):
        await bob.send_frame({})  # type: ignore[arg-type]


async def test_raw_rooms() -> None:
    """Text goes up and down as str, bytes as bytes; nothing else can be sent."""
    raw = type("Raw", (Room,), {"codec": "raw", "on_message": lambda self, _, message: self.broadcast(message)})
    room = RoomHarness(raw)
    ann = await room.join()
    await ann.send("{no")
    await ann.send(b"\x00")
    assert ann.received == ["{no", b"\x00"]
    with pytest.raises(TypeError, match="a frame is str or bytes"):
        await ann.send({})


# --- failures ---------------------------------------------------------------------------------------------------------
async def test_a_failed_event_is_seen() -> None:
    """Undone, told to its sender, in dead; check() fails with its traceback until somebody has looked."""
    room = RoomHarness(Chat)
    ann, bob = await pair(room)
    await ann.send({"do": "raise"})
    assert (ann.take(), bob.take(), "broken" in room.state) == ([{"error": "handler_failed"}], [], False)
    assert room.state["error"] == ["told to", "text"]
    with pytest.raises(
        AssertionError, match=r'chat/test: 1 events failed[\s\S]*text of ann {"do":"raise"}: ValueError'
    ):
        room.check()
    (dead,) = room.dead
    assert (dead.error, dead.data) == ("ValueError: told to", b'{"do":"raise"}')
    room.check()


async def test_a_hook_that_never_ends_is_cut() -> None:
    """After handler_s its event is put aside, and the room goes on from what is committed."""
    room = RoomHarness(Chat)
    ann, _ = await pair(room)
    await ann.send({"do": "hang"})
    assert ann.take() == [{"error": "handler_timeout"}]
    assert [dead.error for dead in room.dead] == ["the handler took longer than 0.05 s"]
    await ann.send({"n": 1})
    assert (ann.take(), room.state["starts"]) == ([{"n": 1}], 2)


async def test_a_start_that_fails_is_the_tests_to_see() -> None:
    """What on_start raises comes out of the call; the event waits, and is run by the next one."""
    fails = [True]

    class Fragile(Chat):
        def on_start(self) -> None:
            super().on_start()
            if fails:
                raise OSError("not yet")

    room = RoomHarness(Fragile)
    with pytest.raises(OSError, match="not yet"):
        await room.join("ann")
    assert (room.state, room.members, room.commits) == ({}, [], [])
    fails.clear()
    await room.join("bob")
    assert (room.members, room.state["starts"]) == (["c-1", "c-2"], 1)


# --- the room's life --------------------------------------------------------------------------------------------------
async def test_crash_and_sleep() -> None:
    """Both end the object: a crash without a word, sleep with on_sleep; what is committed is found by the next one."""
    room = RoomHarness(Chat)
    ann, _ = await pair(room)
    await ann.send(1)
    room.crash()
    assert ann.take() == [1]
    await ann.send(2)
    await room.sleep()
    assert ann.take() == [2, "good night"]
    await room.sleep()
    assert ann.take() == []
    await ann.send(3)
    assert (room.state["said"], room.state["starts"], ann.is_open) == ([1, 2, 3], 3, True)
    assert room.commits[-2].events == ()


async def test_on_sleep_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As in a worker it is undone, and no commit shows it."""

    class Restless(Chat):
        def on_sleep(self) -> None:
            self.state["odd"] = object()

    room = RoomHarness(Restless)
    await room.join()
    with caplog.at_level(logging.WARNING, logger="innkeeper.worker"):
        await room.sleep()
    assert [record.message for record in caplog.records] == ["room restless/test: on_sleep failed"]
    assert len(room.commits) == 1


async def test_destroy() -> None:
    """Everybody is closed with 4404 and leaves, nothing stays; the sockets' leaves create nothing, a join does."""
    room = RoomHarness(Chat)
    ann, bob = await pair(room)
    await ann.send(1)
    await ann.send({"do": "end"})
    assert (ann.closed, bob.closed) == ((4404, "room destroyed"), (4404, "room destroyed"))
    assert (bob.received[-1], room.state, room.members) == ({"left": "ann"}, {}, [])
    assert [commit.is_end for commit in room.commits[-3:]] == [True, False, False]
    eve = await room.join("eve")
    assert (eve.is_open, room.state) == (True, {"starts": 1})


async def test_a_stored_state_to_begin_with() -> None:
    """A room may be one that was there before: on_create does not run again."""
    room = RoomHarness(Chat, state={"starts": 7, "said": ["old"]})
    ann = await room.join("ann")
    await ann.send("new")
    assert room.state == {"starts": 8, "said": ["old", "new"]}


async def test_typed_state_is_an_object() -> None:
    """Of a Room[Shape] state is an object of the shape; what does not fit it fails where it is looked at."""

    @dataclass
    class Tally:
        votes: dict[str, int] = field(default_factory=dict)

    class Poll(Room[Tally]):
        @on("vote")
        def vote(self, conn: Connection, message: dict[str, str]) -> None:  # noqa: ARG002 - a handler's signature
            self.state.votes[message["for"]] = self.state.votes.get(message["for"], 0) + 1

    room = RoomHarness(Poll)
    ann = await room.join()
    await ann.send({"type": "vote", "for": "tea"})
    assert room.state == Tally({"tea": 1})
    with pytest.raises(StateInvalid, match="votes"):
        await RoomHarness(Poll, state={"votes": 5}).join()


async def test_what_is_owed_and_committed_is_kept() -> None:
    """Commits hold every change as bytes, the outbox what is owed to the outside."""
    room = RoomHarness(Chat)
    ann = await room.join("ann")
    await ann.send({"do": "owe"})
    assert room.outbox == [("post", "other/room", {"n": 1})]
    first, second = room.commits
    assert first.state == {"starts": 1}
    assert orjson.loads(first.members_set["c-1"])["tags"] == ["guest"]
    assert [header for header, _ in first.outputs] == [b"join 1 c-1", b"text +1"]
    assert [(event.kind, event.connection) for event in second.events] == [(b"text", b"c-1")]


@pytest.mark.parametrize("name", ["", "a b", "..", "x" * 129])
def test_names_that_no_room_can_have(name: str) -> None:
    """A name is one that clients could reach."""
    with pytest.raises(ValueError, match="room"):
        RoomHarness(Chat, name)


# --- time -------------------------------------------------------------------------------------------------------------
async def test_the_clock_stands_still() -> None:
    """Only advance() moves it, and a µs each event; joins tell the room's time."""
    room = RoomHarness(Chat)
    assert room.clock.now_s == START_S
    await room.join("ann")
    await room.clock.advance(3600)
    bob = await room.join("bob")
    assert bob.received[0]["at"] == pytest.approx(START_S + 3600.000002, abs=1e-6)
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a number of seconds from 0"):
            await room.clock.advance(seconds)


# --- fences -----------------------------------------------------------------------------------------------------------
def test_only_the_newest_owner_commits() -> None:
    """A commit needs the newest token, the version it was built on, and the events that are next."""
    stored = StoredRoom(RoomHarness(Chat)._address, None)
    event = stored.push("join", "c1", b"", now_us=5)
    old, version = stored.claim(now_us=5)
    new, _ = stored.claim(now_us=5)
    turn = Turn(consumed=[event.id], state_set={"a": b"1"})
    for token, at, consumed, why in (
        (old.token, version, [event.id], "token"),
        (new.token, version + 1, [event.id], "version"),
        (new.token, version, [b"1-6"], "input"),
    ):
        with pytest.raises(LeaseLost, match=why):
            stored.commit(Turn(consumed=consumed, state_set={"b": b"1"}), token=token, version=at, created=True)
    assert (stored.state, stored.commits, len(stored.inbox)) == ({}, [], 1)
    stored.commit(turn, token=new.token, version=version, created=True)
    assert (stored.state, len(stored.commits), len(stored.inbox)) == ({"a": b"1"}, 1, 0)


async def test_sends_at_once_are_run_one_after_the_other() -> None:
    """Calls that run at the same time do not disturb each other."""
    room = RoomHarness(Chat)
    ann, bob = await pair(room)
    await asyncio.gather(*(client.send(n) for n in range(10) for client in (ann, bob)))
    assert room.state["said"] == [n for n in range(10) for _ in range(2)]
    assert ann.take() == bob.take() == room.state["said"]


class Ticking(Room):
    """Has a timer of each kind."""

    def on_connect(self, conn: Connection) -> None:  # noqa: ARG002 - the hook's signature
        """Set them."""
        self.schedule("once", after=5, payload={"n": 1})
        self.schedule("tick", every=2)
        self.schedule("bad", after=7)

    def on_timer(self, name: str, payload: Any) -> None:
        """Show it; one of them fails."""
        if name == "bad":
            raise ValueError("told to")
        self.broadcast([name, payload, round(self.now() - START_S, 2)])


async def test_timers_run_as_the_clock_moves() -> None:
    """Each when it is due, in order, none early; one that fails is tried again until it is put aside."""
    room = RoomHarness(Ticking)
    ann = await room.join()
    await room.clock.advance(1.99)
    assert ann.take() == []
    await room.clock.advance(4.1)
    assert ann.take() == [["tick", None, 2.0], ["tick", None, 4.0], ["once", {"n": 1}, 5.0], ["tick", None, 6.0]]
    await room.clock.advance(4)
    assert room.dead == []
    await room.clock.advance(600)
    assert [dead.error for dead in room.dead] == ["ValueError: told to"]
    assert [name for name, *_ in ann.take()].count("tick") == 302


async def test_timers_of_a_room_that_sleeps() -> None:
    """They wake it: what is due is in the state, not in the object."""
    room = RoomHarness(Ticking)
    ann = await room.join()
    await room.sleep()
    room.crash()
    await room.clock.advance(2.1)
    assert ann.take() == [["tick", None, 2.0]]
