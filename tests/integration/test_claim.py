"""claim on a real server: who may take a room, what it starts from, and what is mended."""

import asyncio

import pytest

from harness.acts import Listener, RoomActs, join, leave, text, turn_of
from innkeeper.functions import Claimed, Held
from innkeeper.turn import DeadEvent

LEASE_MS = 60_000


def meta_of(claimed: Claimed) -> dict[str, str]:
    """Return what the claim answered as meta, as text."""
    return {key.decode(): value.decode() for key, value in claimed.meta.items()}


# --- who may take it --------------------------------------------------------------------------------------------------
async def test_a_fresh_room_starts_from_nothing(room: RoomActs) -> None:
    """The first claim of a room that never was: epoch 1, version 0, cursor 0, no state, and the server's time."""
    before_ms = await room.server_ms()
    claimed = await room.own(mark=77)
    assert (claimed.state, claimed.members, claimed.timers, claimed.iseq) == ({}, {}, {}, 0)
    assert meta_of(claimed) == {
        "token": "1:77", "epoch": "1", "worker": "w1", "cursor": "0", "version": "0", "last": "0-0",
    }  # fmt: skip
    assert before_ms * 1000 <= claimed.server_us <= (await room.server_ms() + 1) * 1000
    assert await room.link.call("GET", room.keys.lock) == b"w1:1:77"
    assert 0 < await room.ttl_ms("lock") <= LEASE_MS


async def test_a_large_mark_survives_lua_numbers(room: RoomActs) -> None:
    """The largest mark stays a whole number wherever the acts write it."""
    mark = 2**48 - 1
    claimed = await room.own(mark=mark)
    committed = await room.done(claimed, 0, turn_of(outputs=[(b"text *", b"1")]))
    assert claimed.token == f"1:{mark}"
    assert committed.last_id == f"1-{mark}".encode()


async def test_the_same_mark_again_gets_the_first_answer(room: RoomActs) -> None:
    """A resent claim changes nothing but the lease, and answers as the first time."""
    await room.push(join(), text())
    first = await room.own(mark=5)
    before = await room.snapshot()
    again = await room.claim(mark=5)
    assert isinstance(again, Claimed)
    assert (again.token, again.meta, again.iseq) == (first.token, first.meta, first.iseq)
    assert await room.snapshot() == before


async def test_the_same_mark_again_makes_an_expired_lock_anew(room: RoomActs) -> None:
    """A resend that arrives after the lease ran out still owns the room if nobody took it."""
    first = await room.own(mark=5)
    await room.link.call(*room.delete("lock"))
    again = await room.own(mark=5)
    assert again.token == first.token
    assert await room.link.call("GET", room.keys.lock) == f"w1:{first.token}".encode()


async def test_a_late_claim_after_its_release_takes_nothing(room: RoomActs) -> None:
    """A copy of a claim that arrives after the room was released is answered, but no lock and no token are made."""
    first = await room.own(mark=5)
    assert (await room.release(first)).released
    before = await room.snapshot()
    again = await room.own(mark=5)
    assert again.token == first.token
    assert await room.snapshot() == before
    assert await room.commit(again, 0, turn_of(outputs=[(b"text *", b"1")])) == "token"


async def test_a_held_room_is_refused(room: RoomActs) -> None:
    """A claim of a free room only, against a held one, learns the lock, its time left and who listens."""
    first = await room.own(mark=5)
    answer = await room.claim(worker="w2")
    assert isinstance(answer, Held)
    assert answer.lock == f"w1:{first.token}".encode()
    assert 0 < answer.left_ms <= LEASE_MS
    assert answer.subscribers == 0
    assert meta_of(await room.own(mark=5))["worker"] == "w1"


async def test_only_the_lock_seen_is_stolen(room: RoomActs) -> None:
    """A stealer names the lock value it saw; with another one there it gets nothing."""
    first = await room.own()
    wrong = await room.claim(worker="w2", seen=b"w1:1:1")
    assert isinstance(wrong, Held)
    stolen = await room.claim(worker="w2", seen=f"w1:{first.token}".encode())
    assert isinstance(stolen, Claimed)
    assert stolen.token.startswith("2:")
    assert await room.renew(first) is None


async def test_of_two_stealers_one_wins(room: RoomActs) -> None:
    """Many workers that saw the same dead owner: one gets the room."""
    first = await room.own()
    seen = f"w1:{first.token}".encode()
    answers = await asyncio.gather(*(room.claim(worker=f"w{n}", seen=seen) for n in range(2, 12)))
    assert sum(isinstance(answer, Claimed) for answer in answers) == 1
    assert (await room.hash("meta"))["epoch"] == "2"


