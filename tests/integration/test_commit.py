"""commit on a real server: what it refuses, what it writes, what it publishes, what it trims."""

import pytest

from harness.acts import LEASE_MS, Listener, RoomActs, join, leave, session, text, turn_of
from harness.house import until
from innkeeper.functions import Claimed, Committed
from innkeeper.turn import DeadEvent, Turn
from innkeeper.wire import Batch, parse_id

TO_ALL = b"text *"


def outputs(*bodies: bytes) -> list[tuple[bytes, bytes]]:
    """Return broadcasts."""
    return [(TO_ALL, body) for body in bodies]


async def owned(room: RoomActs, count: int = 3) -> Claimed:
    """Return an owned room with ``count`` events in its inbox."""
    await room.push(*[text(data=b"%d" % n) for n in range(1, count + 1)])
    return await room.own()


async def refused(room: RoomActs, claimed: Claimed | str, version: int, turn: Turn, reason: str) -> None:
    """Check that a commit is refused for this reason and writes nothing."""
    before = await room.snapshot()
    assert await room.commit(claimed, version, turn, lease_ms=LEASE_MS, keep=8) == reason
    assert await room.snapshot() == before


# --- refusals ---------------------------------------------------------------------------------------------------------
async def test_a_stale_token_never_commits(room: RoomActs) -> None:
    """After somebody else's claim, with the same epoch or version or not, nothing of the old owner lands."""
    old = await owned(room)
    ids = await room.ids()
    await room.own("w2", seen=f"w1:{old.token}".encode())
    await refused(room, old, 0, turn_of(ids[:1], outputs=outputs(b"1")), "token")
    await refused(room, old, 0, turn_of(outputs=outputs(b"1")), "token")
    await refused(room, "2:1", 0, turn_of(ids[:1]), "token")
    await refused(room, "", 0, turn_of(ids[:1]), "token")


async def test_no_token_commits_to_a_room_without_meta(room: RoomActs) -> None:
    """Where meta is gone, or was given back, no token is right, the empty one neither."""
    claimed = await owned(room)
    ids = await room.ids()
    assert (await room.release(claimed, force=True)).released
    await refused(room, claimed, 0, turn_of(ids[:1]), "token")
    await room.link.call(*room.delete("meta"))
    await refused(room, claimed, 0, turn_of(ids[:1]), "token")
    await refused(room, "", 0, turn_of(ids[:1]), "token")


@pytest.mark.parametrize("version", [1, 2, 7])
async def test_a_version_ahead_is_refused(room: RoomActs, version: int) -> None:
    """A commit that builds on a history this Redis does not have is refused."""
    claimed = await owned(room)
    await refused(room, claimed, version, turn_of((await room.ids())[:1]), "version")


async def test_a_version_long_past_is_refused(room: RoomActs) -> None:
    """Only the commit right before is a repeat; older ones are refused."""
    claimed = await owned(room)
    ids = await room.ids()
    await room.done(claimed, 0, turn_of(ids[:1]))
    await room.done(claimed, 1, turn_of(ids[1:2]))
    await refused(room, claimed, 0, turn_of(ids[:1]), "version")


async def test_a_missing_input_is_refused(room: RoomActs) -> None:
    """Every consumed event must stand in the inbox, in the middle as well as at the end."""
    claimed = await owned(room, 4)
    ids = await room.ids()
    await refused(room, claimed, 0, turn_of([*ids, b"5-1"]), "input")
    await room.link.call("XDEL", room.keys.inbox, ids[1])
    await refused(room, claimed, 0, turn_of(ids[:3]), "input")
    await refused(room, claimed, 0, turn_of(ids), "input")
    await refused(room, claimed, 0, turn_of(ids[:2]), "input")


async def test_a_changed_input_is_refused(room: RoomActs) -> None:
    """After a rollback the same number is another event: its id differs by the server's time, wherever it stands."""
    claimed = await owned(room)
    ids = await room.ids()
    for at in range(3):
        number, micros = parse_id(ids[at])
        changed = [*ids[:at], b"%d-%d" % (number, micros - 1), *ids[at + 1 :]]
        await refused(room, claimed, 0, turn_of(changed), "input")


async def test_a_gap_is_refused(room: RoomActs) -> None:
    """Events are consumed from the cursor on, without leaving one out or taking one twice."""
    claimed = await owned(room, 4)
    ids = await room.ids()
    await refused(room, claimed, 0, turn_of(ids[1:]), "gap")
    await room.done(claimed, 0, turn_of(ids[:2]))
    await refused(room, claimed, 1, turn_of(ids[1:3]), "gap")
    await refused(room, claimed, 1, turn_of(ids[3:]), "gap")
    await room.done(claimed, 1, turn_of(ids[2:]))


