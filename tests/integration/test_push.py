"""push on a real server: letters, dedupe, back-pressure, stale edges, bells."""

import asyncio

import pytest

from harness.acts import Listener, RoomActs, join, leave, session, text, turn_of
from innkeeper.errors import EdgeClosed
from innkeeper.functions import PushEvent
from innkeeper.wire import InboxEvent, parse_id, read_inbox_entry, read_news


async def rows(room: RoomActs) -> dict[str, str]:
    """Return the dedupe rows without their time of use."""
    return {
        field: row.rpartition(" ")[0] if " " in row else row for field, row in (await room.hash("sessions")).items()
    }


# --- ids and batches --------------------------------------------------------------------------------------------------
async def test_ids_are_contiguous_numbers_with_the_servers_time(room: RoomActs) -> None:
    """Events get the numbers 1, 2, 3 … and the server's µs, whatever the caller believes the time to be."""
    before_ms = await room.server_ms()
    first = await room.push(join(), text())
    second = await room.push(text(), age_ms=250_000)
    after_ms = await room.server_ms()
    assert (first.letters, first.first_iseq, second.letters, second.first_iseq) == ("aa", 1, "a", 3)
    ids = [parse_id(entry_id) for entry_id in await room.ids()]
    assert [number for number, _ in ids] == [1, 2, 3]
    assert all(before_ms * 1000 <= micros <= (after_ms + 1) * 1000 for _, micros in ids)
    assert (await room.hash("sessions"))["#"] == "3"
    assert (await room.hash("sessions"))["@"] == "0"


async def test_an_entry_holds_the_event_as_pushed(room: RoomActs) -> None:
    """What stands in the inbox reads back as the event, payload bytes untouched; session fields only in sessions."""
    payload = bytes(range(256))
    await room.push(PushEvent("binary", "c-9", payload), session("join", data=b"hello"))
    raw, v1 = await room.link.call("XRANGE", room.keys.inbox, "-", "+")
    event = read_inbox_entry(*raw)
    assert event == InboxEvent(raw[0], 1, b"binary", b"c-9", b"e1", b"", 0, 0, payload)
    assert len(raw[1]) == 8
    assert read_inbox_entry(*v1) == InboxEvent(v1[0], 2, b"join", b"c-s1", b"e1", b"s1", 0, 1, b"hello")


async def test_an_equal_batch_gets_the_same_answer_and_writes_nothing(room: RoomActs) -> None:
    """A resent batch is answered from the edge's row, also after later events of others."""
    await room.push(join("other"), edge="e2", batch=1)
    first = await room.push(join(), text(), text(), batch=7, backlog_count=3)
    await room.push(leave("other"), edge="e2", batch=2)
    before = await room.snapshot()
    again = await room.push(join(), text(), text(), batch=7, backlog_count=3)
    assert (first.letters, first.first_iseq) == (again.letters, again.first_iseq) == ("aab", 2)
    assert await room.snapshot() == before


async def test_a_lower_batch_is_ignored_and_holes_are_allowed(room: RoomActs) -> None:
    """Batch numbers come from one counter for all rooms: higher is new whatever lies between, lower is a late copy."""
    assert (await room.push(text(), batch=3)).letters == "a"
    assert (await room.push(text(), batch=90)).letters == "a"
    before = await room.snapshot()
    assert (await room.push(text(), text(), batch=89)).letters == "oo"
    assert await room.snapshot() == before


async def test_batches_are_compared_as_numbers(room: RoomActs) -> None:
    """Batch 10 is newer than batch 9."""
    await room.push(text(), batch=9)
    assert (await room.push(text(), batch=10)).letters == "a"


async def test_each_edge_has_its_own_row(room: RoomActs) -> None:
    """The same batch number of two edges is two batches."""
    assert (await room.push(text(), edge="e1", batch=5)).letters == "a"
    assert (await room.push(text(), edge="e2", batch=5)).letters == "a"
    assert await rows(room) == {"#": "2", "@": "0", "e:e1": "5 1 a", "e:e2": "5 2 a"}