async def test_a_room_whose_bell_is_heard_is_not_stolen(room: RoomActs, listener: Listener) -> None:
    """While somebody else listens to the bell, and the lease runs, the owner counts as alive."""
    first = await room.own()
    await listener.subscribe(room.keys.bell)
    seen = f"w1:{first.token}".encode()
    answer = await room.claim(worker="w2", seen=seen)
    assert isinstance(answer, Held)
    assert answer.subscribers == 1
    own = await room.claim(worker="w2", seen=seen, own=1)
    assert isinstance(own, Claimed)


async def test_a_lock_that_ran_out_is_free_whoever_listens(room: RoomActs, listener: Listener) -> None:
    """After the lease a subscription protects nobody: a frozen process keeps its sockets."""
    await listener.subscribe(room.keys.bell)
    first = await room.own()
    await room.link.call(*room.delete("lock"))
    assert (await room.own("w2")).token.startswith("2:")
    assert await room.renew(first) is None


async def test_the_epoch_counts_claims(room: RoomActs) -> None:
    """Every claim of a room, clean or not, has an epoch one higher and a token of its own."""
    tokens = []
    for n in range(4):
        claimed = await room.own()
        tokens.append(claimed.token)
        if n % 2:
            assert (await room.release(claimed)).released
        else:
            await room.link.call(*room.delete("lock"))
    assert [token.partition(":")[0] for token in tokens] == ["1", "2", "3", "4"]


async def test_a_claim_answers_all_that_a_room_holds(room: RoomActs) -> None:
    """State, members, timers and the number of the last event come in one trip, as the last commit left them."""
    await room.push(join(), text(), text())
    first = await room.own()
    turn = turn_of(
        (await room.ids())[:2],
        state_set={"a": b"[1]"}, members_set={"c1": b'{"edge":"e1"}'}, timers_set={"t": b"{}"},
    )  # fmt: skip
    await room.done(first, 0, turn)
    second = await room.own("w2", seen=f"w1:{first.token}".encode())
    assert (second.state, second.members, second.timers) == ({b"a": b"[1]"}, {b"c1": b'{"edge":"e1"}'}, {b"t": b"{}"})
    assert second.iseq == 3
    assert (second.meta[b"cursor"], second.meta[b"version"]) == (b"2", b"1")


async def test_a_claim_persists_all_keys(room: RoomActs) -> None:
    """Nothing of an owned room expires."""
    await room.push(join(), leave())
    first = await room.own()
    await room.done(first, 0, turn_of(await room.ids(), outputs=[(b"text *", b"1")]))
    assert (await room.release(first)).released
    parts = await room.exist()
    assert {part for part in parts if await room.ttl_ms(part) > 0} == {"inbox", "meta", "sessions", "outlog"}
    await room.own()
    assert {part for part in await room.exist() if await room.ttl_ms(part) > 0} == {"lock"}


async def test_without_meta_a_claim_starts_from_the_copied_cursor(room: RoomActs) -> None:
    """Where meta is gone, '@' in sessions says what is committed: nothing is applied twice."""
    await room.push(text(), text(), text())
    first = await room.own()
    await room.done(first, 0, turn_of((await room.ids())[:2]))
    await room.link.call(*room.delete("meta", "lock"))
    second = await room.own("w2")
    assert (second.meta[b"cursor"], second.iseq) == (b"2", 3)
    assert b"contradictions" not in second.meta
    await room.done(second, 0, turn_of((await room.ids())[-1:]))


async def test_a_claim_trims_what_is_committed(room: RoomActs) -> None:
    """Entries below the cursor that no commit trimmed are gone after a claim; the backlog stands."""
    await room.push(text(), text(), text())
    first = await room.own()
    await room.done(first, 0, turn_of((await room.ids())[:2]))
    await room.link.call(*room.delete("lock"))
    await room.own()
    assert [entry_id.split(b"-")[0] for entry_id in await room.ids()] == [b"3"]


# --- suspects ---------------------------------------------------------------------------------------------------------
async def die(room: RoomActs) -> Claimed:
    """Let the owner die, and the other of two workers claim the room."""
    await room.link.call(*room.delete("lock"))
    return await room.own("w2" if (await room.hash("meta"))["worker"] == "w1" else "w1")


