"""The same Lua on fakeredis, through redis-py's public calls: what users' tests and ours without a server stand on."""

import uuid
from collections.abc import AsyncIterator

import fakeredis
import pytest
from redis.asyncio.connection import AbstractConnection

from harness.acts import Listener, RoomActs, join, leave, session, text, turn_of
from innkeeper import functions
from innkeeper.address import Address
from innkeeper.errors import EdgeClosed, RedisReplied
from innkeeper.functions import Claimed, Committed, Held, Released
from innkeeper.functions import timers as acts
from innkeeper.functions.library import load_library
from innkeeper.functions.posts import PostEvent, post, read_posted
from innkeeper.redis_client import Connect, Link
from innkeeper.timers import GraceRow, TimerRow
from innkeeper.turn import DeadEvent
from innkeeper.wire import read_news


@pytest.fixture
def connect() -> Connect:
    """Open connections to a fake server of this test's own."""
    client = fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer(server_type="valkey", version=(8, 0)), protocol=2)

    async def open_one() -> AbstractConnection:
        connection: AbstractConnection = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    return open_one


@pytest.fixture
async def fake(connect: Connect) -> AsyncIterator[RoomActs]:
    """A room on the fake server."""
    link = Link(connect, timeout_s=5, name="fake")
    await load_library(link)
    yield RoomActs(link, Address("test", uuid.uuid4().hex))
    await link.close()


@pytest.fixture
async def ears(connect: Connect) -> AsyncIterator[Listener]:
    """Ears on the fake server."""
    listener = Listener(connect)
    yield listener
    await listener.subscriber.close()


async def test_loading_again_changes_nothing(fake: RoomActs) -> None:
    """The library loads on fakeredis and is found there."""
    listing = await fake.link.call("FUNCTION", "LIST", "WITHCODE")
    await load_library(fake.link)
    assert await fake.link.call("FUNCTION", "LIST", "WITHCODE") == listing


async def test_the_way_of_an_event(fake: RoomActs, ears: Listener) -> None:
    """Push, bell, claim, commit, publish, renew and release give the answers that a real server gives."""
    await ears.subscribe(fake.keys.bell)
    await ears.subscribe(fake.keys.out)
    claimed = await fake.own(mark=9)
    assert (claimed.token, claimed.iseq) == ("1:9", 0)
    pushed = await fake.push(join(), text(data=b"a\nb"), leave())
    assert (pushed.letters, pushed.first_iseq, pushed.receivers) == ("aaa", 1, 1)
    assert [event.data for event in read_news(await ears.next())] == [b'{"user":["u","u"]}', b"a\nb", b""]
    ids = await fake.ids()
    turn = turn_of(ids[:2], outputs=[(b"text *", b"1"), (b"text *", b"x" * 13_000)], state_set={"a": b"1"})
    assert await fake.commit(claimed, 0, turn, keep=8) == Committed(b"2-9")
    assert [(batch.first, batch.last, len(batch.outputs)) for batch in await ears.batches(2)] == [(1, 1, 1), (2, 2, 0)]
    assert await fake.renew(claimed) == 3
    assert await fake.release(claimed) == Released(released=False, ours=True, backlog=1)
    assert await fake.commit(claimed, 1, turn_of(ids[2:], state_del={"a"})) == Committed(b"2-9")
    assert await fake.release(claimed) == Released(released=True, ours=False, backlog=0)
    assert await fake.ttl_ms("meta") > 0


async def test_refusals(fake: RoomActs) -> None:
    """Dedupe, back-pressure, fencing and closed edges hold on fakeredis too."""
    assert (await fake.push(text(), text(), leave(), batch=2, backlog_count=1)).letters == "aba"
    assert (await fake.push(text(), text(), leave(), batch=2, backlog_count=1)).letters == "aba"
    assert (await fake.push(text(), batch=1)).letters == "o"
    steps = (session("join"), session("text", number=1), session("text", number=3), session("leave"))
    assert (await fake.push(*steps, edge="e2")).letters == "aaga"
    claimed = await fake.own()
    ids = await fake.ids()
    assert isinstance(await fake.claim(worker="w2"), Held)
    assert await fake.commit("1:1", 0, turn_of(ids[:1])) == "token"
    assert await fake.commit(claimed, 3, turn_of(ids[:1])) == "version"
    assert await fake.commit(claimed, 0, turn_of(ids[1:])) == "gap"
    assert await fake.commit(claimed, 0, turn_of([b"1-1"])) == "input"
    first = await fake.done(claimed, 0, turn_of(ids))
    assert await fake.commit(claimed, 0, turn_of(ids)) == first
    assert await fake.reap("e1")
    assert not await fake.reap("e1")
    with pytest.raises(EdgeClosed):
        await fake.push(text())


async def test_a_steal_looks_at_the_bell(fake: RoomActs, ears: Listener) -> None:
    """The number of a bell's subscribers is evidence on fakeredis as well."""
    first = await fake.own()
    seen = f"w1:{first.token}".encode()
    await ears.subscribe(fake.keys.bell)
    held = await fake.claim(worker="w2", seen=seen)
    assert isinstance(held, Held)
    assert held.subscribers == 1
    assert isinstance(await fake.claim(worker="w2", seen=seen, own=1), Claimed)


