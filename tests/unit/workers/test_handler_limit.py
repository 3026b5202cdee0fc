"""The clock beside a waiting hook."""

import asyncio
import time

import pytest

from innkeeper_workers.handler_limit import HandlerLimit


@pytest.mark.parametrize(("frozen_s", "waits_s", "is_cut"), [(0.0, 1.0, True), (0.3, 0.1, False), (0.3, 1.0, True)])
async def test_time_in_which_nothing_ran_is_given_back_once(frozen_s: float, waits_s: float, is_cut: bool) -> None:
    """A hook that would have ended in time is not cut because the process stood still; one that hangs is, later."""
    loop, cuts = asyncio.get_running_loop(), list[float]()
    limit = HandlerLimit(loop, lambda: cuts.append(loop.time()))
    limit.start(0.15)
    hook = asyncio.create_task(asyncio.sleep(waits_s))
    hook.add_done_callback(lambda _: limit.stop())
    await asyncio.sleep(0)
    time.sleep(frozen_s)  # noqa: ASYNC251 - that is what is tested
    await asyncio.sleep(0.6)
    assert bool(cuts) is is_cut
    hook.cancel()
    limit.stop()
