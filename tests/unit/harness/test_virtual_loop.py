"""The loop of the simulation: virtual time, and processes that are killed or stopped between two steps."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from harness.simulation.loop import NOBODY, NothingLeft, Process, VirtualLoop


def _run(main: Callable[[VirtualLoop, list[str]], Awaitable[None]]) -> tuple[VirtualLoop, list[str]]:
    loop, heard = VirtualLoop(), list[str]()

    async def wrapped() -> None:
        await main(loop, heard)

    try:
        loop.run_until_complete(NOBODY.run(loop.create_task, wrapped()))
    finally:
        loop.close()
    return loop, heard


def test_an_hour_of_sleep_takes_no_time() -> None:
    """Time jumps to the next timer, and timers run in the order of their times."""

    async def main(loop: VirtualLoop, heard: list[str]) -> None:
        loop.call_later(7_200, heard.append, "two")
        loop.call_later(3_600, heard.append, "one")
        await asyncio.sleep(7_201)

    loop, heard = _run(main)
    assert heard == ["one", "two"]
    assert loop.time() == pytest.approx(7_201, abs=0.001)


def test_waiting_for_nothing_is_an_error() -> None:
    """Where no timer runs and nobody can move, the run ends instead of hanging."""
    with pytest.raises(NothingLeft):
        _run(lambda _loop, _heard: asyncio.Event().wait())  # type: ignore[arg-type,return-value]


async def _tell(heard: list[str], what: str, *delays_s: float) -> None:
    try:
        for delay_s in delays_s:
            await asyncio.sleep(delay_s)
            heard.append(f"{what} {delay_s:g}")
    finally:
        heard.append(f"{what} ends")


def test_a_killed_process_does_nothing_any_more() -> None:
    """Neither its next step nor any finally runs; its neighbour goes on."""

    async def main(loop: VirtualLoop, heard: list[str]) -> None:
        victim, neighbour = Process("victim"), Process("neighbour")
        tasks = [p.context.run(loop.create_task, _tell(heard, p.name, 1, 2)) for p in (victim, neighbour)]
        await asyncio.sleep(2)
        victim.is_alive = False
        await asyncio.sleep(5)
        assert [task.done() for task in tasks] == [False, True]

    assert _run(main)[1] == ["victim 1", "neighbour 1", "neighbour 2", "neighbour ends"]


def test_a_fuse_burns_with_the_steps_of_its_process() -> None:
    """A kill befalls a process between two of its steps, wherever it awaits then."""

    async def main(loop: VirtualLoop, heard: list[str]) -> None:
        victim = Process("victim")
        victim.light_fuse(3, lambda: setattr(victim, "is_alive", False))
        task = victim.context.run(loop.create_task, _tell(heard, "victim", 1, 1, 1))
        await asyncio.sleep(9)
        assert not task.done()

    assert _run(main)[1] == ["victim 1"]  # its start, and two steps of the first sleep


def test_a_stopped_process_hears_the_network_before_its_timers() -> None:
    """After SIGCONT what came meanwhile is read first, as a real loop does: a timeout must not judge without it."""

    async def main(loop: VirtualLoop, heard: list[str]) -> None:
        process = Process("stopped")
        process.context.run(loop.call_later, 1, heard.append, "timer")
        process.is_stopped = True
        await asyncio.sleep(2)
        loop.call_soon(heard.append, "network", context=process.context)
        await asyncio.sleep(1)
        assert heard == []
        loop.resume(process)
        await asyncio.sleep(1)

    assert _run(main)[1] == ["network", "timer"]
