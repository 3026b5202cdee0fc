"""The act fire, and the acts on the index of timers, on a real server."""

import uuid
from typing import Any

import orjson
import pytest

from harness.acts import Listener, RoomActs, join, session, turn_of
from innkeeper.address import Address
from innkeeper.functions import timers as acts
from innkeeper.functions.timers import Due, Fired
from innkeeper.keys import timer_index
from innkeeper.timers import GraceRow, TimerRow
from innkeeper.wire import read_inbox_entry, read_news


async def fire(room: RoomActs, *names: str, at_once: int = 256) -> Fired:
    """Fire what is due in the room."""
    return acts.read_fired(await room.ask(acts.fire(room.keys, names=names, at_once=at_once)))


async def put(room: RoomActs, **dues_ms: int) -> None:
    """Write timers that are due that many ms from now, as a commit would."""
    now_ms = await room.server_ms()
    for name, due_ms in dues_ms.items():
        row = TimerRow(f"1-1.{name}", now_ms + due_ms, b'{"a":[]}').to_row()
        await room.link.call("HSET", room.keys.timers, name, row)


async def grace(room: RoomActs, *, generation: int, due_ms: int = -1, name: str = "s1") -> None:
    """Write the end of a session's grace."""
    row = GraceRow("1-1.1", await room.server_ms() + due_ms, f"c-{name}", generation, "e1").to_row()
    await room.link.call("HSET", room.keys.timers, f"~grace:{name}", row)


async def events(room: RoomActs) -> list[tuple[bytes, bytes]]:
    """Return type and data of what stands in the inbox."""
    return [(fields["t"], fields["d"]) for _, fields in await room.stream("inbox")]


# --- timers -----------------------------------------------------------------------------------------------------------
async def test_a_due_timer_fires_once(room: RoomActs) -> None:
    """The event is appended and the row marked in one call; a second call changes nothing, and none is early."""
    await put(room, now=0, later=60_000)
    row = (await room.hash("timers"))["now"]
    fired = await fire(room)
    later_ms = orjson.loads((await room.hash("timers"))["later"])["due"]
    assert (fired.appended, fired.next_ms, fired.left, fired.backlog, fired.lock) == (1, later_ms, 2, 1, b"")
    assert fired.wants_owner
    due_ms = orjson.loads(row)["due"]
    assert await events(room) == [(b"timer", b'{"name":"now","id":"1-1.now","due":%d}' % due_ms)]
    assert (await room.hash("timers"))["now"] == '{"fired":true,' + row[1:]
    assert (await room.hash("sessions"))["#"] == "1"
    entry_id, fields = (await room.stream("inbox"))[0]
    assert int(entry_id.split("-")[1]) // 1000 >= due_ms
    assert fields["c"] == b"-"
    before = await room.snapshot()
    again = await fire(room)
    assert (again.appended, again.next_ms, again.left, again.backlog) == (0, later_ms, 2, 1)
    assert await room.snapshot() == before


async def test_nothing_due_writes_nothing(room: RoomActs) -> None:
    """Neither a room that is not there nor one whose timers are in the future is touched."""
    assert (await fire(room))[:5] == (0, 0, 0, 0, 0)
    assert await room.exist() == set()
    await put(room, later=60_000)
    await fire(room)
    assert await room.exist() == {"timers"}


async def test_an_event_follows_what_was_pushed(room: RoomActs) -> None:
    """It takes the next iseq, and the next push the one after it."""
    await room.push(join())
    await put(room, x=0)
    await fire(room)
    assert (await room.push(join("c2"))).first_iseq == 3
    assert [kind for kind, _ in await events(room)] == [b"join", b"timer", b"join"]


async def test_names_and_the_limit(room: RoomActs) -> None:
    """Only the names given are looked at; beyond the limit the rest is told to be due."""
    await put(room, a=0, b=0, c=0)
    assert (await fire(room, "b", "nobody"))[:3] == (1, 0, 1)
    fired = await fire(room, at_once=1)
    assert (fired.appended, fired.left) == (1, 3)
    assert 0 < fired.next_ms <= await room.server_ms()
    assert (await fire(room))[:3] == (1, 0, 3)
    names = sorted(orjson.loads(data)["name"] for _, data in await events(room))
    assert names == ["a", "b", "c"]


