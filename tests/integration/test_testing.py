"""Rooms in memory store what Redis stores: the commits of random histories, carried out by the real act."""

from typing import Any

import pytest

from harness.acts import RoomActs
from harness.histories import Anything, history
from innkeeper.functions import PushEvent
from innkeeper.testing import RoomHarness


@pytest.mark.parametrize("seed", range(100, 110))
async def test_a_room_in_memory_holds_what_redis_would(room: RoomActs, seed: int) -> None:
    """State, members, failures, debts, and whether it is created are the same after every commit, ends included."""
    memory = RoomHarness(Anything)
    expected: list[dict[str, Any]] = []
    stored = memory._stored
    commit = stored.commit

    def noted(*arguments: Any, **options: Any) -> Any:
        done = commit(*arguments, **options)
        expected.append(
            {
                "state": {key.encode(): data for key, data in stored.state.items()},
                "members": {key.encode(): data for key, data in stored.members.items()},
                "dead": [dead.error.encode() for dead in stored.dead],
                "outbox": [(kind.encode(), target.encode(), data) for kind, target, data in stored.outbox],
                "created": stored.is_created,
            }
        )
        return done

    stored.commit = noted  # type: ignore[method-assign]
    await history(seed)(memory)
    claimed = await room.own()
    for version, (done, wanted) in enumerate(zip(memory.commits, expected, strict=True)):
        turn = done.to_turn()
        for event in done.events:
            await room.push(PushEvent(event.kind.decode(), event.connection.decode(), event.data))
        pushed = await room.link.call("XREVRANGE", room.keys.inbox, "+", "-", "COUNT", len(done.events))
        turn.consumed = [entry_id for entry_id, _ in reversed(pushed)]
        await room.done(claimed, version, turn, created=wanted["created"], keep=1)
        assert await looked(room) == wanted, f"after commit {version + 1}"


async def looked(room: RoomActs) -> dict[str, Any]:
    """Return what Redis holds of a room."""
    call, keys = room.link.call, room.keys
    hashes = [await call("HGETALL", key) for key in (keys.state, keys.members)]
    state, members = (dict(zip(flat[::2], flat[1::2], strict=True)) for flat in hashes)
    rows = {name: [dict(zip(f[::2], f[1::2], strict=True)) for _, f in await call("XRANGE", key, "-", "+")]
            for name, key in (("dead", keys.dead), ("outbox", keys.outbox))}  # fmt: skip
    return {
        "state": state,
        "members": members,
        "dead": [row[b"error"] for row in rows["dead"]],
        "outbox": [(row[b"type"], row[b"target"], row[b"data"]) for row in rows["outbox"]],
        "created": await call("HGET", keys.meta, "created") == b"1",
    }
