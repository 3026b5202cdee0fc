"""A worker that comes takes its share of the rooms, and nobody's socket notices."""

import asyncio
import time
from pathlib import Path

import pytest

from harness.house import House, until


async def _shares(house: House) -> list[int]:
    names = await house.redis.zrange("inn:workers", 0, -1)
    return sorted([await house.redis.scard(f"inn:worker:{name.decode()}") for name in names])


@pytest.mark.timeout(120)
@pytest.mark.long
async def test_a_new_worker_takes_its_share(tmp_path: Path) -> None:
    """Of sixty rooms under traffic, within thirty seconds; every message is applied once and in order."""
    rooms = [f"ledger/b{n}" for n in range(60)]
    async with House(tmp_path, edges=1, workers=1, rebalance=True) as house:
        clients = [await house.join(room) for room in rooms]
        sent, over = 0, asyncio.Event()

        async def talk() -> None:
            nonlocal sent
            while not over.is_set():
                for client in clients:
                    await client.send({"i": sent})
                sent += 1
                await asyncio.sleep(0.2)

        talking = asyncio.create_task(talk())
        await asyncio.sleep(3)
        await house.add_worker()
        began_s = time.monotonic()
        await until(lambda: _is_even(house), "the rooms are shared", timeout_s=30)
        print(f"shared after {time.monotonic() - began_s:.1f} s: {await _shares(house)}")
        await asyncio.sleep(5)
        over.set()
        await talking
        for client in clients:
            await client.numbers(sent)
            assert [number for number, _, _ in client.numbered()] == list(range(1, sent + 1))
            assert [i for _, _, i in client.numbered()] == list(range(sent))
            assert client.close_code is None
            gaps = [later - at for at, later in zip(client.got_at_s, client.got_at_s[1:], strict=False)]
            assert max(gaps) < 1.5
        assert min(await _shares(house)) >= 24  # it stays so


async def _is_even(house: House) -> bool:
    shares = await _shares(house)
    return len(shares) == 2 and min(shares) >= 24
