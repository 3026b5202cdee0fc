"""renew and release on a real server; and what goes on when its memory is full."""

import pytest

from harness.acts import LEASE_MS, WINDOW_MS, RoomActs, join, leave, session, text, turn_of
from harness.valkey import Valkey
from innkeeper.address import Address
from innkeeper.errors import RedisReplied
from innkeeper.functions import Claimed, Released
from innkeeper.functions.library import load_library
from innkeeper.redis_client import Link, connector
from innkeeper.turn import DeadEvent, Turn

ALL_KEPT = {"meta", "inbox", "sessions", "outlog"}


async def used_up(room: RoomActs) -> Claimed:
    """Return an owned room without backlog, with one output."""
    await room.push(join(), leave())
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(await room.ids(), outputs=[(b"text *", b"1")]))
    return claimed


async def expiring(room: RoomActs) -> set[str]:
    """Return the keys that have an expiry."""
    return {part for part in await room.exist() if await room.ttl_ms(part) >= 0}


# --- renew ------------------------------------------------------------------------------------------------------------
async def test_renew_extends_and_tells_the_last_event(room: RoomActs) -> None:
    """A renewal makes the lease full again and answers '#', so that a lost bell is noticed."""
    claimed = await room.own()
    assert await room.renew(claimed) == 0
    await room.link.call("PEXPIRE", room.keys.lock, 1_000)
    await room.push(text(), text())
    assert await room.renew(claimed) == 2
    assert await room.ttl_ms("lock") > 1_000


async def test_renew_makes_an_expired_unclaimed_lock_anew(room: RoomActs) -> None:
    """A lease that ran out while nobody claimed is simply taken up again."""
    claimed = await room.own()
    await room.link.call(*room.delete("lock"))
    assert await room.renew(claimed) == 0
    assert await room.link.call("GET", room.keys.lock) == f"w1:{claimed.token}".encode()
    assert 0 < await room.ttl_ms("lock") <= LEASE_MS


async def test_renew_refuses_a_changed_token(room: RoomActs) -> None:
    """After somebody else's claim, a release, or the loss of meta, a renewal touches nothing."""
    first = await room.own()
    second = await room.own("w2", seen=f"w1:{first.token}".encode())
    before = await room.snapshot()
    assert await room.renew(first) is None
    assert await room.snapshot() == before
    assert (await room.release(second, worker="w2")).released
    assert await room.renew(second, worker="w2") is None
    assert "lock" not in await room.exist()
    await room.link.call(*room.delete("meta"))
    assert await room.renew(second, worker="w2") is None


# --- release ----------------------------------------------------------------------------------------------------------
async def test_a_release_with_backlog_is_refused(room: RoomActs) -> None:
    """An owner that missed events keeps the room, and hears how many."""
    claimed = await room.own()
    await room.push(text(), text())
    before = await room.snapshot()
    assert await room.release(claimed) == Released(released=False, ours=True, backlog=2)
    assert await room.snapshot() == before
    assert await room.renew(claimed) == 2


async def test_a_forced_release_with_backlog_lets_nothing_expire(room: RoomActs) -> None:
    """A handover gives the room back whatever waits in it; the backlog stands for the next owner."""
    claimed = await room.own()
    await room.push(text(), text())
    assert await room.release(claimed, force=True) == Released(released=True, ours=False, backlog=2)
    assert "lock" not in await room.exist()
    assert await expiring(room) == set()
    meta = await room.hash("meta")
    assert (meta["token"], meta["released"]) == ("", claimed.token.split(":")[1])
    following = await room.own("w2")
    assert (following.token[:2], following.iseq) == ("2:", 2)
    assert b"released" not in following.meta


async def test_a_late_commit_after_the_release_is_refused(room: RoomActs) -> None:
    """What a released owner still sends has no effect, before and after the next claim."""
    await room.push(text())
    claimed = await room.own()
    ids = await room.ids()
    await room.release(claimed, force=True)
    turn = turn_of(ids, outputs=[(b"text *", b"1")])
    assert await room.commit(claimed, 0, turn, lease_ms=LEASE_MS) == "token"
    await room.own("w2")
    assert await room.commit(claimed, 0, turn, lease_ms=LEASE_MS) == "token"
    assert "outlog" not in await room.exist()


async def test_a_release_again_answers_the_same(room: RoomActs) -> None:
    """A resent release is answered as the first time and changes nothing."""
    claimed = await used_up(room)
    first = await room.release(claimed)
    before = await room.snapshot()
    assert await room.release(claimed) == first == Released(released=True, ours=False, backlog=0)
    assert await room.snapshot() == before


async def test_a_release_by_a_stranger_is_refused(room: RoomActs) -> None:
    """Only the holder of the token gives a room back, and never somebody else's lock."""
    first = await room.own()
    second = await room.own("w2", seen=f"w1:{first.token}".encode())
    before = await room.snapshot()
    assert await room.release(first) == Released(released=False, ours=False, backlog=0)
    assert await room.release(first, force=True) == Released(released=False, ours=False, backlog=0)
    assert await room.snapshot() == before
    assert (await room.release(second, worker="w2")).released