async def test_a_repeat_answers_as_the_first_time(room: RoomActs, listener: Listener) -> None:
    """A commit whose answer was lost is sent again unchanged: same answer, nothing written, nothing published."""
    await listener.subscribe(room.keys.out)
    claimed = await owned(room)
    ids = await room.ids()
    await room.done(claimed, 0, turn_of(ids[:1], outputs=outputs(b"1")))
    turn = turn_of(ids[1:], outputs=outputs(b"2", b"3"), state_set={"a": b"1"}, outbox=[("post", "b/c", b"{}")])
    first = await room.done(claimed, 1, turn)
    await listener.batches(3)
    before = await room.snapshot()
    assert await room.commit(claimed, 1, turn, lease_ms=LEASE_MS, keep=8) == first
    assert await room.snapshot() == before
    await room.done(claimed, 2, turn_of(outputs=outputs(b"4")))
    assert [batch.first for batch in await listener.batches(4)] == [4]


# --- what it writes ---------------------------------------------------------------------------------------------------
async def test_every_section_is_written(room: RoomActs) -> None:
    """One commit makes state, members, timers, sessions, outbox, dead, outputs, cursor and version true together."""
    await room.push(session("join"), text(), text())
    claimed = await room.own()
    ids = await room.ids()
    first = turn_of(
        ids[:1],
        state_set={"a": b"1", "b": b"2"}, members_set={"c1": b"{}", "c2": b"{}"}, timers_set={"t": b"{}", "u": b"{}"},
    )  # fmt: skip
    assert await room.done(claimed, 0, first) == Committed(b"0-0")
    second = turn_of(
        ids[1:],
        state_set={"b": b"3"},
        state_del={"a"},
        members_set={"c3": b'{"join":2}'},
        members_del={"c1"},
        timers_set={"v": b"{}"},
        timers_del={"t"},
        sessions_closed=["s1", "unknown"],
        outbox=[("post", "chat/x", b"hi"), ("job", "m:f", b"[]")],
        dead=[DeadEvent(ids[1], b"text", b"c1", b"{}", "ValueError: no", "Traceback")],
        outputs=[(TO_ALL, b"one"), (b"text +2", b"two")],
    )
    mark = claimed.token.split(":")[1]
    assert await room.done(claimed, 1, second) == Committed(f"2-{mark}".encode())
    assert await room.hash("state") == {"b": "3"}
    assert await room.hash("members") == {"c2": "{}", "c3": '{"join":2}'}
    assert await room.hash("timers") == {"u": "{}", "v": "{}"}
    sessions = await room.hash("sessions")
    assert sessions["s:s1"].startswith("0 1 closed ")
    assert "s:unknown" not in sessions
    assert (sessions["#"], sessions["@"]) == ("3", "3")
    assert await room.stream("outbox") == [
        (f"1-{mark}", {"type": b"post", "target": b"chat/x", "data": b"hi"}),
        (f"2-{mark}", {"type": b"job", "target": b"m:f", "data": b"[]"}),
    ]
    ((_, dead),) = await room.stream("dead")
    assert dead == {
        "id": ids[1], "type": b"text", "connection": b"c1", "data": b"{}",
        "error": b"ValueError: no", "traceback": b"Traceback",
    }  # fmt: skip
    assert [(i, f["h"], f["d"]) for i, f in await room.stream("outlog")] == [
        (f"1-{mark}", TO_ALL, b"one"), (f"2-{mark}", b"text +2", b"two"),
    ]  # fmt: skip
    meta = await room.hash("meta")
    assert {name: meta[name] for name in ("version", "cursor", "last", "posted", "created")} == {
        "version": "2", "cursor": "3", "last": f"2-{mark}", "posted": "2", "created": "1",
    }  # fmt: skip