def marks(claimed: Claimed) -> tuple[str | None, ...]:
    """Return try, strikes and marked."""
    meta = meta_of(claimed)
    return tuple(meta.get(name) for name in ("try", "strikes", "marked"))


async def begin(room: RoomActs, claimed: Claimed) -> None:
    """Note in meta that the next event's handler is about to start, as an owner of a marked backlog does."""
    await room.done(claimed, int((await room.hash("meta"))["version"]), turn_of(), tries=True)


async def test_an_unclean_claim_with_backlog_marks_it(room: RoomActs) -> None:
    """After a death the events of the backlog are marked; nothing is held against any of them yet."""
    await room.push(text(), text(), text())
    assert marks(await room.own()) == (None, None, None)
    assert marks(await die(room)) == (None, "0", "3")


async def test_the_event_tried_is_noted_before_it_starts(room: RoomActs) -> None:
    """A commit says that the handler of a marked event starts now; no other one does."""
    await room.push(text(), text())
    clean = await room.own()
    await begin(room, clean)
    assert "try" not in await room.hash("meta")
    claimed = await die(room)
    await begin(room, claimed)
    assert (await room.hash("meta"))["try"] == "1"
    await room.done(claimed, 2, turn_of((await room.ids())[:1]))
    assert "try" not in await room.hash("meta")


@pytest.mark.parametrize("created", [True, False])
async def test_a_commit_without_a_handler_names_no_suspect(room: RoomActs, created: bool) -> None:
    """What on_start did, or that it failed, is committed without a word about the event that waits behind it."""
    await room.push(text())
    await room.own()
    claimed = await die(room)
    await room.done(claimed, 0, turn_of(outputs=[(b"text *", b"1")]), created=created)
    assert "try" not in await room.hash("meta")
    assert marks(await die(room)) == (None, "0", "1")


async def test_strikes_count_deaths_under_the_same_event(room: RoomActs) -> None:
    """Each death after the event was tried is a strike, a death before is none; new events are marked too."""
    await room.push(text())
    await room.own()
    claimed = await die(room)
    await begin(room, claimed)
    assert marks(await die(room)) == (None, "1", "1")
    claimed = await die(room)
    assert marks(claimed) == (None, "1", "1")
    await begin(room, claimed)
    await room.push(text())
    assert marks(await die(room)) == (None, "2", "2")


async def test_a_worker_that_claims_its_own_room_anew_has_not_died(room: RoomActs) -> None:
    """What cut a hook, or lost its lease to nobody, is alive: that is no strike against the event, and lifts none."""
    await room.push(text())
    await room.own()
    for strikes in ("0", "1"):
        claimed = await die(room)
        assert marks(claimed) == (None, strikes, "1")
        await begin(room, claimed)
        await room.link.call(*room.delete("lock"))
        again = await room.own(meta_of(claimed)["worker"])
        assert marks(again) == (None, strikes, "1")
        await begin(room, again)


async def test_strikes_are_not_inherited_by_the_next_event(room: RoomActs) -> None:
    """A commit of the suspect ends what was held against it; the next event starts at zero."""
    await room.push(text(), text(), text())
    await room.own()
    await begin(room, await die(room))
    claimed = await die(room)
    assert marks(claimed) == (None, "1", "3")
    await begin(room, claimed)
    await room.done(claimed, 2, turn_of((await room.ids())[:1]))
    meta = await room.hash("meta")
    assert {name: meta[name] for name in ("try", "strikes", "marked") if name in meta} == {
        "strikes": "0",
        "marked": "3",
    }
    assert marks(await die(room)) == (None, "0", "3")


async def test_the_mark_ends_with_the_marked_backlog(room: RoomActs) -> None:
    """When the last marked event is committed, nothing is suspect any more, also if new events stand behind it."""
    await room.push(text(), text())
    await room.own()
    claimed = await die(room)
    await room.push(text())
    await room.done(claimed, 0, turn_of((await room.ids())[:2]))
    assert not {"try", "strikes", "marked"} & set(await room.hash("meta"))


@pytest.mark.parametrize("clean", [True, False])
async def test_no_suspicion_without_reason(room: RoomActs, clean: bool) -> None:
    """A clean release with backlog, or a death without backlog, makes nothing suspect, and lifts what was."""
    await room.push(text())
    await room.own()
    claimed = await die(room)
    if clean:
        assert (await room.release(claimed, worker="w2", force=True)).backlog == 1
    else:
        await room.done(claimed, 0, turn_of(await room.ids()))
        await room.link.call("HSET", room.keys.meta, "try", "1", "strikes", "2", "marked", "9")
        await room.link.call(*room.delete("lock"))
    assert marks(await room.own()) == (None, None, None)


