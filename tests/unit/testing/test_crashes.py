"""crash_everywhere and duplicate_owner: rooms that keep what they need pass, others are told what differs."""

import itertools
import random
import time
from typing import Any

import pytest

from innkeeper import Connection, Room
from innkeeper.testing import Diverged, RoomHarness


class Counter(Room):
    """Counts in its state; tells chance and time of the event's own."""

    def on_connect(self, conn: Connection) -> None:
        """Count the joins."""
        self.state["joins"] = self.state.get("joins", 0) + 1
        conn.state = {"joined": self.now()}

    def on_message(self, conn: Connection, message: Any) -> None:
        """Count; raise, end or owe if told to."""
        self.state["n"] = self.state.get("n", 0) + 1
        if message == "raise":
            raise ValueError(self.state["n"])
        if message == "end":
            self.destroy()
        if message == "owe":
            self._context.owe("post", "other/room", b"1")
        self.broadcast([self.state["n"], self.now(), self.random.random(), self.new_id()], exclude=conn)


async def busy(room: RoomHarness) -> None:
    """Let a lot happen to a room."""
    ann = await room.join("ann")
    bob = await room.join("bob")
    for message in ("one", "raise", "owe", "two"):
        await ann.send(message)
        await bob.send_frame("{no")
    await room.clock.advance(5)
    await room.sleep()
    await room.leave(bob)
    await ann.send("end")
    assert room.dead == []
    eve = await room.join("eve")
    await eve.send("three")


async def test_rooms_that_keep_what_they_need_pass() -> None:
    """Joins, failures, sleep, the room's end and chance come to the same, however often its object is lost."""
    harness = RoomHarness(Counter)
    await harness.crash_everywhere(busy)
    await harness.duplicate_owner(busy)
    assert harness.commits == []


class Attribute(Counter):
    """Keeps its count in an attribute."""

    def on_start(self) -> None:
        """Begin anew."""
        self.count = 0

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Count."""
        self.count += 1
        self.state["n"] = self.count


class Clock(Counter):
    """Takes the time from the system."""

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Keep it."""
        self.state["at"] = time.perf_counter_ns()


class Chance(Counter):
    """Takes chance from the system."""

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Send it."""
        conn.send(random.random())


class Shared(Counter):
    """Keeps its count in an object that all instances share."""

    counts = itertools.count(1)

    def on_message(self, conn: Connection, message: Any) -> None:
        """Count."""
        conn.state = next(self.counts)
        if message == "end":
            self.destroy()


class Late(Counter):
    """Owes, fails and ends only where its object has lived for a while."""

    def on_start(self) -> None:
        """Begin anew."""
        self.seen: list[Any] = []

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Do as the class's second message says."""
        self.seen.append(message)
        match self.seen:
            case [_, "owe"]:
                self._context.owe("post", "other/room", b"1")
            case [_, "raise"]:
                raise ValueError("second")
            case [_, "end"]:
                self.destroy()
            case _:
                pass


async def two_messages(room: RoomHarness) -> None:
    """Let one client say two things."""
    ann = await room.join("ann")
    await ann.send("one")
    await ann.send("two")


FAULTY = [
    (Attribute, r"commit 3 \(text of ann \"two\"\):\n  state 'n': 2 undisturbed, nothing disturbed"),
    (Clock, r"commit 2 \(text of ann \"one\"\):\n  state 'at': \d+ undisturbed, \d+ disturbed"),
    (
        Chance,
        r"commit 2 \(text of ann \"one\"\):\n  outputs 1: text \+1 0\.\d+ undisturbed, text \+1 0\.\d+ disturbed",
    ),
    (Shared, r"commit 2 \(text of ann \"one\"\):\n  members 'c-1': "),
]


@pytest.mark.parametrize(("room_class", "told"), FAULTY, ids=lambda value: getattr(value, "__name__", ""))
async def test_rooms_that_do_not_are_told_where(room_class: type[Room], told: str) -> None:
    """The first commit that differs is named with its event and what differs in it."""
    harness = RoomHarness(room_class)
    with pytest.raises(Diverged, match=told):
        await harness.crash_everywhere(two_messages)
    with pytest.raises(Diverged, match="with the owner before running each event too, in vain"):
        await harness.duplicate_owner(two_messages)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("owe", "outbox 1: post other/room 1 undisturbed, nothing disturbed"),
        ("raise", 'failure of 3-1767225600000003: text c-1 "raise" ValueError: second undisturbed, nothing disturbed'),
        ("end", "the room: destroyed undisturbed, nothing disturbed"),
    ],
)
async def test_every_part_of_a_commit_is_compared(message: str, told: str) -> None:
    """Posts, failures and the room's end too."""

    async def script(room: RoomHarness) -> None:
        ann = await room.join("ann")
        await ann.send("one")
        await ann.send(message)

    with pytest.raises(Diverged) as caught:
        await RoomHarness(Late).crash_everywhere(script)
    assert told in str(caught.value)
    assert "with the room object lost after each commit" in str(caught.value)


async def test_what_only_a_second_run_shows() -> None:
    """A global changed by a run that did not count is found although nothing is kept in the object."""
    runs: list[str] = []

    class Global(Room):
        def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
            runs.append(message)
            self.state["runs"] = runs.count(message)

    async def script(room: RoomHarness) -> None:
        runs.clear()
        await two_messages(room)

    with pytest.raises(Diverged, match="lost before each commit, and the event run again") as caught:
        await RoomHarness(Global).crash_everywhere(script)
    assert "state 'runs': 1 undisturbed, 2 disturbed" in str(caught.value)
    with pytest.raises(Diverged, match="state 'runs': 1 undisturbed, 2 disturbed"):
        await RoomHarness(Global).duplicate_owner(script)


async def test_commits_that_are_missing_or_too_many() -> None:
    """A script that makes something else of the room is told so; one that fails by itself fails as it is."""
    runs = itertools.count()

    async def shorter(room: RoomHarness) -> None:
        ann = await room.join("ann")
        if next(runs) == 0:
            await ann.send(1)

    with pytest.raises(Diverged, match=r"commit 2 \(text of ann 1\):\n  there is none disturbed"):
        await RoomHarness(Counter).crash_everywhere(shorter)

    async def longer(room: RoomHarness) -> None:
        ann = await room.join("ann")
        if next(runs) > 2:
            await ann.send(1)

    with pytest.raises(Diverged, match=r"commit 2 \(text of c-1 1|text of ann 1\):\n  there is none undisturbed"):
        await RoomHarness(Counter).crash_everywhere(longer)


async def test_a_script_that_fails() -> None:
    """Its own failure comes out, unless the commits before it say more."""

    async def fails(room: RoomHarness) -> None:
        await room.join("ann")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await RoomHarness(Counter).crash_everywhere(fails)

    runs = itertools.count()

    async def fails_later(room: RoomHarness) -> None:
        await room.join("ann")
        if next(runs):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await RoomHarness(Counter).crash_everywhere(fails_later)

    async def expects(room: RoomHarness) -> None:
        await two_messages(room)
        assert room.state["n"] == 2

    with pytest.raises(Diverged) as caught:
        await RoomHarness(Attribute).crash_everywhere(expects)
    assert isinstance(caught.value.__cause__, AssertionError)


async def test_on_start_that_fails_only_after_a_crash() -> None:
    """A start that cannot read what the room itself has stored is found."""

    class Picky(Counter):
        def on_start(self) -> None:
            if self.state.get("n", 0) > 1:
                raise ValueError("too many")

    with pytest.raises(ValueError, match="too many"):
        await RoomHarness(Picky).crash_everywhere(busy)
