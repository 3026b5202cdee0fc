"""Commands leave while the loop is still busy: Redis and the process that asks it work at the same time."""

import asyncio
import time

import pytest
import redis
import uvloop

from harness.valkey import Valkey
from innkeeper.redis_client import Link, connector

KEY = "test:early"


@pytest.mark.parametrize("loop_of", ["asyncio", "uvloop"])
def test_the_first_of_many_commands_do_not_wait_for_the_last(own_valkey: Valkey, loop_of: str) -> None:
    """Twenty calls of one loop turn, the loop busy after them: Redis has done sixteen of them meanwhile."""
    factory = uvloop.new_event_loop if loop_of == "uvloop" else asyncio.new_event_loop

    async def main() -> None:
        link = Link(connector(own_valkey.url, timeout_s=5), timeout_s=5, name="test")
        await link.call("PING")
        calls = [asyncio.create_task(link.call("INCR", KEY)) for _ in range(20)]
        busy = asyncio.create_task(count_meanwhile())
        count, replies = await busy, await asyncio.gather(*calls)
        await link.close()
        assert count >= 16
        assert replies == list(range(1, 21))

    async def count_meanwhile() -> int:
        """Hold the loop up, for two seconds at most, and return how many calls Redis has carried out by then."""
        with redis.Redis.from_url(own_valkey.url) as client:
            ends_s = time.monotonic() + 2
            while (count := int(client.get(KEY) or 0)) < 16 and time.monotonic() < ends_s:
                time.sleep(0.01)  # noqa: ASYNC251 - to hold it up is the point
        return count

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