# --- contradictions ---------------------------------------------------------------------------------------------------
async def backlogged(room: RoomActs) -> Claimed:
    """Return an owned room with cursor 2 of 5 and two outputs."""
    await room.push(*[text(data=b"%d" % n) for n in range(1, 6)])
    claimed = await room.own()
    await room.done(claimed, 0, turn_of((await room.ids())[:2], outputs=[(b"text *", b"1"), (b"text *", b"2")]))
    return claimed


async def mended(room: RoomActs, highest: int, aside: list[bytes]) -> None:
    """Check the record, the counter, the jump and the sign to the edges, and that the room goes on."""
    before = (await room.hash("meta"))["last"]
    claimed = await die(room)
    meta = meta_of(claimed)
    assert (meta["contradictions"], meta["cursor"], claimed.iseq) == ("1", str(highest), highest)
    dead = await room.stream("dead")
    assert dead[0][1]["type"] == b"contradiction"
    assert dead[0][1]["moved"] == b"%d" % highest
    assert [fields["d"] for _, fields in dead[1:]] == aside
    assert "outlog" not in await room.exist()
    assert int(meta["last"].split("-")[0]) == int(before.split("-")[0]) + 1
    assert meta["last"].split("-")[1] == claimed.token.split(":")[1]
    assert marks(claimed) == (None, None, None)
    answer = await room.push(text())
    assert (answer.letters, answer.first_iseq) == ("a", highest + 1)
    await room.done(claimed, int(meta["version"]), turn_of(await room.ids()))
    assert marks(await die(room)) == (None, None, None)
    assert (await room.hash("meta"))["contradictions"] == "1"


async def test_a_deleted_inbox_is_mended(room: RoomActs) -> None:
    """With accepted events gone the numbers go on above all seen, with a record, a counter and a resync."""
    await backlogged(room)
    await room.link.call(*room.delete("inbox"))
    await mended(room, 5, [])


@pytest.mark.parametrize("gone", [3, 4, 5])
async def test_an_entry_removed_by_hand_is_mended(room: RoomActs, gone: int) -> None:
    """A hole in the backlog: the rest is put aside into dead, readable, not applied out of order."""
    await backlogged(room)
    await room.link.call("XDEL", room.keys.inbox, (await room.ids())[gone - 1])
    await mended(room, 5, [b"%d" % n for n in (3, 4, 5) if n != gone])


async def test_a_counter_set_back_by_hand_is_mended(room: RoomActs) -> None:
    """A '#' below what the inbox gave contradicts it; the highest number seen wins."""
    await backlogged(room)
    await room.link.call("HSET", room.keys.sessions, "#", "1")
    await mended(room, 5, [b"%d" % n for n in range(1, 6)])


async def test_deleted_sessions_and_inbox_are_mended(room: RoomActs) -> None:
    """Events pushed after inbox and sessions were deleted are put aside; the room goes on above the cursor."""
    await backlogged(room)
    await room.link.call(*room.delete("inbox", "sessions"))
    assert (await room.push(text(data=b"new"), edge="e2")).first_iseq == 1
    await mended(room, 2, [b"new"])


async def test_deleted_sessions_lose_no_event(room: RoomActs) -> None:
    """Where only the sessions are gone nothing contradicts: the counters come back from the inbox, no event is lost."""
    await backlogged(room)
    await room.link.call(*room.delete("sessions"))
    claimed = await die(room)
    assert (claimed.iseq, claimed.meta[b"cursor"]) == (5, b"2")
    assert b"contradictions" not in claimed.meta
    await room.done(claimed, 1, turn_of(await room.ids()))


async def test_dead_events_of_before_stay(room: RoomActs) -> None:
    """Mending appends to dead; what stood there stays."""
    claimed = await backlogged(room)
    await room.done(claimed, 1, turn_of(dead=[DeadEvent(b"1-1", b"text", b"c1", b"{}", "boom", "trace")]))
    await room.link.call(*room.delete("inbox", "lock"))
    await room.own()
    first, second = await room.stream("dead")
    assert first[1]["error"] == b"boom"
    assert second[1]["type"] == b"contradiction"
