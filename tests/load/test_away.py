"""Redis is away for half a minute, or an edge stands still for two: nobody is thrown out, nothing grows without end."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from harness.house import Client, House
from harness.v1 import V1Client

AWAY_S = 30.0
STOPPED_S = 120.0
OUTPUT_BYTES = 64_000


def _signal(house: House, number: signal.Signals) -> None:
    assert house.valkey.process is not None
    house.valkey.process.send_signal(number)


@pytest.mark.chaos
@pytest.mark.timeout(200)
async def test_redis_away_for_thirty_seconds(tmp_path: Path) -> None:
    """No socket closes; what was sent before and meanwhile is applied once, in order; then everything goes on."""
    async with House(tmp_path, edges=2, workers=2) as house:
        raw = [await house.join(f"ledger/a{n % 5}", edge=n % 2, name=f"r{n}") for n in range(20)]
        sessions = [V1Client(house, f"ledger/a{n % 5}", f"s{n}", edge=n % 2) for n in range(20)]
        for client in raw:
            await client.expect(lambda f: "welcome" in f, "its welcome")
        for session in sessions:
            session.send({"i": 0})
        await asyncio.gather(*(session.all_applied() for session in sessions))
        _signal(house, signal.SIGSTOP)
        stopped_s = time.monotonic()
        sent = 0
        while time.monotonic() - stopped_s < AWAY_S:
            sent += 1
            for client in raw:
                await client.send({"i": sent})
            for session in sessions:
                session.send({"i": sent})
            await asyncio.sleep(1)
        _signal(house, signal.SIGCONT)
        back_s = time.monotonic()
        await asyncio.gather(*(session.all_applied(timeout_s=60) for session in sessions))
        went_on_s = time.monotonic() - back_s
        for number in range(5):
            await raw[number].numbers(4 * (2 * sent + 1), timeout_s=30)
            heard = [(name, i) for _, name, i in raw[number].numbered()]
            for name in {name for name, _ in heard}:
                mine = [i for who, i in heard if who == name]
                assert mine == list(range(0 if name[0] == "s" else 1, sent + 1)), name
        print(f"\nRedis away for {AWAY_S:g} s: {40 * sent} messages meanwhile, all applied {went_on_s:.1f} s after it")
        assert {client.close_code for client in raw} == {None}
        assert {session.generation for session in sessions} == {1}
        for session in sessions:
            await session.end()


async def _most_memory(house: House, speaker: Client, for_s: float) -> int:
    """Let a room say much for a while; return the most memory that Redis used meanwhile."""
    most, began_s = 0, time.monotonic()
    while time.monotonic() - began_s < for_s:
        speaker.got.clear()
        for _ in range(20):
            await speaker.send({"do": "big", "size": OUTPUT_BYTES})
        await speaker.big_frames(20)
        most = max(most, (await house.redis.info("memory"))["used_memory"])
    return most


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_an_edge_that_stands_still_costs_redis_little(tmp_path: Path) -> None:
    """With outputs of 64 KB as fast as they go, Redis needs 64 MB more at most while the edge is stopped."""
    async with House(tmp_path, edges=2, workers=1) as house:
        stopped = await house.join("trouble/big", edge=0, name="stopped")
        speaker = await house.join("trouble/big", edge=1, name="speaker")
        await speaker.send({"do": "big", "size": OUTPUT_BYTES})
        await stopped.big_frames(1)
        before = await _most_memory(house, speaker, 15)
        house.edges[0].signal(signal.SIGSTOP)
        most = await _most_memory(house, speaker, STOPPED_S)
        passed = (await house.redis.info("stats"))["total_net_output_bytes"]
        house.edges[0].signal(signal.SIGCONT)
        grown_mb = (most - before) / 1e6
        print(f"\nan edge stopped for {STOPPED_S:g} s: Redis {grown_mb:+.1f} MB on {before / 1e6:.0f}")
        print(f"{passed / 1e6:.0f} MB went out of it")
        assert grown_mb <= 64
        assert speaker.close_code is None
        assert await stopped.closed(20) in (1012, 4507)  # declared dead, or found silent: its own clock went on
