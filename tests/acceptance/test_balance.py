"""A worker that comes takes its share of the rooms, and nobody's socket notices. ``make rebalance`` measures it."""

import asyncio
import time
from pathlib import Path
from statistics import quantiles

import orjson
import pytest

from harness.house import Client, House, until


async def _shares(house: House) -> dict[str, int]:
    names = [name.decode() for name in await house.redis.zrange("inn:workers", 0, -1)]
    return {name: await house.redis.scard(f"inn:worker:{name}") for name in names}


class Talk:
    """Members of many rooms, each saying a number every so many seconds."""

    def __init__(self, clients: list[Client], every_s: float) -> None:
        self.clients = clients
        self._every_s = every_s
        self.said_at_s: list[list[float]] = [[] for _ in clients]
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Talk until it is over, the rooms spread over that time."""
        await asyncio.gather(*(self._say(n) for n in range(len(self.clients))))

    def stop(self) -> None:
        """Have everybody say no more."""
        self._over.set()

    async def _say(self, number: int) -> None:
        await asyncio.sleep(self._every_s * number / len(self.clients))
        said = self.said_at_s[number]
        while not self._over.is_set():
            said.append(time.monotonic())
            await self.clients[number].send({"i": len(said) - 1})
            await asyncio.sleep(self._every_s)

    def latencies_s(self, number: int) -> list[float]:
        """Return how long each message of one room was under way, in order."""
        client, said = self.clients[number], self.said_at_s[number]
        heard = [at for at, frame in zip(client.got_at_s, client.got, strict=True) if "i" in frame]
        return [at - since for at, since in zip(heard, said, strict=True)]


@pytest.mark.timeout(200)
@pytest.mark.long
@pytest.mark.parametrize(
    ("rooms", "workers", "every_s"), [(60, 1, 0.05), pytest.param(500, 3, 1.0, marks=pytest.mark.chaos)]
)
async def test_a_new_worker_takes_its_share(tmp_path: Path, rooms: int, workers: int, every_s: float) -> None:
    """Under traffic, within thirty seconds; every message is applied once and in order, and hardly later."""
    fair = rooms // (workers + 1) * 4 // 5
    async with House(tmp_path, edges=1, workers=workers, rebalance=True) as house:
        talk = Talk([await house.join(f"ledger/b{n}") for n in range(rooms)], every_s)
        talking = asyncio.create_task(talk.run())
        await asyncio.sleep(8)
        epochs = await _epochs(house, rooms)
        known = set(await _shares(house))
        await house.add_worker()
        began_s = time.monotonic()

        async def is_shared() -> bool:
            return any(share >= fair for name, share in (await _shares(house)).items() if name not in known)

        await until(is_shared, "the new worker has its share", timeout_s=30)
        took_s = time.monotonic() - began_s
        await asyncio.sleep(5)
        talk.stop()
        await talking
        moved = [n for n, epoch in enumerate(await _epochs(house, rooms)) if epoch > epochs[n]]
        for n, client in enumerate(talk.clients):
            count = len(talk.said_at_s[n])
            await client.numbers(count)
            assert [number for number, _, _ in client.numbered()] == list(range(1, count + 1))
            assert [i for _, _, i in client.numbered()] == list(range(count))
            assert client.close_code is None
        lately = int((took_s + 5) / every_s)
        slowest_ms = [max(talk.latencies_s(n)[-lately:]) * 1000 for n in range(rooms)]
        worst = [slowest_ms[n] for n in moved]
        others = [slowest for n, slowest in enumerate(slowest_ms) if n not in set(moved)]
        shares = await _shares(house)
        print(
            f"{rooms} rooms, {rooms / every_s:.0f} messages/s, {workers} → {workers + 1} workers: "
            f"shared after {took_s:.1f} s, {sorted(shares.values())}; "
            f"{len(moved)} rooms moved, their slowest messages: {_told(worst)}; those of the others: {_told(others)}"
        )
        assert max(worst) < 1500
        assert all(share >= fair for name, share in shares.items() if name not in known)  # it stays so


async def _epochs(house: House, rooms: int) -> list[int]:
    return [int(await house.redis.hget(f"inn:{{ledger/b{n}}}:meta", "epoch")) for n in range(rooms)]


def _told(figures_ms: list[float]) -> str:
    cuts = quantiles(figures_ms, n=100)
    return f"p50 {cuts[49]:.0f}, p99 {cuts[98]:.0f}, max {max(figures_ms):.0f} ms"


@pytest.mark.parametrize(("ahead_ms", "misses"), [(0, 1), (60_000, 0)])
async def test_who_takes_nothing_is_offered_no_more(tmp_path: Path, ahead_ms: int, misses: int) -> None:
    """A row of a worker that is gone, or held up, costs one room one wait; one out of another time costs nothing."""
    async with House(tmp_path, edges=1, workers=1, rebalance=True) as house:
        talk = Talk([await house.join(f"ledger/g{n}") for n in range(8)], 0.2)
        talking = asyncio.create_task(talk.run())
        for _ in range(16):
            seconds, micros = await house.redis.time()
            row = {"at_ms": seconds * 1000 + micros // 1000 + ahead_ms, "rooms": 0, "cpu": 0, "loop_lag_ms": 0}
            row |= {"events_s": 0, "kinds": ["ledger"]}
            await house.redis.hset("inn:load", "w-ghost", orjson.dumps(row))
            await asyncio.sleep(0.5)
        talk.stop()
        await talking
        assert house.workers[0].log.count("w-ghost did not take it") == misses
        await until(
            lambda: all(len(talk.clients[n].numbered()) == len(talk.said_at_s[n]) for n in range(8)), "all messages"
        )
