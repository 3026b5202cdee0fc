"""An edge that is asked to stop: its clients go one after another, sessions by themselves; another has them all."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness.house import House, until
from innkeeper.client import Down, Opened, Room, connect
from innkeeper.supervise import reserve_port

WINDOW_S = 1.5
ROOM = "ledger/a"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Two edges that share a port, so that who leaves the one finds the other."""
    async with House(tmp_path, edges=0, workers=1) as running:
        with reserve_port("127.0.0.1", 0) as held:
            port = str(held.getsockname()[1])
            for _ in range(2):
                await running.add_edge("--port", port, "--reuse-port", "--drain-s", str(WINDOW_S))
        yield running


class Guest:
    """A client of Innkeeper's own that keeps what happens to it."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.happened: list[tuple[float, Any]] = []
        self.task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async with self.room:
            async for event in self.room.events():
                self.happened.append((time.monotonic(), event))

    def times(self, kind: type[Any]) -> list[float]:
        """Return when events of a kind happened."""
        return [at_s for at_s, event in self.happened if isinstance(event, kind)]

    async def end(self) -> None:
        """Leave."""
        await self.room.close()
        await asyncio.gather(self.task, return_exceptions=True)


async def _edge_of(house: House) -> dict[str, str]:
    """Return at which edge each member is."""
    rows = await house.redis.hgetall(f"inn:{{{ROOM}}}:members")
    return {name.decode(): row.decode().partition('"edge":"')[2][:12] for name, row in rows.items()}


async def test_sessions_go_by_themselves_and_raw_sockets_over_the_window(house: House) -> None:
    """All sessions are back, each once; raw sockets hear 1012, not all at once; health says no at once; exit 0."""
    guests = [Guest(connect(house.url(ROOM, name=f"g{n}"))) for n in range(24)]
    raw = [await house.join(ROOM, name=f"r{n}") for n in range(16)]
    async with aiohttp.ClientSession() as http:
        try:
            await until(lambda: all(guest.times(Opened) for guest in guests), "all guests are in")
            await until(lambda: _members(house, 40), "all are in")
            stopping = house.edges[0].log.split("innkeeper.edge: edge ", 1)[1][:12]
            leaving = sum(edge == stopping for edge in (await _edge_of(house)).values())
            assert 0 < leaving < 40  # the kernel has dealt them out
            seen = await _kept_connection(house, http, stopping)
            began_s = time.monotonic()
            house.edges[0].signal(signal.SIGTERM)
            await until(lambda: "go elsewhere" in house.edges[0].log, "the drain")
            async with seen.get(f"http://127.0.0.1:{house.edges[0].facts['port']}/healthz") as answer:
                assert (answer.status, (await answer.json())["edge"]) == (503, stopping)
            assert await asyncio.to_thread(house.edges[0].process.wait, 10) == 0
            took_s = time.monotonic() - began_s
            await until(lambda: all(len(g.times(Opened)) == 1 + len(g.times(Down)) for g in guests), "all are back")
            assert stopping not in (await _edge_of(house)).values()
            moved_s = [at_s - began_s for guest in guests for at_s in guest.times(Opened)[1:]]
            closed = [client for client in raw if client.close_code is not None]
            assert len(moved_s) + len(closed) == leaving
            assert {client.close_code for client in closed} <= {1012}
            assert took_s < WINDOW_S + 3
            assert all(at_s < WINDOW_S for at_s in moved_s), moved_s
            assert max(moved_s) - min(moved_s) > 0.1  # each at a moment of its own
            sent = [guest.room.send({"i": n}) for n, guest in enumerate(guests)]
            await asyncio.wait_for(asyncio.gather(*(each.applied for each in sent)), 15)
        finally:
            await asyncio.gather(*(guest.end() for guest in guests))


async def _members(house: House, count: int) -> bool:
    return bool(await house.redis.hlen(f"inn:{{{ROOM}}}:members") == count)


async def _kept_connection(house: House, http: aiohttp.ClientSession, edge: str) -> aiohttp.ClientSession:
    """Return a session whose one kept connection is to that edge."""
    url = f"http://127.0.0.1:{house.edges[0].facts['port']}/healthz"
    for _ in range(40):
        async with http.get(url) as answer:
            assert answer.status == 200
            if (await answer.json())["edge"] == edge:
                return http
        await http.connector.close()  # type: ignore[union-attr]
        http._connector = aiohttp.TCPConnector(limit=1)
    raise AssertionError(f"no connection to {edge} in 40 attempts")


async def test_who_asks_twice_does_not_wait(house: House) -> None:
    """A second signal ends the window: all sockets hear 1012 at once, and the edge exits with 0."""
    await house.add_edge("--drain-s", "60")
    client = await house.join(ROOM, edge=2)
    await client.expect(lambda f: "welcome" in f, "its welcome")
    house.edges[2].signal(signal.SIGTERM)
    await until(lambda: "go elsewhere" in house.edges[2].log, "the drain")
    house.edges[2].signal(signal.SIGTERM)
    assert await client.closed(5) == 1012
    assert await asyncio.to_thread(house.edges[2].process.wait, 8) == 0


async def test_an_edge_without_sockets_ends_at_once(house: House) -> None:
    """Nobody is waited for where nobody is."""
    began_s = time.monotonic()
    house.edges[1].signal(signal.SIGTERM)
    assert await asyncio.to_thread(house.edges[1].process.wait, 8) == 0
    assert time.monotonic() - began_s < 1.2
