"""The way of a socket from room to room, with the test as the room, the edge's other parts and the client."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast
from unittest.mock import Mock

import orjson
import pytest

from innkeeper import wire
from innkeeper.address import Address
from innkeeper.connection import User
from innkeeper.errors import RedisUnavailable
from innkeeper.functions import Pushed, PushEvent
from innkeeper.keys import room_keys
from innkeeper.meters import EdgeMeters
from innkeeper_edge import move
from innkeeper_edge.auth import Grant, Patterns
from innkeeper_edge.edge import Kind
from innkeeper_edge.fanout import Fanout
from innkeeper_edge.guarded_socket import GuardedSocket
from innkeeper_edge.limits import Limits
from innkeeper_edge.member import Member
from innkeeper_edge.rates import Rates
from innkeeper_edge.session_member import SessionMember
from innkeeper_edge.sessions import Sessions
from innkeeper_edge.subprotocol import Hello

SECRET = "ab" * 16


class FakeRoom:
    """An edge with one room, to be left."""

    def __init__(self) -> None:
        self.address = Address("hall", "a")
        self.keys = room_keys(self.address)
        self.edge = self.ingress = self.link = self
        self.loop = asyncio.get_running_loop()
        self.talkers: list[Any] = []
        self.rates = Rates(cast("Any", self), Limits())
        self.chain = None
        self.kinds = {"hall": Kind("json", 60, 10)}
        self.ready = asyncio.Event()
        self.ready.set()
        self.row: bytes | Exception | None = None
        self.holds = 0
        self.queue: list[tuple[PushEvent, Member]] = []
        self.entered: list[tuple[Address, Member]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.sessions = Sessions(cast("Any", self))
        self.meters = EdgeMeters()
        self.fanout = Fanout(self.meters)

    def opened_sessions(self) -> Sessions:
        """As of a feed."""
        return self.sessions

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """As of an edge."""
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    def hold(self, address: Address) -> "FakeRoom":
        """As of an edge."""
        assert address == self.address
        self.holds += 1
        return self

    def release(self, feed: object) -> None:
        """As of an edge."""
        assert feed is self
        self.holds -= 1

    def leave(self, feed: object, member: Member) -> None:
        """As of an edge."""
        assert feed is self
        if member.pushed:
            self.queue.append((member.leave_event(), member))
            member.pushed = False
        member.left = True
        member.unregister(cast("Any", self))

    def add(self, feed: object, event: PushEvent, member: Member) -> None:
        """As of an ingress."""
        assert feed is self
        self.queue.append((event, member))

    async def enter(self, address: Address, member: Member) -> "FakeRoom":
        """As of an edge: another room's, or one that is never reached."""
        assert member.grant.user == User("", "ann")
        self.entered.append((address, member))
        if address.name == "far":
            await asyncio.sleep(3600)
        member.pushed = True
        return self

    async def call(self, *command: object) -> bytes | None:
        """As of a link."""
        assert command == ("HGET", self.keys.sessions, "s:s1")
        if isinstance(self.row, Exception):
            raise self.row
        return self.row

    def answer(self, letters: str) -> None:
        """Answer all that is queued; without letters it was forgotten."""
        batch, self.queue = self.queue, []
        for event, member in batch:
            if event.kind == "leave":
                member.leave_settled()
            elif event.number:
                member.settled(len(event.data))
        if letters:
            self.sessions.answered(cast("Any", batch), Pushed(letters, 20, b"w", 1))

    def socket(self, session: bool = True) -> Any:
        """Return a socket in the room."""
        transport = Mock(is_closing=lambda: False, is_reading=lambda: True, get_write_buffer_size=lambda: 0)
        guarded = GuardedSocket(transport, lambda _: None, linger_s=0.01)
        guarded.guard(Mock(), max_message_bytes=1_000)
        hello = Hello("s1", "c-x", 1, None)
        member = (
            SessionMember(guarded, transport, 0.0, hello=hello, message_bytes=100)
            if session
            else Member(guarded, transport, 0.0)
        )
        member.grant = Grant(User("", "ann"), Patterns.everything())
        member.register(cast("Any", self))
        member.entered(cast("Any", self), cast("Any", self))
        member.pushed = True
        if session:
            self.sessions.deliver((9, 7), 7, [wire.join_output(3, b"c-x", 1)])
        return member

    def moves(self, target: str = "hall/b") -> None:
        """Let the room move its member."""
        self.sessions.deliver((10, 7), 7, [wire.move_output(3, target)])
        self.sessions.advance(0)

    async def pass_on(self) -> None:
        """Let everything run that can."""
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def room() -> AsyncIterator[FakeRoom]:
    """A room without sockets."""
    room = FakeRoom()
    yield room
    for task in room.tasks:
        task.cancel()
    await asyncio.gather(*room.tasks, return_exceptions=True)


def controls(member: Member) -> list[Any]:
    """Return the controls that were written."""
    wrote = b"".join(call.args[0] for call in cast("Any", member._transport).write.call_args_list)
    return [orjson.loads(b"{" + piece.split(b"}}")[0] + b"}}") for piece in wrote.split(b"!{") if b"moved" in piece]


def closed(member: Member) -> int | None:
    """Return with what it was closed."""
    return member._socket.closing_code


def hello(**fields: Any) -> bytes:
    """Return a hello."""
    return b"!" + orjson.dumps({"hello": {"secret": SECRET, "generation": 1, "last": None} | fields})


