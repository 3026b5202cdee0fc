"""The sockets of sessions in one room: what each is shown and told, in which order, whatever comes when."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, cast
from unittest.mock import Mock

import orjson
import pytest

from innkeeper import wire
from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.connection import User
from innkeeper.errors import RedisUnavailable
from innkeeper.functions import Pushed, PushEvent
from innkeeper.keys import room_keys
from innkeeper.meters import EdgeMeters
from innkeeper_edge import sessions as sessions_module
from innkeeper_edge.chain import Chain
from innkeeper_edge.guarded_socket import GuardedSocket
from innkeeper_edge.limits import Limits
from innkeeper_edge.rates import Rates
from innkeeper_edge.session_member import SessionMember, Stage
from innkeeper_edge.sessions import Sessions
from innkeeper_edge.subprotocol import Hello

Output = tuple[bytes, bytes]


class FakeTransport:
    """A transport that keeps what is written, frame by frame and write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def is_closing(self) -> bool:
        """Never."""
        return False

    def is_reading(self) -> bool:
        """Always."""
        return True

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.writes.append(data)

    def abort(self) -> None:
        """Do nothing."""


class FakeFeed:
    """A room at an edge without either: queues events, answers reads."""

    def __init__(self) -> None:
        self.address = Address("test", "x")
        self.keys = room_keys(self.address)
        self.edge = self.ingress = self.link = self
        self.meters = EdgeMeters()
        self.loop = asyncio.get_running_loop()
        self.talkers: list[Any] = []
        self.rates = Rates(cast("Any", self), Limits())
        self.chain: Chain | None = None
        self.queue: list[PushEvent] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.replies: list[Any] = []
        self.asked: list[Sequence[Command]] = []
        self.cuts = 0
        self.sessions = Sessions(cast("Any", self))

    def opened_sessions(self) -> Sessions:
        """As of a feed."""
        return self.sessions

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """As of an edge."""
        self.tasks.append(asyncio.create_task(work))

    def add(self, feed: object, event: PushEvent, member: object) -> None:
        """As of an ingress."""
        assert (feed, isinstance(member, SessionMember)) == (self, True)
        self.queue.append(event)

    def cut(self) -> None:
        """As of a feed."""
        self.cuts += 1

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """As of a link: the replies that the test has set, or an error."""
        self.asked.append(commands)
        await asyncio.sleep(0)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply  # type: ignore[no-any-return]

    async def settled(self) -> None:
        """Wait for what was spawned."""
        await asyncio.gather(*self.tasks)

    def socket(self, *, last: wire.StreamId | None = None, generation: int = 1, name: str = "c-x") -> SessionMember:
        """Return a socket of the session s1 that has entered the room."""
        transport = FakeTransport()
        guarded = GuardedSocket(cast("asyncio.Transport", transport), lambda _: None, linger_s=0.01)
        guarded.guard(Mock(), max_message_bytes=1_000)
        hello = Hello("s1", name, generation, last)
        member = SessionMember(guarded, cast("asyncio.WriteTransport", transport), 0.0, hello=hello, message_bytes=100)
        member.register(cast("Any", self))
        member.entered(cast("Any", self), cast("Any", self))
        member.pushed = True
        return member

    def live(self, **options: Any) -> SessionMember:
        """Return a socket that has joined as join 3 with output 10-7."""
        member = self.socket(**options)
        self.sessions.deliver((9, 7), 7, [wire.join_output(3, member.id.encode(), member.generation)])
        written(member)
        return member

    def take(self, member: SessionMember, *numbers: int) -> None:
        """Let the client say something under these numbers."""
        for number in numbers:
            member.take(b"%d x" % number, is_text=True)

    def answer(self, member: SessionMember, letters: str, *, first_iseq: int = 20) -> None:
        """Answer all that is queued."""
        batch, self.queue = self.queue, []
        for event in batch:
            if event.number:
                member.settled(len(event.data))  # as an ingress does
        self.sessions.answered([(event, member) for event in batch], Pushed(letters, first_iseq, b"w", 1))


@pytest.fixture
async def feed() -> FakeFeed:
    """A room without sockets."""
    return FakeFeed()