async def test_the_owner_hears_the_events(room: RoomActs, listener: Listener) -> None:
    """The bell carries what the inbox holds; where only older events wait it rings empty."""
    await listener.subscribe(room.keys.bell)
    claimed = await room.own()
    await put(room, x=0, y=0)
    fired = await fire(room)
    assert (fired.receivers, fired.lock) == (1, f"w1:{claimed.token}".encode())
    assert not fired.wants_owner
    entries = await room.link.call("XRANGE", room.keys.inbox, "-", "+")
    assert read_news(await listener.next()) == [read_inbox_entry(*entry) for entry in entries]
    assert len(entries) == 2
    assert (await fire(room)).receivers == 1
    assert await listener.next() == b""


async def test_many_events_ring_empty(room: RoomActs, listener: Listener) -> None:
    """Above 12,000 bytes the owner has to read."""
    await listener.subscribe(room.keys.bell)
    await room.own()
    await put(room, **{f"{n}-{'x' * 90}": 0 for n in range(100)})
    assert (await fire(room)).appended == 100
    assert await listener.next() == b""


async def test_firing_wakes_the_keys(room: RoomActs) -> None:
    """Inbox and sessions of a released room do not expire with the event in them."""
    await room.push(join())
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(await room.ids()))
    await room.release(claimed)
    assert await room.ttl_ms("sessions") > 0
    await put(room, x=0)
    await fire(room)
    assert (await room.ttl_ms("inbox"), await room.ttl_ms("sessions")) == (-1, -1)
    following = await room.own()
    assert (following.iseq, following.meta[b"cursor"]) == (2, b"1")


@pytest.mark.parametrize("name", ["x y", 'quo"te', "back\\slash", "ünï", "a/b", "tab\there", "100%"])
async def test_names_survive(room: RoomActs, name: str) -> None:
    """The event names the timer exactly, whatever it is called."""
    await put(room, **{name: 0})
    await fire(room)
    assert orjson.loads((await events(room))[0][1])["name"] == name


@pytest.mark.parametrize("row", [b"", b"{}", b"[]", b"nonsense", b'{"due":"x"}', b'{"id":"1","due":-5'])
async def test_rows_that_are_no_timers(room: RoomActs, row: bytes) -> None:
    """What somebody else has put there stays, and holds up nothing."""
    await put(room, x=0)
    await room.link.call("HSET", room.keys.timers, "other", row)
    assert (await fire(room))[:3] == (1, 0, 1)
    assert (await room.hash("timers"))["other"] == row.decode()


async def test_a_row_written_by_hand(room: RoomActs) -> None:
    """Another order of its fields, or blanks, do no harm."""
    await room.link.call("HSET", room.keys.timers, "x", b'{ "due": 5, "payload": [], "id": "mine" }')
    assert (await fire(room))[:3] == (1, 0, 1)
    assert await events(room) == [(b"timer", b'{"name":"x","id":"mine","due":5}')]
    assert (await room.hash("timers"))["x"] == '{"fired":true, "due": 5, "payload": [], "id": "mine" }'
    assert (await fire(room)).appended == 0


# --- the grace of sessions --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("pushed", "row", "leaves"),
    [
        ([("join", 1), ("drop", 1)], 1, True),
        ([("join", 1)], 1, True),  # up, but as old as the drop: of a dead edge
        ([("join", 1), ("drop", 1), ("resume", 2)], 1, False),
        ([("join", 1), ("drop", 1), ("resume", 2), ("drop", 2)], 1, True),
        ([("join", 9), ("drop", 9), ("resume", 10)], 9, False),  # as numbers, not as text
        ([("join", 1), ("leave", 1)], 1, False),
        ([], 1, True),  # its row was forgotten
    ],
)
async def test_the_end_of_a_grace(room: RoomActs, pushed: list[tuple[str, int]], row: int, leaves: bool) -> None:
    """The session is closed and leaves, unless it is closed or was resumed; the row goes in either case."""
    for kind, generation in pushed:
        await room.push(session(kind, generation=generation))
    before = await room.hash("sessions")
    await grace(room, generation=row)
    fired = await fire(room)
    assert (fired.appended, fired.left, fired.next_ms) == (int(leaves), 0, 0)
    assert await room.hash("timers") == {}
    if not leaves:
        assert await room.hash("sessions") == before
        return
    known = max([generation for _, generation in pushed], default=row)
    assert (await room.hash("sessions"))["s:s1"].split()[:3] == ["0", str(known), "closed"]
    entry = read_inbox_entry(*(await room.link.call("XRANGE", room.keys.inbox, "-", "+"))[-1])
    assert entry[2:] == (b"leave", b"c-s1", b"e1", b"s1", 0, known, b"")
    assert (await room.push(session("resume", generation=99))).letters == "c"


