"""Takeover figures: how long rooms stand still when their worker is killed, stopped, cut off or asked to go."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from chaos.proxy import Proxy
from harness.house import House, Role
from harness.takeover import HEAD, Watch, jitter, percentile, row

ROOM = "ledger/one"
MANY = [f"ledger/r{n}" for n in range(500)]


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """Lines that are printed together at the end."""
    lines: list[str] = []
    yield lines
    print("\n\n" + "\n".join([HEAD, *lines]))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One edge and two workers."""
    async with House(tmp_path, edges=1, workers=2) as running:
        yield running


async def strikes(house: House, number: signal.Signals, count: int, *, pause: bool = False) -> list[float]:
    """Strike the owner of one room again and again; a new worker stands in before the next strike."""
    taken: list[float] = []
    async with Watch(house, [ROOM], pace_s=0.01) as watch:
        for _ in range(count):
            await jitter()
            owner = await house.owner_of(ROOM)
            taken += await watch.after(partial(owner.signal, number), pause=pause)
            await replace(house, owner)
        await watch.settled()
    return taken


async def replace(house: House, gone: Role, *options: str) -> None:
    """Start a worker in the place of one that is gone, or stopped."""
    await house.add_worker(*options)
    gone.signal(signal.SIGCONT)
    gone.signal(signal.SIGKILL)
    await asyncio.to_thread(gone.process.wait)


async def test_a_killed_owner_is_replaced_at_once(house: House) -> None:
    """Two SIGKILLs of the owner of a room with traffic: a successor commits within the lease and half a second."""
    taken = await strikes(house, signal.SIGKILL, 2)
    assert max(taken) < 2.5, taken
    assert min(taken) < 0.5, taken


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_sigkill(house: House, table: list[str]) -> None:
    """A hundred SIGKILLs of the owner."""
    taken = await strikes(house, signal.SIGKILL, 100)
    table.append(row("SIGKILL, one room", taken, "p99 <= 500, max <= 2,500"))
    assert percentile(taken, 0.5) <= 0.05
    assert percentile(taken, 0.99) <= 0.5
    assert max(taken) <= 2.5


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_sigstop(house: House, table: list[str]) -> None:
    """Thirty SIGSTOPs of the owner; its connections stay open, only the lease tells."""
    taken = await strikes(house, signal.SIGSTOP, 30)
    table.append(row("SIGSTOP, one room", taken, "p99 <= 2,500"))
    assert percentile(taken, 0.99) <= 2.5


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_sigterm(house: House, table: list[str]) -> None:
    """Thirty hand-overs, another worker being there: the longest that a message waited for its output."""
    taken = await strikes(house, signal.SIGTERM, 30, pause=True)
    table.append(row("SIGTERM, one room: longest wait of a message", taken, "p99 <= 100"))
    assert percentile(taken, 0.99) <= 0.1


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_dead_link(tmp_path: Path, table: list[str]) -> None:
    """Thirty times nothing passes between the owner and Redis any more, in either direction, and nothing is closed."""
    taken: list[float] = []
    async with House(tmp_path, edges=0, workers=0) as house:
        proxies: dict[int, Proxy] = {}

        async def add() -> None:
            proxy = Proxy(house.valkey.port, seed=len(proxies))
            await proxy.start()
            role = await house.add_worker("--redis", f"redis://127.0.0.1:{proxy.port}/0")
            proxies[role.process.pid] = proxy

        def blackhole(owner: Role) -> None:
            proxies[owner.process.pid].hold_up = proxies[owner.process.pid].hold_down = True

        await add()
        await add()
        await house.add_edge()  # it waits for a worker's functions
        async with Watch(house, [ROOM], pace_s=0.01) as watch:
            for _ in range(30):
                await jitter()
                owner = await house.owner_of(ROOM)
                taken += await watch.after(partial(blackhole, owner))
                assert proxies[owner.process.pid].bitten["pieces held"] > 0
                await add()
                owner.signal(signal.SIGKILL)
                await asyncio.to_thread(owner.process.wait)
                await proxies[owner.process.pid].close()
            await watch.settled()
        for proxy in proxies.values():
            await proxy.close()
    table.append(row("dead link, one room", taken, "p99 <= 2,500"))
    assert percentile(taken, 0.99) <= 2.5


async def many(tmp_path: Path, number: signal.Signals, count: int, *, pause: bool) -> list[float]:
    """Strike the one worker that owns 500 rooms, each with two messages a second; another one is there."""
    taken: list[float] = []
    async with House(tmp_path, edges=1, workers=1) as house, Watch(house, MANY, pace_s=0.5) as watch:
        for _ in range(count):
            await house.add_worker()
            await jitter()
            owner = await house.owner_of(MANY[0])
            taken += await watch.after(partial(owner.signal, number), pause=pause, timeout_s=30)
            await asyncio.to_thread(owner.process.wait)
        await watch.settled()
    return taken


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_sigkill_of_500_rooms(tmp_path: Path, table: list[str]) -> None:
    """Six SIGKILLs of a worker with 500 rooms; a room stands still until its next message at the latest (500 ms)."""
    taken = await many(tmp_path, signal.SIGKILL, 6, pause=False)
    table.append(row("SIGKILL, 500 rooms at once", taken, "p99 <= 1,000"))
    assert percentile(taken, 0.99) <= 1


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_sigterm_of_500_rooms(tmp_path: Path, table: list[str]) -> None:
    """Six hand-overs of 500 rooms, each with two messages a second: the longest wait of a message in each room."""
    taken = await many(tmp_path, signal.SIGTERM, 6, pause=True)
    table.append(row("SIGTERM, 500 rooms: longest wait of a message", taken, "p99 <= 100"))
    assert percentile(taken, 0.99) <= 0.1