# --- back-pressure ----------------------------------------------------------------------------------------------------
async def test_once_busy_stays_busy_within_the_call(room: RoomActs) -> None:
    """At the cap capped kinds are refused to the end of the call, but leaves are taken, so order per sender holds."""
    letters = (await room.push(text(), text(), text(), leave("c2"), text(), backlog_count=2)).letters
    assert letters == "aabab"
    assert (await room.push(leave("c3"), backlog_count=2)).letters == "a"
    assert (await room.push(text(), join(), backlog_count=2)).letters == "bb"
    assert (await rows(room))["#"] == "4"


async def test_only_messages_joins_requests_and_posts_are_capped(room: RoomActs) -> None:
    """Kinds that drain a room, or are owed to it, are accepted over the cap."""
    await room.push(text())
    kinds = ("join", "text", "binary", "request", "post", "leave", "drop", "timer", "job")
    letters = (await room.push(*(PushEvent(kind, "c1", b"") for kind in kinds), backlog_count=1)).letters
    assert letters == "bbbbbaaaa"


async def test_a_refused_batch_is_remembered_too(room: RoomActs) -> None:
    """A batch in which nothing was accepted gets its row, so that its resend is not accepted later by itself."""
    await room.push(text())
    assert (await room.push(text(), batch=50, backlog_count=1)).letters == "b"
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(await room.ids()))
    assert (await room.push(text(), batch=50, backlog_count=1)).letters == "b"
    assert (await room.push(text(), batch=51, backlog_count=1)).letters == "a"


async def test_backlog_counts_what_is_not_committed(room: RoomActs) -> None:
    """Backlog is iseq minus cursor: committed entries that still stand in the inbox do not count."""
    await room.push(text(), text(), text())
    claimed = await room.own()
    await room.done(claimed, 0, turn_of((await room.ids())[:2]))
    assert len(await room.ids()) == 3
    assert (await room.push(text(), text(), text(), backlog_count=3)).letters == "aab"


# --- sessions ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "event", "letter", "row"),
    [
        ((), session("join", generation=3), "a", "0 3 up"),
        ((), session("resume"), "u", None),
        ((), session("text", number=1), "u", None),
        ((), session("drop"), "u", None),
        ((), session("leave"), "u", None),
        (("up",), session("resume", generation=2), "a", "0 2 up"),
        (("up",), session("resume", generation=1), "o", "0 1 up"),
        (("up",), session("join", generation=2), "a", "0 2 up"),
        (("up",), session("join", generation=1), "o", "0 1 up"),
        (("up",), session("text", number=1), "a", "1 1 up"),
        (("up",), session("text", number=2), "g", "0 1 up"),
        (("up",), session("text", number=0), "d", "0 1 up"),
        (("up",), session("drop", generation=1), "a", "0 1 down"),
        (("up",), session("drop", generation=0), "o", "0 1 up"),
        (("up",), session("drop", generation=5), "a", "0 5 down"),
        (("up",), session("leave", generation=1), "a", "0 1 closed"),
        (("up",), session("leave", generation=0), "o", "0 1 up"),
        (("up", "down"), session("drop", generation=1), "d", "0 1 down"),
        (("up", "down"), session("drop", generation=2), "a", "0 2 down"),
        (("up", "down"), session("resume", generation=1), "o", "0 1 down"),
        (("up", "down"), session("resume", generation=2), "a", "0 2 up"),
        (("up", "down"), session("leave", generation=1), "a", "0 1 closed"),
        (("up", "down"), session("text", number=1), "a", "1 1 down"),
        (("up", "closed"), session("join", generation=9), "c", "0 1 closed"),
        (("up", "closed"), session("resume", generation=9), "c", "0 1 closed"),
        (("up", "closed"), session("text", number=1), "c", "0 1 closed"),
        (("up", "closed"), session("drop", generation=9), "c", "0 1 closed"),
        (("up", "closed"), session("leave", generation=9), "d", "0 1 closed"),
    ],
)
async def test_session_row(
    room: RoomActs, before: tuple[str, ...], event: PushEvent, letter: str, row: str | None
) -> None:
    """Each event moves its session's row by its number and generation, or is refused with the letter that says why."""
    steps = {"up": session("join"), "down": session("drop"), "closed": session("leave")}
    for state in before:
        assert (await room.push(steps[state])).letters == "a"
    count = len(before)
    assert (await room.push(event)).letters == letter
    assert (await rows(room)).get("s:s1") == row
    assert len(await room.ids()) == count + (letter == "a")