def written(member: SessionMember, *, joined: bool = True) -> list[Any]:
    """Return and forget what was written: outputs as text, controls as dicts, a close as its code."""
    transport = cast("FakeTransport", member._transport)
    data, transport.writes = transport.writes, []
    found: list[Any] = []
    for write in data:
        frames: list[Any] = []
        at = 0
        while at < len(write):
            size, head = write[at + 1], 2
            if size == 126:
                size, head = int.from_bytes(write[at + 2 : at + 4], "big"), 4
            body = write[at + head : at + head + size]
            if write[at] == 0x88:
                frames.append(int.from_bytes(body[:2], "big"))
            else:
                frames.append(orjson.loads(body[1:]) if body[:1] == b"!" else body.decode())
            at += head + size
        found += frames if joined else [frames]
    return found


def text(*bodies: str) -> list[Output]:
    """Return broadcasts."""
    return [(b"text *", body.encode()) for body in bodies]


def facts(word: str, at: str, accepted: int) -> dict[str, Any]:
    """Return an answer to a hello."""
    return {word: {"conn": "c-x", "at": at, "accepted": accepted, "beat": 20}}


async def test_a_join_and_its_outputs(feed: FakeFeed) -> None:
    """Nothing before the join's mark; then the answer to the hello and the numbered outputs, in one write."""
    member = feed.socket()
    feed.sessions.deliver((8, 7), 7, text("before"))
    assert written(member) == []
    feed.sessions.deliver(
        (9, 7), 7, [wire.join_output(3, b"c-x", 1), (b"text +3", b"a"), *text("b"), (b"text -3", b"c")]
    )
    assert written(member, joined=False) == [[facts("hello", "10-7", 0), "11 a", "12 b"]]
    feed.sessions.deliver((13, 7), 8, text("d"))
    assert written(member) == [{"era": "8"}, "14 d"]


async def test_accepted_and_applied(feed: FakeFeed) -> None:
    """Each push is acknowledged once, and applied told when the cursor has passed, in whatever order the two come."""
    member = feed.live()
    feed.take(member, 1, 2, 3)
    assert [(event.number, event.session, event.generation) for event in feed.queue] == [
        (1, "s1", 1), (2, "s1", 1), (3, "s1", 1),
    ]  # fmt: skip
    feed.answer(member, "aab", first_iseq=20)
    assert written(member) == [{"ack": 2}]
    feed.sessions.advance(20)
    assert written(member) == [{"applied": 1}]
    feed.sessions.advance(40)
    assert written(member) == [{"applied": 2}]
    feed.take(member, 4)
    feed.answer(member, "a", first_iseq=30)
    assert written(member) == [{"ack": 4, "applied": 4}]


async def test_a_close_by_the_room(feed: FakeFeed) -> None:
    """What its commit has applied is told before the close, failures among it first; outputs after it are not shown."""
    member = feed.live()
    feed.take(member, 1, 2)
    feed.answer(member, "aa", first_iseq=20)
    written(member)
    error = (b"error +3", b'{"error":"handler_failed","n":2}')
    feed.sessions.deliver((10, 7), 7, [*text("a"), (b"close +3", b"4321 bye"), *text("not shown"), error])
    feed.sessions.advance(21)
    assert written(member) == ["11 a", {"error": "handler_failed", "n": 2, "at": "14-7"}, {"applied": 2}, 4321]
    assert member.leave_event().kind == "leave"


@pytest.mark.parametrize(
    ("letters", "told"),
    [("aa", [{"ack": 2, "applied": 1}, 4321]), ("cc", [4321]), ("ac", [{"ack": 1, "applied": 1}, 4321])],
)
async def test_a_close_by_the_room_before_the_answer(feed: FakeFeed, letters: str, told: list[Any]) -> None:
    """It waits for what is on its way into the inbox, and takes nothing more."""
    member = feed.live()
    feed.take(member, 1, 2)
    feed.sessions.deliver((10, 7), 7, [(b"close +3", b"4321 bye")])
    feed.sessions.advance(20)
    feed.take(member, 3)
    assert (written(member), len(feed.queue)) == ([], 2)
    feed.answer(member, letters, first_iseq=20)
    assert written(member) == told


