"""What the durability modes cost on this machine; measures, judges nothing but order of magnitude."""

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from harness.house import Client, House, until
from harness.sentinels import Sentinels
from harness.valkey import Valkey

ROOMS = 8
SECONDS = 4.0
MODES = {"relaxed": "everysec", "fsync": "always", "replicated": "always"}


@pytest.mark.benchmark
@pytest.mark.timeout(300)
async def test_price(tmp_path: Path) -> None:
    """Print messages per second, and the time of one alone, for each mode; the same server and replica for all."""
    figures = {}
    for mode, fsync in MODES.items():
        folder = tmp_path / mode
        folder.mkdir()
        primary, replica = (Valkey("--repl-diskless-sync-delay", "0", persist=True) for _ in range(2))
        try:
            for server in (primary, replica):
                await Sentinels.tell(server, "CONFIG", "SET", "appendfsync", fsync)
            await Sentinels.tell(replica, "REPLICAOF", "127.0.0.1", primary.port)
            await until(lambda p=primary: _has_replica(p), "the replica follows")  # type: ignore[misc]
            async with House(folder, url=primary.url, options=("--durability", mode)) as house:
                figures[mode] = await _measure(house)
        finally:
            primary.stop()
            replica.stop()
    base = figures["relaxed"][0]
    for mode, (rate, alone_ms) in figures.items():
        print(f"{mode:10} {rate:6.0f} msg/s ({rate / base:4.0%})  one alone p50 {alone_ms:.2f} ms")
    assert all(rate > 100 for rate, _ in figures.values())


async def _has_replica(server: Valkey) -> bool:
    info = await Sentinels.tell(server, "INFO", "replication")
    return int(info["connected_slaves"]) == 1 and info["slave0"]["state"] == "online"


async def _measure(house: House) -> tuple[float, float]:
    clients = [await house.join(f"ledger/r{n}", edge=n % 2, name=f"c{n}") for n in range(ROOMS)]
    alone_s = []
    for i in range(200):
        begun_s = time.perf_counter()
        await clients[0].send({"i": i})
        await _echo(clients[0], i)
        alone_s.append(time.perf_counter() - begun_s)
        clients[0].got.clear()
    begun_s = time.perf_counter()
    counts = await asyncio.gather(*(_stream(client, begun_s + SECONDS) for client in clients))
    return sum(counts) / SECONDS, statistics.median(alone_s) * 1000


async def _echo(client: Client, i: int) -> None:
    while not client.got or client.got[-1].get("i") != i:  # noqa: ASYNC110 - finer than the harness waits
        await asyncio.sleep(0.0003)


async def _stream(client: Client, until_s: float) -> int:
    """Keep 16 messages on their way; return how many came back."""
    client.got.clear()
    sent = 0
    while time.perf_counter() < until_s:
        while sent < len(client.got) + 16:
            await client.send({"i": sent})
            sent += 1
        await asyncio.sleep(0.001)
    return len(client.got)