async def test_numbers_go_on_under_a_new_mark(room: RoomActs) -> None:
    """Oseq and outbox numbers are dense over claims; each id says under which claim it was written."""
    first = await owned(room)
    await room.done(first, 0, turn_of(outputs=outputs(b"1", b"2"), outbox=[("post", "a/b", b"1")]))
    second = await room.own("w2", seen=f"w1:{first.token}".encode())
    await room.done(second, 1, turn_of(outputs=outputs(b"3"), outbox=[("post", "a/b", b"2")]))
    marks = [first.token.split(":")[1], second.token.split(":")[1]]
    assert [i for i, _ in await room.stream("outlog")] == [f"1-{marks[0]}", f"2-{marks[0]}", f"3-{marks[1]}"]
    assert [i for i, _ in await room.stream("outbox")] == [f"1-{marks[0]}", f"2-{marks[1]}"]


async def test_more_than_1000_values_in_every_section(room: RoomActs) -> None:
    """Sections longer than Lua can unpack are written whole."""
    count = 2_500
    await room.push(*[session("join", name=f"s{n}") for n in range(count)])
    claimed = await room.own()
    ids = await room.ids()
    names = [f"k{n}" for n in range(count)]
    full = dict.fromkeys(names, b"1")
    turn = turn_of(
        ids, state_set=full, members_set=full, timers_set=full, sessions_closed=[f"s{n}" for n in range(count)],
        outbox=[("post", "a/b", b"")] * count, outputs=outputs(*[b"x"] * count),
        dead=[DeadEvent(b"1-1", b"text", b"c", b"", "e", "t")] * 900,
    )  # fmt: skip
    await room.done(claimed, 0, turn)
    for part in ("state", "members", "timers"):
        assert len(await room.hash(part)) == count
    assert (len(await room.stream("outbox")), len(await room.stream("outlog"))) == (count, count)
    assert all(" closed " in row for field, row in (await room.hash("sessions")).items() if field[:2] == "s:")
    gone = turn_of(state_del=set(names), members_del=set(names), timers_del=set(names))
    await room.done(claimed, 1, gone)
    assert not {"state", "members", "timers"} & await room.exist()


async def test_the_lease_is_extended_only_when_asked(room: RoomActs) -> None:
    """A commit with a lease renews the lock under its own name; without, it leaves the lock alone."""
    claimed = await owned(room)
    await room.link.call(*room.delete("lock"))
    await room.done(claimed, 0, turn_of(outputs=outputs(b"1")))
    assert await room.link.call("GET", room.keys.lock) is None
    await room.commit(claimed, 1, turn_of(outputs=outputs(b"1")), lease_ms=5_000)
    assert await room.link.call("GET", room.keys.lock) == f"w1:{claimed.token}".encode()
    assert 0 < await room.ttl_ms("lock") <= 5_000


async def test_destroy_starts_a_fresh_room_with_continuing_numbers(room: RoomActs) -> None:
    """State, members, timers, dead and the old outlog go; this turn's outputs, numbers, inbox and outbox stay."""
    claimed = await owned(room)
    ids = await room.ids()
    first = turn_of(
        ids[:1], state_set={"a": b"1"}, members_set={"c1": b"{}"}, timers_set={"t": b"{}"}, outputs=outputs(b"1", b"2"),
        outbox=[("post", "a/b", b"")], dead=[DeadEvent(b"1-1", b"text", b"c", b"", "e", "t")],
    )  # fmt: skip
    await room.done(claimed, 0, first)
    second = turn_of(
        ids[1:2], destroy=True, outputs=outputs(b"bye"), state_set={"b": b"2"}, outbox=[("job", "m:f", b"")]
    )
    await room.done(claimed, 1, second)
    meta = await room.hash("meta")
    assert (meta["cursor"], meta["version"], meta["last"].split("-")[0]) == ("2", "2", "3")
    assert "created" not in meta
    assert await room.hash("state") == {"b": "2"}
    assert not {"members", "timers", "dead"} & await room.exist()
    assert [fields["d"] for _, fields in await room.stream("outlog")] == [b"bye"]
    assert len(await room.stream("outbox")) == 2
    assert await room.ids() == ids[2:]
    await room.done(claimed, 2, turn_of(ids[2:], outputs=outputs(b"4")))
    assert (await room.hash("meta"))["created"] == "1"


# --- what it publishes ------------------------------------------------------------------------------------------------
def check_chain(batches: list[Batch], first: bytes, last: bytes) -> None:
    """Check that each batch names the end of the one before it."""
    previous = first
    for batch in batches:
        assert batch.previous == previous
        if batch.first <= batch.last:
            assert batch.first == parse_id(previous)[0] + 1
            previous = b"%d-%b" % (batch.last, batch.mark)
    assert previous == last