async def test_a_session_moves(room: FakeRoom) -> None:
    """Leave at once, then what was applied, then the word; only the hello counts, and what follows waits."""
    member = room.socket()
    member.take(b"1 x", is_text=True)
    room.moves()
    assert [(event.kind, event.data) for event, _ in room.queue] == [("text", b"x"), ("leave", b"hall/b")]
    assert (member.take(b"2 y", is_text=True), list(room.sessions)) == (False, [])
    room.answer("aa")
    await room.pass_on()
    assert (controls(member), room.holds) == ([], 1)
    room.sessions.advance(20)
    await room.pass_on()
    assert controls(member) == [{"moved": {"room": "hall/b", "accepted": 1}}]
    assert (room.holds, member.is_overfull) == (0, False)
    member.take(b"3 z", is_text=True)
    member.take(b"!" + b"\0" * 8, is_text=False)
    assert not member.take(hello(), is_text=True)
    assert not member.take(hello(generation=2), is_text=True)
    await room.pass_on()
    assert room.entered == [(Address("hall", "b"), member)]
    assert (member.generation, member.accepted, member.applied, member.join, member.left) == (1, 0, 0, 0, False)
    assert member.id != "c-x"
    assert member.take(b"1 a", is_text=True)
    assert [event.number for event, _ in room.queue] == [1]
    assert closed(member) is None


async def test_it_does_not_wait_for_ever_for_what_is_applied(room: FakeRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """A room that hangs holds nobody back."""
    monkeypatch.setattr(move, "_APPLIED_S", 0.01)
    member = room.socket()
    member.take(b"1 x", is_text=True)
    room.moves()
    room.answer("aa")
    await asyncio.sleep(0.05)
    assert controls(member) == [{"moved": {"room": "hall/b", "accepted": 1}}]


async def test_failures_after_the_move(room: FakeRoom) -> None:
    """A message of the same batch that failed is told before it counts as applied."""
    member = room.socket()
    error = (b"error +3", b'{"error":"handler_failed","n":2}')
    room.sessions.deliver((10, 7), 7, [wire.move_output(3, "hall/b"), (b"text *", b"not shown"), error])
    room.sessions.advance(0)
    writes = [call.args[0] for call in member._transport.write.call_args_list]
    assert writes[-1].endswith(b'!{"error":"handler_failed","n":2,"at":"13-7"}')
    assert not any(b"not shown" in write for write in writes)


@pytest.mark.parametrize(("letters", "code"), [("o", 4409), ("", 1012), ("u", 1012), ("d", None)])
async def test_a_leave_that_does_not_count(room: FakeRoom, letters: str, code: int | None) -> None:
    """A newer socket goes instead of this one; where the leave was forgotten the client comes again to hear."""
    member = room.socket()
    room.moves()
    room.answer(letters)
    await room.pass_on()
    assert (closed(member), len(controls(member))) == (code, code is None)


async def test_without_a_hello(room: FakeRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that says nothing is closed with 1013, one that says something else with 4400."""
    monkeypatch.setattr(move, "HELLO_S", 0.01)
    silent, odd = room.socket(), room.socket()
    for member in (silent, odd):
        member.join, member.stage = 3, member.stage.LIVE
        room.sessions.live[3] = member
        room.moves()
    room.answer("aa")
    await room.pass_on()
    odd.take(hello(generation=0), is_text=True)
    await asyncio.sleep(0.05)
    assert (closed(silent), closed(odd), room.entered) == (1013, 4400, [])


@pytest.mark.parametrize(
    ("target", "ready", "code"), [("nosuch/b", True, 1013), ("hall/b", False, 1012), ("hall/far", True, 1013)]
)
async def test_targets_that_cannot_be_reached(
    room: FakeRoom, monkeypatch: pytest.MonkeyPatch, target: str, ready: bool, code: int
) -> None:
    """No such kind, an edge that is going, a room that takes too long: the client tries there by itself."""
    monkeypatch.setattr(move, "JOIN_S", 0.01)
    raw, member = room.socket(session=False), room.socket()
    raw.move(target)
    room.moves(target)
    if not ready:
        room.ready.clear()
    room.answer("ua")
    await room.pass_on()
    member.take(hello(), is_text=True)
    await asyncio.sleep(0.05)
    assert (closed(raw), closed(member)) == (code, code)


@pytest.mark.parametrize(
    ("row", "code"),
    [(b"7 1 closed hall/b 9", None), (b"7 1 closed 9", 4410), (None, 4410), (RedisUnavailable("x"), 1013)],
)
async def test_who_asks_its_old_room(room: FakeRoom, row: bytes | Exception | None, code: int | None) -> None:
    """A hello to a session that has ended is answered with where that went, else with 4410."""
    member = room.socket()
    room.row = row
    room.queue = [(member.event("resume"), member)]
    room.answer("c")
    assert (list(room.sessions), member.pushed, room.queue) == ([], False, [])
    await room.pass_on()
    assert closed(member) == code
    assert controls(member) == ([] if code else [{"moved": {"room": "hall/b", "accepted": 7}}])


async def test_a_socket_that_is_gone_on_its_way_has_left(room: FakeRoom) -> None:
    """Its leave is queued in the very moment of the move; what was to follow is given up."""
    raw, member = room.socket(session=False), room.socket()
    raw.move("hall/b")
    room.moves()
    assert [event.kind for event, _ in room.queue] == ["leave", "leave"]
    raw.gone()
    member.gone()
    await room.pass_on()
    assert (len(room.queue), room.holds, room.entered) == (2, 0, [])
    assert all(task.cancelled() for task in room.tasks)