async def test_claim_mends_and_marks(fake: RoomActs) -> None:
    """Suspects and contradictions are handled on fakeredis as on a real server."""
    await fake.push(text(), text())
    await fake.own()
    await fake.link.call(*fake.delete("lock"))
    assert (await fake.own()).meta[b"marked"] == b"2"
    await fake.link.call("XDEL", fake.keys.inbox, (await fake.ids())[0])
    await fake.link.call(*fake.delete("lock"))
    mended = await fake.own()
    assert (mended.meta[b"contradictions"], mended.iseq, mended.meta[b"cursor"]) == (b"1", 2, b"2")
    assert len(await fake.stream("dead")) == 2


async def test_a_full_turn(fake: RoomActs) -> None:
    """Every section of a commit, more than 1,000 values, a destroy and trimming work on fakeredis."""
    await fake.push(session("join"), text())
    claimed = await fake.own()
    names = [f"k{n}" for n in range(1_100)]
    values = dict.fromkeys(names, b"1")
    turn = turn_of(
        await fake.ids(), state_set=values, members_set=values, timers_set=values, sessions_closed=["s1"],
        outbox=[("post", "a/b", b"")], dead=[DeadEvent(b"1-1", b"text", b"c", b"", "e", "t")],
        outputs=[(b"text *", b"x" * 500)] * 1_100,
    )  # fmt: skip
    await fake.done(claimed, 0, turn, keep=8)
    assert len(await fake.hash("state")) == 1_100
    assert len(await fake.stream("outlog")) < 600
    assert " closed " in (await fake.hash("sessions"))["s:s1"]
    await fake.link.call("HSET", fake.keys.meta, "version", 999)
    await fake.done(claimed, 999, turn_of(destroy=True, members_set={"c1": b'{"edge":"e1"}'}))
    assert not {"state", "timers", "outlog", "dead"} & await fake.exist()


async def test_posts(fake: RoomActs, ears: Listener) -> None:
    """Posts count once per source and mark, stop at the cap, and ring, on fakeredis too."""

    async def send(*numbers: int, cap: int = 3) -> tuple[str, int]:
        events = [PostEvent(number, "post", b"%d" % number) for number in numbers]
        reply = await fake.ask(post(fake.keys, source="a/b", mark=7, backlog_count=cap, events=events))
        posted = read_posted(reply)
        return posted.letters, posted.receivers

    assert await send(1, 2) == ("aa", 0)
    await fake.own()
    await ears.subscribe(fake.keys.bell)
    assert await send(2, 3, 1_000_000_000, cap=3) == ("dab", 1)
    assert [event.data for event in read_news(await ears.next())] == [b"3"]


async def test_heartbeats(fake: RoomActs) -> None:
    """The registry of incarnations works on fakeredis."""
    for first, alive in ((True, True), (False, True)):
        reply = await fake.ask(functions.heartbeat("inn:edges", incarnation="e-1", first=first))
        assert functions.read_heartbeat(reply)[0] is alive
    await fake.link.call("ZREM", "inn:edges", "e-1")
    assert not functions.read_heartbeat(
        await fake.ask(functions.heartbeat("inn:edges", incarnation="e-1", first=False))
    )[0]


async def test_error_replies(fake: RoomActs) -> None:
    """An error reply stands in the list of replies and the link goes on."""
    replies = await fake.link.send((("SET", "k", "v"), ("INCR", "k"), ("GET", "k")))
    assert replies[0] == b"OK"
    assert isinstance(replies[1], RedisReplied)
    assert replies[2] == b"v"


async def test_timers(fake: RoomActs, ears: Listener) -> None:
    """Timers fire once, graces end, and the index of timers is kept, as on a real server."""
    await ears.subscribe(fake.keys.bell)
    await fake.own()
    await fake.push(session("join"))
    await ears.next()
    late_ms = await fake.server_ms() + 60_000
    rows = {
        "x": TimerRow("1-1.1", 5, b'{"a":[]}').to_row(),
        "y": TimerRow("1-1.2", late_ms).to_row(),
        "~grace:s1": GraceRow("1-1.3", 5, "c-s1", 1, "e1").to_row(),
        "nonsense": b"{}",
    }
    for name, row in rows.items():
        await fake.link.call("HSET", fake.keys.timers, name, row)
    fired = acts.read_fired(await fake.ask(acts.fire(fake.keys)))
    assert fired[:5] == (2, late_ms, 2, 3, 1)
    kinds = {event.kind: event for event in read_news(await ears.next())}
    assert kinds[b"timer"].data == b'{"name":"x","id":"1-1.1","due":5}'
    assert (kinds[b"leave"].session, kinds[b"leave"].generation) == (b"s1", 1)
    assert " closed " in (await fake.hash("sessions"))["s:s1"]
    assert (await fake.hash("timers"))["x"].startswith('{"fired":true,"id":')
    assert acts.read_fired(await fake.ask(acts.fire(fake.keys, names=["x", "y", "z"])))[:3] == (0, late_ms, 2)
    room = fake.address
    assert acts.read_expected(await fake.ask(acts.expect(3, [(room, late_ms)]))) == [late_ms]
    assert acts.read_due(await fake.ask(acts.due(3, most=5)))[1:] == (late_ms, [])
    assert acts.read_expected(await fake.ask(acts.expect(3, [(room, 7), (room, 9)]))) == [7, 6]
    assert acts.read_due(await fake.ask(acts.due(3, most=5))).rooms == [(str(room), 6)]
    assert await fake.ask(acts.postpone(3, [(str(room), 7, "gone")])) == 0
    assert await fake.ask(acts.postpone(3, [(str(room), 6, late_ms)])) == 1
    assert await fake.ask(acts.postpone(3, [(str(room), late_ms, "gone")])) == 1