async def test_a_batch_names_the_output_before_it(room: RoomActs, listener: Listener) -> None:
    """A published batch carries the previous id, mark, range, cursor and the outputs byte for byte."""
    await listener.subscribe(room.keys.out)
    claimed = await owned(room)
    mark = claimed.token.split(":")[1].encode()
    bodies = [b"a|b\nc", b"", bytes(range(256))]
    await room.done(claimed, 0, turn_of((await room.ids())[:2], outputs=outputs(*bodies)))
    await room.done(claimed, 1, turn_of(outputs=[(b"text -1,2", b"x"), (b"binary +3", b"\n\n")]))
    one, two = await listener.batches(5)
    assert one == Batch(b"0-0", mark, 1, 3, 2, [(TO_ALL, body) for body in bodies])
    assert two == Batch(b"3-" + mark, mark, 4, 5, 2, [(b"text -1,2", b"x"), (b"binary +3", b"\n\n")])


async def test_a_commit_without_outputs_publishes_too(room: RoomActs, listener: Listener) -> None:
    """Edges learn of every commit where the log ends, so a lost message shows at the next one."""
    await listener.subscribe(room.keys.out)
    claimed = await owned(room)
    mark = claimed.token.split(":")[1].encode()
    await room.done(claimed, 0, turn_of(outputs=outputs(b"1")))
    await room.done(claimed, 1, turn_of(await room.ids()))
    await until(lambda: len(listener.heard) == 2, "both batches come")
    _, empty = await listener.batches(1)
    assert empty == Batch(b"1-" + mark, mark, 2, 1, 3, [])


async def test_a_large_turn_goes_in_messages_below_16_kib(room: RoomActs, listener: Listener) -> None:
    """Many outputs go in several chained messages, each under 16 KiB; only the last one shows the new cursor."""
    await listener.subscribe(room.keys.out)
    claimed = await owned(room)
    bodies = [b"%03d" % n * (1 + 97 * n % 400) for n in range(300)]
    first = await room.done(claimed, 0, turn_of(await room.ids(), outputs=outputs(*bodies)))
    check_chain(await listener.batches(300), b"0-0", first.last_id)
    second = await room.done(claimed, 1, turn_of(outputs=outputs(*bodies)))
    batches = await listener.batches(600)
    assert len(batches) > 10
    assert [body for batch in batches for _, body in batch.outputs] == bodies
    check_chain(batches, first.last_id, second.last_id)


async def test_cursor_of_a_chunked_turn(room: RoomActs, listener: Listener) -> None:
    """Of a turn in several messages all but the last show the cursor before it."""
    await listener.subscribe(room.keys.out)
    claimed = await owned(room)
    await room.done(claimed, 0, turn_of(await room.ids(), outputs=outputs(*[b"x" * 5_000] * 5)))
    batches = await listener.batches(5)
    assert [batch.cursor for batch in batches] == [0] * (len(batches) - 1) + [3]
    assert len(batches) == 3


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_single_large_output_goes_as_a_pointer(room: RoomActs, listener: Listener, at: int) -> None:
    """An output too large for pub/sub is only named; before, between and after small ones the order and chain hold."""
    await listener.subscribe(room.keys.out)
    claimed = await owned(room)
    bodies = [b"small", b"small"]
    bodies.insert(at, b"L" * 20_000)
    committed = await room.done(claimed, 0, turn_of(await room.ids(), outputs=outputs(*bodies)))
    batches = await listener.batches(3)
    check_chain(batches, b"0-0", committed.last_id)
    pointers = [batch for batch in batches if batch.first <= batch.last and not batch.outputs]
    assert [(batch.first, batch.last) for batch in pointers] == [(at + 1, at + 1)]
    assert [batch.cursor for batch in batches] == [0] * (len(batches) - 1) + [3]
    assert [fields["d"] for _, fields in await room.stream("outlog")] == bodies


# --- what it trims ----------------------------------------------------------------------------------------------------
async def test_the_inbox_is_trimmed_when_asked(room: RoomActs) -> None:
    """The entries of longer turns stay until a commit trims, a lone one goes at once; the backlog stays."""
    claimed = await owned(room, 5)
    ids = await room.ids()
    await room.done(claimed, 0, turn_of(ids[:2]))
    assert await room.ids() == ids
    await room.done(claimed, 1, turn_of(ids[2:3]))
    assert await room.ids() == [*ids[:2], *ids[3:]]
    await room.done(claimed, 2, turn_of(ids[3:4]), keep=8)
    assert await room.ids() == ids[4:]


