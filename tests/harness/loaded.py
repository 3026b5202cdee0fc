"""What load tests share: a steady talk whose delays are kept, memory, and what Redis was asked for."""

import asyncio
import contextlib
import os
import random
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from harness.house import Client, House

SEED = int(os.environ.get("INNKEEPER_TEST_SEED") or random.randrange(10**6))


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("utf-8"))[0]) * 1024


class Voice:
    """A client that speaks steadily and hears itself."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.sent_at_s: list[float] = []

    async def speak(self, rate_hz: float, *, part: float = 0.0) -> None:
        """Speak until cancelled, the first time after a part of the time between two messages."""
        await asyncio.sleep(part / rate_hz)
        next_s = time.monotonic()
        while True:
            self.sent_at_s.append(time.monotonic())
            await self.client.send({"i": len(self.sent_at_s) - 1})
            next_s = max(next_s + 1 / rate_hz, time.monotonic())
            await asyncio.sleep(next_s - time.monotonic())

    def delays(self) -> list[tuple[float, float]]:
        """Return of each message that came back when it was sent, and how long it took, in seconds."""
        heard = zip(self.client.got, self.client.got_at_s, strict=True)
        sent = self.sent_at_s
        return [(sent[f["i"]], at_s - sent[f["i"]]) for f, at_s in heard if isinstance(f, dict) and "i" in f]


class Talk:
    """Some rooms in each of which one client speaks steadily.

    Attributes:
        delays: Of each message that came back when it was sent, and how long it took, in seconds.
        sent_count: Messages sent.
        codes: What the clients were closed with, None: nothing.
    """

    def __init__(self) -> None:
        self.delays: list[tuple[float, float]] = []
        self.sent_count = 0
        self.codes: list[int | None] = []

    def p99_ms(self, since_s: float, until_s: float) -> float:
        """Return the 99th percentile of what was sent in that time, in ms."""
        within = sorted(delay_s for at_s, delay_s in self.delays if since_s <= at_s < until_s)
        return within[len(within) * 99 // 100] * 1000 if within else float("inf")


@contextlib.asynccontextmanager
async def talking(house: House, *, edge: int, rooms: int, rate_hz: float) -> AsyncIterator[Talk]:
    """Talk until the end of the block; the figures are there after it."""
    talk = Talk()
    voices = [Voice(await house.join(f"ledger/talk{n}", edge=edge)) for n in range(rooms)]
    for voice in voices:
        await voice.client.expect(lambda f: "welcome" in f, "its welcome")
    # In turns: all at once they would ask only every 1 / rate_hz whether the house is quick.
    tasks = [asyncio.create_task(voice.speak(rate_hz, part=n / rooms)) for n, voice in enumerate(voices)]
    try:
        yield talk
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for voice in voices:
            with contextlib.suppress(AssertionError):  # what is missing shows in the figures
                await voice.client.numbers(len(voice.sent_at_s), timeout_s=15)
            talk.delays += voice.delays()
            talk.sent_count += len(voice.sent_at_s)
            talk.codes.append(voice.client.close_code)
            await voice.client.abort()


class Asked(NamedTuple):
    """How often Redis was asked, since it was started: calls of functions, and reads of what sessions missed."""

    at_s: float
    commands: int


async def asked(redis: Any) -> Asked:
    """Return how many commands were sent to Redis that come with sockets, a function's call being one.

    INFO counts what functions call, too. Sent by themselves are FCALL, SADD and SSUBSCRIBE; with each SSUBSCRIBE one
    HMGET, with each XRANGE another.
    """
    stats = await redis.info("commandstats")
    names = ("fcall", "sadd", "ssubscribe", "xrange")
    calls = {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names}
    return Asked(time.monotonic(), calls["fcall"] + calls["sadd"] + 2 * calls["ssubscribe"] + 2 * calls["xrange"])