async def test_a_leave_keeps_where_the_session_went(room: RoomActs) -> None:
    """The address that comes with the leave of a moved session stands in its row, and no later event changes it."""
    batch = (session("join"), session("text", number=1), session("leave", data=b"hall/b"), session("leave"))
    assert (await room.push(*batch)).letters == "aaad"
    assert (await room.push(session("resume", generation=2), session("leave", data=b"hall/c"))).letters == "cd"
    assert (await rows(room))["s:s1"] == "1 1 closed hall/b"


async def test_a_join_onto_a_row_is_written_as_a_resume(room: RoomActs) -> None:
    """A client that lost the answer to its join and joins again causes no second join."""
    await room.push(session("join", generation=1))
    await room.push(session("join", generation=2))
    assert [fields["t"] for _, fields in await room.stream("inbox")] == [b"join", b"resume"]


async def test_session_events_of_one_call_build_on_each_other(room: RoomActs) -> None:
    """Numbers within one batch count on from one another, and a resend in a new batch is recognised."""
    batch = (session("join"), session("text", number=1), session("text", number=2), session("text", number=2))
    assert (await room.push(*batch)).letters == "aaad"
    assert (await room.push(session("text", number=1), session("text", number=3), edge="e2")).letters == "da"
    assert (await rows(room))["s:s1"] == "3 1 up"


async def test_a_refused_session_message_leaves_no_hole(room: RoomActs) -> None:
    """After a busy message none of its followers is accepted, so the client's numbers stay dense."""
    await room.push(session("join"))
    letters = (await room.push(session("text", number=1), session("text", number=2), backlog_count=1)).letters
    assert letters[0] == "b"
    assert "a" not in letters
    assert (await room.push(session("text", number=1), session("text", number=2))).letters == "aa"


async def test_a_resume_is_taken_over_the_cap(room: RoomActs) -> None:
    """Somebody who is a member already may come back to a full room; a new session may not."""
    await room.push(session("join"))
    answer = await room.push(session("resume", generation=2), session("join", name="s2"), backlog_count=1)
    assert answer.letters == "ab"


# --- stale edges and absent rooms -------------------------------------------------------------------------------------
async def test_a_reaped_edge_is_closed(room: RoomActs) -> None:
    """Once an edge's row is closed none of its pushes is taken, not even a resend."""
    await room.push(text(), batch=1)
    assert await room.reap("e1")
    before = await room.snapshot()
    for batch in (1, 2):
        with pytest.raises(EdgeClosed):
            await room.push(text(), batch=batch)
    assert await room.snapshot() == before
    assert (await room.push(text(), edge="e2")).letters == "a"


async def test_an_edge_silent_for_five_minutes_is_closed(room: RoomActs) -> None:
    """An edge whose last heartbeat answer is over 5 min old by server time may be reaped and pruned: it is refused."""
    assert (await room.push(text(), age_ms=295_000)).letters == "a"
    with pytest.raises(EdgeClosed):
        await room.push(text(), age_ms=302_000)
    assert len(await room.ids()) == 1


async def test_a_leave_to_an_absent_room_creates_nothing(room: RoomActs) -> None:
    """Late leaves, drops and messages of unknown sessions do not bring a gone room back."""
    events = (leave(), session("drop"), session("leave"), session("text", number=1))
    assert (await room.push(*events)).letters == "uuuu"
    assert await room.exist() == set()