async def test_a_grace_keeps_the_last_number(room: RoomActs) -> None:
    """The closed row still knows the last message's number."""
    await room.push(session("join"), session("text", number=1), session("text", number=2), session("drop"))
    await grace(room, generation=1)
    await fire(room)
    assert (await room.hash("sessions"))["s:s1"].startswith("2 1 closed ")


async def test_the_bell_carries_a_leave(room: RoomActs, listener: Listener) -> None:
    """Also the leave of a session is in the news as it stands in the inbox."""
    await listener.subscribe(room.keys.bell)
    await room.own()
    await grace(room, generation=4)
    await put(room, x=0)
    await fire(room)
    entries = await room.link.call("XRANGE", room.keys.inbox, "-", "+")
    assert read_news(await listener.next()) == [read_inbox_entry(*entry) for entry in entries]


async def test_a_grace_that_is_not_over(room: RoomActs) -> None:
    """It waits for its time like every timer."""
    await grace(room, generation=1, due_ms=60_000)
    assert (await fire(room))[:3] == (0, orjson.loads((await room.hash("timers"))["~grace:s1"])["due"], 1)


# --- the index --------------------------------------------------------------------------------------------------------
class Index:
    """One shard of the index that no other test uses."""

    def __init__(self, room: RoomActs) -> None:
        self.room = room
        self.shard: Any = uuid.uuid4().hex

    async def expect(self, **dues_ms: int) -> list[int]:
        """Note rooms of kind test."""
        rooms = [(Address("test", name), due_ms) for name, due_ms in dues_ms.items()]
        return acts.read_expected(await self.room.ask(acts.expect(self.shard, rooms)))

    async def due(self, most: int = 10) -> Due:
        """Read what is due."""
        return acts.read_due(await self.room.ask(acts.due(self.shard, most=most)))

    async def postpone(self, *rooms: tuple[str, int, int | str]) -> int:
        """Write down looks."""
        written: int = await self.room.ask(acts.postpone(self.shard, rooms))
        return written

    async def scores(self) -> dict[str, int]:
        """Return what it holds, and forget it."""
        flat = await self.room.link.call("ZRANGE", timer_index(self.shard), 0, -1, "WITHSCORES")
        return {name.decode(): int(score) for name, score in zip(flat[::2], flat[1::2], strict=True)}


@pytest.fixture
async def index(room: RoomActs) -> Any:
    """A shard of the index of timers."""
    index = Index(room)
    yield index
    await room.link.call("DEL", timer_index(index.shard))


async def test_an_expected_time_only_falls_and_always_changes(index: Index) -> None:
    """So whoever has read an earlier score of the room cannot take it out."""
    assert await index.expect(a=1_800_000_000_000, b=5) == [1_800_000_000_000, 5]
    assert await index.expect(a=1_700_000_000_123) == [1_700_000_000_123]
    assert await index.expect(a=1_900_000_000_000) == [1_700_000_000_122]
    assert await index.expect(a=1_700_000_000_122) == [1_700_000_000_121]
    assert await index.scores() == {"test/a": 1_700_000_000_121, "test/b": 5}


async def test_reading_what_is_due(index: Index) -> None:
    """Rooms whose time has come are read with their scores, and when the next one's comes."""
    now_ms = await index.room.server_ms()
    found = await index.due()
    assert (found.next_ms, found.rooms) == (0, [])
    assert now_ms <= found.server_ms <= now_ms + 5000
    await index.expect(a=now_ms, b=3, c=now_ms + 60_000, d=now_ms + 70_000)
    assert (await index.due())[1:] == (now_ms + 60_000, [("test/b", 3), ("test/a", now_ms)])
    assert (await index.due(most=1)).rooms == [("test/b", 3)]


async def test_a_look_is_written_down_only_where_nothing_has_changed(index: Index) -> None:
    """A room that was noted anew since its score was read stays."""
    await index.expect(a=5, b=6, c=7)
    assert await index.postpone(("test/a", 5, "gone"), ("test/b", 6, 1_800_000_000_000), ("test/c", 8, "gone")) == 2
    assert await index.scores() == {"test/c": 7, "test/b": 1_800_000_000_000}
    assert await index.postpone(("test/a", 5, 9)) == 0
    await index.expect(c=9)
    assert await index.postpone(("test/c", 7, "gone")) == 0
    assert await index.scores() == {"test/c": 6, "test/b": 1_800_000_000_000}