async def test_the_outlog_is_capped_at_1000_entries(room: RoomActs) -> None:
    """A trimming commit keeps the newest 1,000 outputs, or more where the caller says edges may still read them."""
    claimed = await owned(room)
    await room.done(claimed, 0, turn_of(outputs=outputs(*[b"x"] * 1_500)))
    assert len(await room.stream("outlog")) == 1_500
    await room.done(claimed, 1, turn_of(outputs=outputs(b"y")), keep=1_200)
    assert len(await room.stream("outlog")) == 1_200
    await room.done(claimed, 2, turn_of(outputs=outputs(b"z")), keep=8)
    log = await room.stream("outlog")
    assert [parse_id(i.encode())[0] for i, _ in log] == list(range(503, 1_503))


async def test_the_outlog_is_capped_at_256_kib(room: RoomActs) -> None:
    """A trimming commit keeps at most 256 KiB of the newest outputs, but never fewer than asked for."""
    claimed = await owned(room)
    for version in range(4):
        await room.done(claimed, version, turn_of(outputs=outputs(*[b"x" * (1_000 + 500 * version)] * 100)))
    await room.done(claimed, 4, turn_of(outputs=outputs(b"last")), keep=150)
    assert len(await room.stream("outlog")) == 150
    await room.done(claimed, 5, turn_of(outputs=outputs(b"last")), keep=8)
    log = await room.stream("outlog")
    kept = sum(len(fields["h"]) + len(fields["d"]) for _, fields in log)
    assert 131_072 < kept <= 262_144
    assert log[-1][1]["d"] == b"last"


async def test_a_large_turn_is_not_cut_to_pieces(room: RoomActs) -> None:
    """Where one turn alone is over the cap, as much of it stays as fits, although its entries carry the same count."""
    claimed = await owned(room)
    await room.done(claimed, 0, turn_of(outputs=outputs(*[b"x" * 1_100] * 250)))
    await room.done(claimed, 1, turn_of(outputs=outputs(b"last")), keep=8)
    kept = sum(len(fields["h"]) + len(fields["d"]) for _, fields in await room.stream("outlog"))
    assert 196_608 < kept <= 262_144


async def test_the_byte_count_survives_a_destroy(room: RoomActs) -> None:
    """After a destroy the log is counted from empty, so that it is not cut too early."""
    claimed = await owned(room)
    await room.done(claimed, 0, turn_of(outputs=outputs(*[b"x" * 2_000] * 100)))
    await room.done(claimed, 1, turn_of(destroy=True, outputs=outputs(*[b"y" * 1_000] * 200)))
    await room.done(claimed, 2, turn_of(outputs=outputs(b"z")), keep=8)
    assert len(await room.stream("outlog")) == 201


@pytest.mark.parametrize("pending", [False, True])
async def test_idle_rows_are_pruned_every_1000th_commit(room: RoomActs, pending: bool) -> None:
    """Rows idle for 10 min (posts: 24 h) go at version 1,000, 2,000 …, only while nothing is pending; members' stay."""
    await room.push(join(), leave())
    claimed = await room.own()
    await room.push(text())
    ids = await room.ids()
    now_s = await room.server_ms() // 1000
    members = {"c1": b'{"edge":"kept","session":"kept"}', "c2": b"not json"}
    await room.done(claimed, 0, turn_of(ids[:2] if pending else ids, members_set=members))
    rows = {
        "e:old": f"5 1 a {now_s - 700}", "e:kept": f"5 1 a {now_s - 700}", "e:young": f"5 1 a {now_s - 500}",
        "s:old": f"5 1 down {now_s - 700}", "s:kept": f"5 1 up {now_s - 700}", "s:young": f"1 1 up {now_s - 500}",
        "p:a/b 7": f"3 {now_s - 80_000}", "p:a/b 8": f"3 {now_s - 90_000}",
    }  # fmt: skip
    flat = [word for row in rows.items() for word in row]
    await room.link.call("HSET", room.keys.sessions, *flat)
    for version, next_one in ((998, "999"), (999, "1000")):
        await room.link.call("HSET", room.keys.meta, "version", version)
        await room.done(claimed, version, turn_of(outputs=outputs(b"1")))
        assert (await room.hash("meta"))["version"] == next_one
        gone = set(rows) - set(await room.hash("sessions"))
        assert gone == ({"e:old", "s:old", "p:a/b 8"} if next_one == "1000" and not pending else set())
    assert {"#", "@", "e:e1"} <= set(await room.hash("sessions"))
