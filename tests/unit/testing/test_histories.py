"""Random histories of a room that uses everything: run again, they give the same commits, byte for byte."""

import pytest

from harness.histories import Anything, history, written
from innkeeper.testing import RoomHarness


@pytest.mark.parametrize("seed", range(20))
async def test_a_history_run_again_gives_the_same_commits(seed: int) -> None:
    """now(), random and new_id() are the events' own: the commands that reach Redis are the same bytes."""
    runs = [RoomHarness(Anything), RoomHarness(Anything)]
    for room in runs:
        await history(seed)(room)
    assert written(runs[0]) == written(runs[1])
    assert len(runs[0].commits) > 20


@pytest.mark.parametrize("seed", range(20, 40))
async def test_a_history_with_crashes_gives_the_same_commits(seed: int) -> None:
    """So it does with its object lost at every commit, and with another worker taking it over at every event."""
    harness = RoomHarness(Anything)
    await harness.crash_everywhere(history(seed))
    await harness.duplicate_owner(history(seed))


async def test_histories_do_everything() -> None:
    """The histories above are no idle talk: they fail, refuse, close, owe and end rooms."""
    seen: set[str] = set()
    for seed in range(40):
        room = RoomHarness(Anything)
        await history(seed)(room)
        for commit in room.commits:
            seen |= {header.split(b" ")[0].decode() for header, _ in commit.outputs}
            seen |= {f"owes {kind}" for kind, _, _ in commit.outbox}
            seen |= {f"event {event.kind.decode()}" for event in commit.events}
            seen |= {name for name in ("state_del", "members_del", "outbox", "dead", "is_end") if getattr(commit, name)}
    assert seen >= {"join", "refuse", "text", "close", "state_del", "members_del", "outbox", "dead", "is_end"}
    assert seen >= {"answer", "owes post", "owes job", "owes cancel"}
    assert seen >= {f"event {kind}" for kind in ("request", "post", "job", "timer")}
