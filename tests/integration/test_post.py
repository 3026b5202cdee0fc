"""The post act: each event of a source once, in order, whoever sends it again; and how long that is remembered."""

import pytest

from harness.acts import Listener, RoomActs, join, leave, turn_of
from innkeeper.errors import RedisReplied
from innkeeper.functions.posts import Posted, PostEvent, post, read_posted
from innkeeper.wire import read_news

DAY_MS = 86_400_000


async def send(
    room: RoomActs, *numbers: int, source: str = "a/b", mark: int = 7, cap: int = 100, kind: str = "post"
) -> Posted:
    """Post events with these numbers."""
    events = [PostEvent(number, kind, b"%d" % number) for number in numbers]
    return read_posted(await room.ask(post(room.keys, source=source, mark=mark, backlog_count=cap, events=events)))


async def data(room: RoomActs) -> list[bytes]:
    """Return the data in the inbox, in order."""
    return [fields["d"] for _, fields in await room.stream("inbox")]


async def test_a_post_makes_an_absent_room(room: RoomActs) -> None:
    """The events stand in the inbox as from their source, numbered from 1, with a row that says so; nobody heard."""
    posted = await send(room, 3, 10)
    assert posted == Posted("aa", 0, b"")
    assert posted.wants_owner
    entries = await room.stream("inbox")
    assert [(entry_id.split("-")[0], fields) for entry_id, fields in entries] == [
        (str(n), {"t": b"post", "c": b"-", "e": b"a/b", "d": said}) for n, said in ((1, b"3"), (2, b"10"))
    ]
    rows = await room.hash("sessions")
    assert (rows["#"], rows["@"], rows["p:a/b:7"].split()[0]) == ("2", "0", "10")
    assert (await room.own()).iseq == 2


async def test_each_number_counts_once(room: RoomActs) -> None:
    """The same again, a part of it, and one more: duplicates are told and not appended; 9 is below 10."""
    assert (await send(room, 9, 10)).letters == "aa"
    assert (await send(room, 9, 10)).letters == "dd"
    assert (await send(room, 9)).letters == "d"
    assert (await send(room, 9, 10, 11)).letters == "dda"
    assert await data(room) == [b"9", b"10", b"11"]


async def test_sources_and_marks_are_counted_apart(room: RoomActs) -> None:
    """A late repeat under an old mark stays a duplicate; the same number under another mark or source is new."""
    assert (await send(room, 5, mark=1)).letters == "a"
    assert (await send(room, 5, mark=2)).letters == "a"
    assert (await send(room, 5, mark=1)).letters == "d"
    assert (await send(room, 5, mark=1, source="a/bc")).letters == "a"
    assert (await send(room, 5, mark=1, source="x-1")).letters == "a"


async def test_a_full_room_takes_the_first_ones(room: RoomActs) -> None:
    """At the cap the rest is busy, to the end of the call; sent again it is taken when there is room."""
    posted = await send(room, 1, 2, 3, 4, cap=2)
    assert (posted.letters, posted.taken_count) == ("aabb", 2)
    assert (await send(room, 1, 2, 3, 4, cap=2)).letters == "ddbb"
    assert (await send(room, 5, cap=2, kind="destroy", source="x-1")).letters == "a"  # never held back
    claimed = await room.own()
    await room.done(claimed, 0, turn_of((await room.ids())[:2]))
    posted = await send(room, 3, 4, cap=3)
    assert posted.letters == "aa"


async def test_the_bell_carries_the_posts(room: RoomActs, listener: Listener) -> None:
    """An owner hears the events themselves; of a repeat it hears the bell alone, of a large one too."""
    await room.own()
    await listener.subscribe(room.keys.bell)
    posted = await send(room, 1, 2)
    assert (posted.receivers, posted.wants_owner) == (1, False)
    events = read_news(await listener.next())
    assert [(e.iseq, e.kind, e.connection, e.edge, e.data) for e in events] == [
        (1, b"post", b"-", b"a/b", b"1"), (2, b"post", b"-", b"a/b", b"2"),
    ]  # fmt: skip
    await send(room, 1, 2)
    assert await listener.next() == b""
    large = PostEvent(3, "post", b"x" * 20_000)
    await room.ask(post(room.keys, source="a/b", mark=7, backlog_count=9, events=[large]))
    assert await listener.next() == b""


async def test_numbers_beyond_what_lua_prints(room: RoomActs) -> None:
    """Large numbers are compared and written as they are."""
    assert (await send(room, 99_999_999_999_999, 100_000_000_000_000)).letters == "aa"
    assert (await send(room, 100_000_000_000_000)).letters == "d"
    assert (await room.hash("sessions"))["p:a/b:7"].startswith("100000000000000 ")


async def test_what_rooms_posted_is_remembered_for_a_day(room: RoomActs) -> None:
    """A room at rest, even an empty one, keeps the rows of posts of other rooms for a day."""
    await send(room, 1)
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(await room.ids()))
    await room.release(claimed)
    assert DAY_MS - 5_000 < await room.ttl_ms("sessions") <= DAY_MS
    moments = await room.link.send(
        [("PEXPIRETIME", key) for key in (room.keys.meta, room.keys.sessions, room.keys.inbox)]
    )
    assert len(set(moments)) == 1
    assert (await send(room, 1)).letters == "d"


async def test_a_program_keeps_no_room_for_a_day(room: RoomActs) -> None:
    """Only programs posted: an empty room goes after the resume window, as ever."""
    await send(room, 1, source="x-1")
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(await room.ids()))
    await room.release(claimed)
    assert 0 < await room.ttl_ms("sessions") <= 600_000


async def test_the_outlog_of_such_a_room_goes_as_ever(room: RoomActs) -> None:
    """A room with state keeps its sessions for a day, its outlog for the resume window."""
    await room.push(join(), leave())
    await send(room, 1)
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(await room.ids(), state_set={"a": b"1"}, outputs=[(b"text *", b"x")]))
    await room.release(claimed)
    assert await room.ttl_ms("outlog") <= 600_000
    assert await room.ttl_ms("sessions") > 600_000
    assert await room.ttl_ms("state") == -1


async def test_a_wrong_type_writes_nothing(room: RoomActs) -> None:
    """Where sessions is no hash the act fails before its first write."""
    await room.link.call("SET", room.keys.sessions, "x")
    with pytest.raises(RedisReplied):
        await send(room, 1)
    assert await room.exist() == {"sessions"}


async def test_outbox_numbers_go_on_where_meta_was_deleted(room: RoomActs) -> None:
    """A careless operator deletes meta: the outbox takes the next entry all the same."""
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(outbox=[("post", "a/b", b"1"), ("post", "a/b", b"2")]))
    await room.link.call(*room.delete("meta", "lock"))
    await room.done(await room.own(), 0, turn_of(outbox=[("post", "a/b", b"3")]))
    assert [entry_id.split("-")[0] for entry_id, _ in await room.stream("outbox")] == ["1", "2", "3"]
