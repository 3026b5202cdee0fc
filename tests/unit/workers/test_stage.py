"""Who may run a handler: suspects alone, yet not for ever."""

import asyncio
import logging
from typing import Any

import pytest

from innkeeper_workers import stage as stages
from innkeeper_workers.stage import Stage


class FakeOwner:
    """As much of an owner as a stage looks at."""

    def __init__(self, name: str) -> None:
        self.address = f"chat/{name}"
        self.confirmed_at_s = asyncio.get_running_loop().time() + 100


def owner(name: str) -> Any:
    """Return an owner whose lease is fresh."""
    return FakeOwner(name)


async def goes_in(stage: Stage, who: Any, *, alone: bool = False) -> bool:
    """Return whether it may go in within a moment."""
    try:
        async with asyncio.timeout(0.06):
            await stage.wait(who, alone=alone)
    except TimeoutError:
        return False
    return True


async def test_a_suspect_is_alone() -> None:
    """It waits until no other handler runs, and no other starts while its own does."""
    stage, suspect, other = Stage(stop_s=1), owner("a"), owner("b")
    assert stage.enter(other, 0)
    assert not await goes_in(stage, suspect, alone=True)
    stage.leave(other)
    assert await goes_in(stage, suspect, alone=True)
    assert not stage.enter(other, 0)
    assert not await goes_in(stage, other)
    stage.leave(suspect)
    assert stage.enter(other, 0)


async def test_one_that_waits_for_long_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a while others go on; another suspect does not, as the death of this one would speak against it."""
    monkeypatch.setattr(stages, "_ALONE_S", 0.1)
    stage, slow, suspect, other = Stage(stop_s=1), owner("slow"), owner("a"), owner("b")
    assert await goes_in(stage, slow, alone=True)
    assert not await goes_in(stage, other)
    with caplog.at_level(logging.WARNING):
        await asyncio.sleep(0.1)
    assert "chat/slow" in caplog.text
    assert stage.enter(other, 0)
    stage.leave(other)
    assert not await goes_in(stage, suspect, alone=True)
    assert stage.enter(other, 0)  # a suspect in the queue behind it stops nobody, either
    stage.leave(slow)
    stage.leave(other)
    assert await goes_in(stage, suspect, alone=True)
    stage.leave(suspect)
    await asyncio.sleep(0.15)
    assert caplog.text.count("runs alone") == 1
    assert stage.enter(other, 0)
