"""A Redis that has reached its maxmemory: what was accepted stays, what was not waits, and nobody gives up."""

import asyncio
import signal
from pathlib import Path

from harness.house import House, until


async def test_a_worker_starts_while_redis_is_full(tmp_path: Path) -> None:
    """A full Redis keeps no worker from starting; when there is room again, all that waited is applied."""
    async with House(tmp_path, edges=1, workers=1) as house:
        client = await house.join("ledger/full", name="ann")
        await client.expect(lambda f: "welcome" in f, "its welcome")
        house.workers[0].signal(signal.SIGSTOP)
        await client.send({"i": 1})
        await until(lambda: _backlog(house), "the message is accepted")
        await house.redis.config_set("maxmemory", "1mb")
        house.workers[0].signal(signal.SIGKILL)
        await client.send({"i": 2})
        successor = await house.add_worker()
        assert "kinds not announced yet" in successor.log
        await house.redis.config_set("maxmemory", "0")
        await client.numbers(2)
        assert client.numbered() == [(1, "ann", 1), (2, "ann", 2)]
        assert client.close_code is None


async def test_who_joins_while_redis_is_full_waits(tmp_path: Path) -> None:
    """The edge tries again until there is room; nothing breaks off without a word."""
    async with House(tmp_path, edges=1, workers=1) as house:
        await house.redis.config_set("maxmemory", "1mb")
        joining = asyncio.create_task(house.join("ledger/late", name="ann"))
        await asyncio.sleep(1)
        await house.redis.config_set("maxmemory", "0")
        client = await joining
        await client.expect(lambda f: "welcome" in f, "its welcome")
        assert client.close_code is None
        assert "Traceback" not in house.edges[0].log


async def _backlog(house: House) -> bool:
    last, cursor = await house.redis.hmget("inn:{ledger/full}:sessions", "#", "@")
    return int(last) > int(cursor)