async def test_a_release_trims_the_inbox(room: RoomActs) -> None:
    """Committed entries go with the release, the stream and its last id stay."""
    claimed = await used_up(room)
    await room.release(claimed)
    assert await room.ids() == []
    assert (await room.push(text())).first_iseq == 3


# --- expiry -----------------------------------------------------------------------------------------------------------
async def test_all_keys_of_an_empty_room_expire_together(room: RoomActs) -> None:
    """A room without state, members, timers, outbox and dead events is gone after the resume window, all at once."""
    claimed = await used_up(room)
    assert (await room.release(claimed)).released
    assert await room.exist() == ALL_KEPT == await expiring(room)
    moments = {await room.link.call("PEXPIRETIME", getattr(room.keys, part)) for part in ALL_KEPT}
    assert len(moments) == 1
    assert WINDOW_MS - 5_000 < moments.pop() - await room.server_ms() <= WINDOW_MS


@pytest.mark.parametrize(
    ("part", "turn"),
    [
        ("state", turn_of(state_set={"a": b"1"})),
        ("timers", turn_of(timers_set={"t": b"{}"})),
        ("dead", turn_of(dead=[DeadEvent(b"1-1", b"text", b"c", b"", "e", "t")])),
        ("outbox", turn_of(outbox=[("post", "a/b", b"")])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_of_a_room_that_holds_something_only_log_and_sessions_expire(
    room: RoomActs, part: str, turn: Turn
) -> None:
    """State, timers, outbox or dead events keep a room; without members nobody can resume, so the sessions may go."""
    claimed = await used_up(room)
    await room.done(claimed, 1, turn)
    assert (await room.release(claimed)).released
    assert part in await room.exist()
    assert await expiring(room) == {"outlog", "sessions"}


async def test_of_a_room_with_members_only_the_log_expires(room: RoomActs) -> None:
    """Dedupe rows of members must stay as long as they are members."""
    claimed = await used_up(room)
    await room.done(claimed, 1, turn_of(members_set={"c1": b'{"edge":"e1"}'}))
    assert (await room.release(claimed)).released
    assert await expiring(room) == {"outlog"}


async def test_a_drained_outbox_keeps_no_room(room: RoomActs) -> None:
    """An outbox stream that stands empty counts as none."""
    claimed = await used_up(room)
    await room.done(claimed, 1, turn_of(outbox=[("post", "a/b", b"")]))
    await room.link.call("XTRIM", room.keys.outbox, "MAXLEN", 0)
    assert (await room.release(claimed)).released
    assert await expiring(room) == ALL_KEPT | {"outbox"}


async def test_a_release_prunes_idle_rows(room: RoomActs) -> None:
    """Dedupe rows idle for over 10 min go with a release without backlog, those of members stay."""
    await room.push(session("join", name="fresh"))
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(await room.ids(), members_set={"c1": b'{"edge":"e1","session":"kept"}'}))
    old_s = await room.server_ms() // 1000 - 700
    await room.link.call("HSET", room.keys.sessions, "s:old", f"1 1 down {old_s}", "s:kept", f"1 1 up {old_s}")
    assert (await room.release(claimed)).released
    assert set(await room.hash("sessions")) == {"#", "@", "e:e1", "s:fresh", "s:kept"}


async def test_an_expired_room_begins_anew(room: RoomActs) -> None:
    """After all keys are gone the next event is the first of a fresh room."""
    claimed = await used_up(room)
    await room.release(claimed)
    await room.link.call(*room.delete(*ALL_KEPT))
    assert (await room.push(text())).first_iseq == 1
    following = await room.own()
    assert (following.token[:2], following.iseq) == ("1:", 1)
    assert await room.commit(claimed, 1, turn_of(await room.ids())) == "token"


# --- full memory ------------------------------------------------------------------------------------------------------
async def test_what_drains_works_on_when_memory_is_full(own_valkey: Valkey, address: Address) -> None:
    """At maxmemory a push is refused whole; claim, commit, renew, reap and release go on, so that rooms drain."""
    link = Link(connector(own_valkey.url, timeout_s=5), timeout_s=5, name="test")
    await load_library(link)
    room = RoomActs(link, address)
    await room.push(join(), text(), text())
    claimed = await room.own()
    await link.call("CONFIG", "SET", "maxmemory", "1")
    before = await room.snapshot()
    with pytest.raises(RedisReplied, match=r"^OOM"):
        await room.push(text())
    assert await room.snapshot() == before
    ids = await room.ids()
    await room.done(claimed, 0, turn_of(ids[:2], state_set={"a": b"1"}, outputs=[(b"text *", b"1")]), keep=8)
    assert await room.renew(claimed) == 3
    assert await room.reap("e1")
    assert (await room.release(claimed, force=True)).backlog == 2
    following = await room.own("w2")
    await room.done(following, 1, turn_of(await room.ids()))
    assert (await room.release(following, worker="w2")).released
    await link.call("CONFIG", "SET", "maxmemory", "0")
    assert (await room.push(text(), edge="e2")).letters == "a"
    await link.close()
