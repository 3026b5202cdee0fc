"""reap_edge and heartbeat on a real server."""

import asyncio
import uuid

import pytest

from harness.acts import Listener, RoomActs, join, leave, text, turn_of
from innkeeper import functions
from innkeeper.errors import EdgeClosed


async def test_a_reaped_edge_leaves_one_event(room: RoomActs) -> None:
    """The event stands behind what the edge pushed before; reaping again, or by many at once, appends no second one."""
    await room.push(join(), text())
    answers = await asyncio.gather(*(room.reap("e1") for _ in range(10)))
    assert sum(answers) == 1
    entries = await room.stream("inbox")
    assert [(fields["t"], fields["e"], fields["c"]) for _, fields in entries] == [
        (b"join", b"e1", b"c1"), (b"text", b"e1", b"c1"), (b"edge-gone", b"e1", b"-"),
    ]  # fmt: skip
    assert (await room.hash("sessions"))["#"] == "3"
    assert (await room.hash("sessions"))["e:e1"].startswith("closed ")


async def test_reaping_closes_the_row_of_an_edge_never_seen(room: RoomActs) -> None:
    """A push still under way from an edge that has no row yet finds the door closed."""
    assert await room.reap("e9")
    with pytest.raises(EdgeClosed):
        await room.push(join(), edge="e9", batch=1)


async def test_a_new_incarnation_is_another_edge(room: RoomActs) -> None:
    """The row of a dead incarnation does not bind the next one, and each has its own end."""
    await room.push(join("c1"), edge="e1")
    await room.reap("e1")
    assert (await room.push(join("c2"), leave("c2"), edge="e1b")).letters == "aa"
    assert await room.reap("e1b")


async def test_reaping_goes_over_the_cap_and_keeps_the_keys(room: RoomActs) -> None:
    """The event is appended to a released room too; inbox and sessions then no longer expire."""
    await room.push(join())
    claimed = await room.own()
    await room.done(claimed, 0, turn_of(await room.ids()))
    await room.release(claimed)
    assert await room.reap("e1")
    assert (await room.ttl_ms("inbox"), await room.ttl_ms("sessions")) == (-1, -1)
    following = await room.own()
    assert (following.iseq, following.meta[b"cursor"]) == (2, b"1")


async def test_reaping_restores_a_missing_counter(room: RoomActs) -> None:
    """Where sessions were deleted, the event gets the number after the inbox's last one."""
    await room.push(join(), text())
    await room.link.call(*room.delete("sessions"))
    assert await room.reap("e1")
    sessions = await room.hash("sessions")
    assert (sessions["#"], sessions["@"]) == ("3", "2")


async def test_reaping_rings_the_owner(room: RoomActs, listener: Listener) -> None:
    """An owner hears an empty ring; the answer names the lock and who heard, also when it was done before."""
    await listener.subscribe(room.keys.bell)
    claimed = await room.own()
    lock = f"w1:{claimed.token}".encode()
    for appended in (True, False):
        reply = await room.ask(functions.reap_edge(room.keys, edge="e1"))
        assert functions.read_reaped(reply) == (appended, lock, 1)
        assert await listener.next() == b""


# --- heartbeat --------------------------------------------------------------------------------------------------------
async def beat(room: RoomActs, key: str, *, first: bool) -> tuple[bool, int]:
    """Send one heartbeat."""
    return functions.read_heartbeat(await room.ask(functions.heartbeat(key, incarnation="x-1", first=first)))


async def test_a_heartbeat_is_the_servers_time(room: RoomActs) -> None:
    """Beats are written and answered in server ms, so that no two machines' clocks are compared."""
    key = f"test:{uuid.uuid4().hex}"
    before_ms = await room.server_ms()
    alive, told_ms = await beat(room, key, first=True)
    assert alive
    assert before_ms <= told_ms <= await room.server_ms()
    assert int(await room.link.call("ZSCORE", key, "x-1")) == told_ms
    alive, later_ms = await beat(room, key, first=False)
    assert (alive, later_ms >= told_ms) == (True, True)


async def test_a_removed_incarnation_learns_that_it_was_declared_dead(room: RoomActs) -> None:
    """Only the first beat registers: one that was removed meanwhile is told so, and not put back."""
    key = f"test:{uuid.uuid4().hex}"
    await beat(room, key, first=True)
    await room.link.call("ZREM", key, "x-1")
    alive, told_ms = await beat(room, key, first=False)
    assert not alive
    assert told_ms > 0
    assert await room.link.call("ZCARD", key) == 0