async def test_a_leave_after_a_join_of_the_same_call_is_taken(room: RoomActs) -> None:
    """A socket that came and went within one flush has both events."""
    assert (await room.push(join(), leave())).letters == "aa"


async def test_a_missing_counter_is_restored_from_the_inbox(room: RoomActs) -> None:
    """Where '#' is missing, '#' and '@' are the last id the inbox ever gave, even if the inbox is empty now."""
    await room.push(text(), text(), text())
    await room.link.send([room.delete("sessions"), ("XTRIM", room.keys.inbox, "MAXLEN", 0)])
    answer = await room.push(text(), batch=99)
    assert (answer.letters, answer.first_iseq) == ("a", 4)
    assert await rows(room) == {"#": "4", "@": "3", "e:e1": "99 4 a"}


async def test_a_push_keeps_what_a_release_let_expire(room: RoomActs) -> None:
    """Inbox and sessions of a released room live on when an event comes."""
    await room.push(text())
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(await room.ids()))
    assert (await room.release(claimed)).released
    assert await room.ttl_ms("inbox") > 0
    assert await room.ttl_ms("sessions") > 0
    await room.push(text())
    assert await room.ttl_ms("inbox") == -1
    assert await room.ttl_ms("sessions") == -1


async def test_many_sessions_in_one_call(room: RoomActs) -> None:
    """More rows than one inner command may carry are all written."""
    events = [session("join", name=f"s{n}") for n in range(1_100)]
    assert (await room.push(*events)).letters == "a" * 1_100
    assert len(await rows(room)) == 1_100 + 3
    assert len(await room.ids()) == 1_100


# --- the bell ---------------------------------------------------------------------------------------------------------
async def test_the_bell_carries_the_events_to_the_owner(room: RoomActs, listener: Listener) -> None:
    """With an owner's lock the ring holds the accepted events as the inbox does, byte for byte."""
    await listener.subscribe(room.keys.bell)
    silent = await room.push(text())
    assert (silent.lock, silent.receivers) == (b"", 0)
    claimed = await room.own()
    events = (text("c1", b"a\nb c|\xff"), session("join", data=b"{}"), text("c2", b""))
    answer = await room.push(*events)
    assert answer.lock == f"w1:{claimed.token}".encode()
    assert answer.receivers == 1
    entries = await room.link.call("XRANGE", room.keys.inbox, "2", "+")
    assert read_news(await listener.next()) == [read_inbox_entry(*entry) for entry in entries]
    assert listener.heard == []


async def test_a_large_batch_gives_an_empty_ring(room: RoomActs, listener: Listener) -> None:
    """Over 12 kB the ring only says: look into the inbox. So does the ring of a resend, and of a batch all refused."""
    await listener.subscribe(room.keys.bell)
    await room.own()
    await room.push(text(data=b"x" * 11_000))
    assert len(read_news(await listener.next())) == 1
    await room.push(text(data=b"x" * 12_000), batch=60)
    assert await listener.next() == b""
    await room.push(text(data=b"x" * 12_000), batch=60)
    assert await listener.next() == b""
    assert (await room.push(text(), batch=61, backlog_count=1)).letters == "b"
    assert await listener.next() == b""


async def test_nobody_at_the_bell_shows_in_the_answer(room: RoomActs) -> None:
    """A lock without a listener is evidence that the owner died: the answer says 0 receivers."""
    await room.own()
    answer = await room.push(text())
    assert answer.lock != b""
    assert answer.receivers == 0


async def test_pushes_at_once_stay_contiguous(room: RoomActs) -> None:
    """Many edges pushing at the same time get one order without holes."""
    answers = await asyncio.gather(*(room.push(text(), text(), edge=f"e{n}", batch=1) for n in range(40)))
    assert sorted(answer.first_iseq for answer in answers) == list(range(1, 81, 2))
    assert [parse_id(entry_id)[0] for entry_id in await room.ids()] == list(range(1, 81))