async def test_a_close_by_the_room_without_an_answer(feed: FakeFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for ever, and with a cut history not at all."""
    monkeypatch.setattr(sessions_module, "_PART_S", 0.01)
    for is_cut in (False, True):
        member = feed.live()
        feed.take(member, 1)
        feed.sessions.deliver((10, 7), 7, [(b"close +3", b"4321 bye")])
        feed.sessions.advance(20)
        assert written(member) == []
        if is_cut:
            feed.sessions.cut()
        else:
            await asyncio.sleep(0.05)
        assert written(member) == [4321]
        feed.sessions.remove(member)


async def test_said_again(feed: FakeFeed) -> None:
    """A number that was taken is not pushed again; if it was accepted the client hears so once more."""
    member = feed.live()
    feed.take(member, 1, 1)
    assert len(feed.queue) == 1
    feed.answer(member, "a")
    written(member)
    feed.take(member, 1)
    assert (feed.queue, written(member)) == ([], [{"ack": 1}])


@pytest.mark.parametrize(("letter", "code"), [("o", 4409), ("u", 4410), ("c", 4410)])
async def test_refused_for_good(feed: FakeFeed, letter: str, code: int) -> None:
    """A push that is refused ends the socket, and no drop follows."""
    member = feed.live()
    feed.take(member, 1)
    feed.answer(member, letter)
    assert written(member) == [code]
    assert member.pushed is False


async def test_a_gap_is_a_cut(feed: FakeFeed) -> None:
    """Where Redis misses a number that it had accepted, the room's history was cut."""
    member = feed.live()
    feed.take(member, 1, 2)
    feed.answer(member, "ag")
    assert feed.cuts == 1


async def test_a_cut(feed: FakeFeed) -> None:
    """From a cut on nothing is shown until the resync's mark; letters of before say nothing; then numbers go on."""
    member = feed.live()
    feed.take(member, 1, 2, 3)
    feed.answer(member, "aaa")
    written(member)
    feed.sessions.cut()
    feed.take(member, 4)
    feed.answer(member, "g")
    assert feed.cuts == 0
    feed.sessions.ask_resyncs()
    assert [event.kind for event in feed.queue] == ["resync"]
    feed.answer(member, "a")
    feed.replies = [[[b"50", b"1 1 up 9"]]]
    feed.sessions.deliver((5, 8), 8, [*text("a"), (b"resync 3 c-x 1", b""), (b"text +3", b"snapshot")])
    feed.sessions.deliver((8, 8), 8, text("b"))
    assert written(member) == []
    await feed.settled()
    assert written(member, joined=False) == [[facts("resync", "7-8", 1), "8 snapshot", "9 b"]]
    feed.take(member, 5, 6)  # still in flight from before
    assert (feed.queue, written(member)) == ([], [])
    feed.take(member, 2, 3)
    assert [event.number for event in feed.queue] == [2, 3]
    feed.sessions.advance(50)
    assert written(member) == [{"applied": 1}]
    feed.take(member, 5)
    assert written(member)[-2:] == [{"error": "out_of_order", "expected": 4}, 4400]


async def test_a_cut_while_it_joins(feed: FakeFeed) -> None:
    """A join that may be in what was lost is tried again by the client."""
    member = feed.socket()
    feed.sessions.cut()
    assert written(member) == [4512]


def entries(*outputs: tuple[bytes, bytes], first: int) -> list[Any]:
    """Return outlog entries of mark 7."""
    return [[b"%d-7" % n, [b"h", header, b"d", body]] for n, (header, body) in enumerate(outputs, first)]


async def test_a_resume(feed: FakeFeed) -> None:
    """What was missed is read and shown, then what came meanwhile; a server that does not answer is asked again."""
    member = feed.socket(last=(8, 7), generation=2)
    assert member.join_event(User("", "x")).kind == "resume"
    feed.take(member, 9)  # before the answer: the client sends it again
    missed = entries((b"text *", b"seen"), (b"text *", b"missed"), (b"join 3 c-x 2 back", b""), first=8)
    feed.replies = [RedisUnavailable("away"), [[b"25", b"4 2 up 9"], missed]]
    feed.sessions.deliver((9, 7), 7, [(b"join 3 c-x 2 back", b""), (b"text *", b"now")])
    feed.sessions.deliver((11, 7), 7, [(b"text +3", b"mine"), (b"close +3", b"4321 bye")])
    await feed.settled()
    assert feed.asked[-1][1][2:] == (b"8-7", b"10-7")
    assert written(member) == [facts("resumed", "8-7", 4), "9 missed", "11 now", "12 mine", 4321]
    assert member.leave_event().kind == "leave"


async def test_who_missed_nothing_reads_no_outlog(feed: FakeFeed) -> None:
    """What one session has read says of the others whether they saw all: marks are not seen. Any output ends that."""
    outlog: list[Output] = [(b"text *", b"0"), (b"text *", b"1"), (b"join 1 c-a 1", b"")]

    async def commands_of(last: int, *meanwhile: Output) -> int:
        name, at = f"c-{len(outlog)}", len(outlog)
        member = feed.socket(last=(last, 7), generation=2, name=name)
        outlog.append((f"join {at} {name} 2 back".encode(), b""))
        feed.replies = [[[b"25", b"4 2 up 9"], entries(*outlog[last:], first=last)]]
        feed.sessions.deliver((at - 1, 7), 7, outlog[at:])
        feed.sessions.deliver((at, 7), 7, [*meanwhile])
        outlog.extend(meanwhile)
        await feed.settled()
        assert written(member)[0]["resumed"]["at"] == f"{last}-7"
        return len(feed.asked[-1])

    assert [await commands_of(last) for last in (2, 1, 1, 2, 3)] == [1, 2, 1, 1, 1]
    assert await commands_of(1, (b"text -1", b"x")) == 1
    assert [await commands_of(last) for last in (1, 9, 9, 1)] == [2, 1, 1, 2]
    assert await commands_of(0, (b"text -1", b"x")) == 2
    assert await commands_of(9) == 2  # what was read for the one before ended with that


async def test_numbers_after_a_resume(feed: FakeFeed) -> None:
    """They go on after what was accepted."""
    member = feed.socket(last=(9, 7), generation=2)
    feed.replies = [[[b"25", b"4 2 up 9"], []]]
    feed.sessions.deliver((9, 7), 7, [(b"join 3 c-x 2 back", b"")])  # it had seen all: the outlog may have expired
    await feed.settled()
    assert written(member) == [facts("resumed", "9-7", 4)]
    feed.sessions.advance(25)
    assert written(member) == [{"applied": 4}]
    feed.take(member, 4, 5)
    assert [event.number for event in feed.queue] == [5]


async def test_a_resume_without_its_past(feed: FakeFeed) -> None:
    """It asks the room for a snapshot, and is told with it."""
    member = feed.socket(last=(2, 7), generation=2)
    feed.replies = [[[b"25", b"4 2 up 9"], []], [[b"26", b"4 2 up 9"]]]
    feed.sessions.deliver((9, 7), 7, [(b"join 3 c-x 2 back", b""), *text("not shown")])
    await feed.settled()
    assert (written(member), feed.queue[-1].kind) == ([], "resync")
    feed.sessions.deliver((11, 7), 7, [(b"resync 3 c-x 2", b""), (b"text +3", b"snapshot")])
    await feed.settled()
    assert written(member) == [facts("resync", "12-7", 4), "13 snapshot"]


async def test_outputs_that_cannot_be_read(feed: FakeFeed, caplog: pytest.LogCaptureFixture) -> None:
    """One is skipped with an error, and the others keep their numbers; a past with one is a past that is not there."""
    member = feed.live()
    feed.sessions.deliver((10, 7), 7, [*text("a"), (b"text -c-abc", b"?"), (b"close +3", b"?"), *text("d")])
    assert written(member) == ["11 a", "14 d"]
    assert caplog.text.count("cannot read was skipped") == 2
    back = feed.socket(last=(8, 7), generation=2)
    missed = entries((b"text *", b"seen"), (b"close +3", b"?"), (b"join 3 c-x 2 back", b""), first=8)
    feed.replies = [[[b"25", b"4 2 up 9"], missed]]
    feed.sessions.deliver((9, 7), 7, [(b"join 3 c-x 2 back", b"")])
    await feed.settled()
    assert (written(back), feed.queue[-1].kind) == ([], "resync")
    assert "what a session missed cannot be read" in caplog.text


async def test_a_resume_of_a_closed_session(feed: FakeFeed) -> None:
    """Where the session has ended since its mark, its socket is told so."""
    member = feed.socket(last=(8, 7), generation=2)
    feed.replies = [[[b"25", b"4 2 closed 9"], []]]
    feed.sessions.deliver((9, 7), 7, [(b"join 3 c-x 2 back", b"")])
    await feed.settled()
    assert written(member) == [4410]


async def test_a_cut_while_it_catches_up(feed: FakeFeed) -> None:
    """What was read for a history that is gone is not shown."""
    member = feed.socket(last=(8, 7), generation=2)
    missed = entries((b"text *", b"seen"), (b"text *", b"gone"), (b"join 3 c-x 2 back", b""), first=8)
    feed.replies = [[[b"25", b"4 2 up 9"], missed]]
    feed.sessions.deliver((9, 7), 7, [(b"join 3 c-x 2 back", b"")])
    feed.sessions.cut()
    await feed.settled()
    assert (written(member), member.stage) == ([], Stage.CUT)


async def test_newest_wins(feed: FakeFeed) -> None:
    """A newer generation's mark closes the older sockets here, also where the newer one is elsewhere."""
    old = feed.live()
    new = feed.socket(generation=2, last=(10, 7))
    feed.replies = [[[b"25", b"0 2 up 9"], []]]
    feed.sessions.deliver((10, 7), 7, [(b"join 3 c-x 2 back", b""), *text("a")])
    await feed.settled()
    assert written(old) == [4409]
    assert old.pushed is False
    assert written(new) == [facts("resumed", "10-7", 0), "12 a"]
    feed.sessions.remove(old)
    feed.sessions.deliver((12, 7), 7, text("b"))
    assert written(new) == ["13 b"]
    feed.sessions.deliver((13, 7), 7, [(b"join 3 c-x 3 back", b""), *text("c")])
    assert written(new) == [4409]


async def test_refused(feed: FakeFeed) -> None:
    """A refusal closes the socket that it means, and older ones, not a newer one."""
    one, two = feed.socket(generation=1), feed.socket(generation=2)
    feed.sessions.deliver((9, 7), 7, [wire.refuse_output(b"c-x", 4403, "no", 1)])
    assert (written(one), written(two), one.pushed) == ([4403], [], False)


async def test_where_it_stands(feed: FakeFeed) -> None:
    """A client that nothing is for hears now and then where the room is; so does a silent one with its ping."""
    member = feed.live()
    for n in range(10, 330):
        feed.sessions.deliver((n, 7), 7, [(b"text +99", b"x")])
    told = [control for control in written(member) if "at" in control]
    assert len(told) == 1
    assert 256 < int(told[0]["at"].partition("-")[0]) - 10 <= 320
    feed.chain = Chain((330, 8))
    member.ping()
    transport = cast("FakeTransport", member._transport)
    assert transport.writes[0] == b"\x89\x00"
    del transport.writes[0]
    assert written(member) == [{"at": "330-8"}]
    feed.sessions.deliver((330, 8), 8, text("a"))
    assert written(member) == ["331 a"]


async def test_too_much_while_it_catches_up(feed: FakeFeed) -> None:
    """What is held for a socket is bounded as what waits in one."""
    member = feed.socket(last=(8, 7), generation=2)
    feed.replies = [[[b"25", b"4 2 up 9"], []]]
    feed.sessions.deliver((9, 7), 7, [(b"join 3 c-x 2 back", b"")])
    feed.sessions.deliver((10, 7), 7, [(b"text *", b"x" * 700_000)] * 2)
    await feed.settled()
    assert written(member) == [4508]


@pytest.mark.parametrize(
    ("payload", "is_text", "code"),
    [
        (b"x", True, 4400),
        (b"!{}", True, 4400),
        (b"\0", False, 4400),
        (b"1 \xff", True, 1007),
        (b"1 " + b"x" * 101, True, 1009),
    ],
)
async def test_bad_frames(feed: FakeFeed, payload: bytes, is_text: bool, code: int) -> None:
    """What is no message is closed, with nothing pushed."""
    member = feed.live()
    member.take(payload, is_text=is_text)
    member.take(b"1 x", is_text=True)
    assert (written(member), feed.queue) == ([code], [])


@pytest.mark.parametrize(("code", "kind"), [(1000, "leave"), (1001, "drop"), (1005, "drop"), (4000, "drop")])
async def test_how_it_ends(feed: FakeFeed, code: int, kind: str) -> None:
    """A client that closes with 1000 leaves; any other end may be followed by a resume."""
    member = feed.live()
    member.ended(code)
    assert member.leave_event() == PushEvent(kind, "c-x", b"", "s1", 0, 1)
