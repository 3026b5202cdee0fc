"""Runs of the fuzzer: in this process at full speed, and over real sockets."""

import asyncio
import logging
import random
import re
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.noise import mutate
from fuzz.targets import Targets
from harness.house import House
from harness.rawsocket import TEXT, connect, frame, request_head

SLOW_S = 1.0
GROWTH_BYTES = 50 * 2**20
_AT_ONCE = 20
_PROBLEMS = 20


@dataclass
class Report:
    """What a run has seen."""

    inputs: int = 0
    slowest_s: float = 0.0
    grown_bytes: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.inputs:,} inputs, {len(self.problems)} problem(s), slowest {self.slowest_s * 1000:.1f} ms, "
            f"memory {self.grown_bytes / 2**20:+.1f} MiB"
        )


def _rss_bytes() -> int:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text("utf-8"))[0]) * 1024


async def fuzz_parsers(inputs: int, seed: int) -> Report:
    """Feed all targets in turn; every error that is not documented, and every input over a second, is a problem."""
    rng = random.Random(seed)
    targets = Targets(rng)
    report = Report()
    before_bytes = 0
    for number in range(inputs):
        if number == min(5_000, inputs // 2):
            before_bytes = _rss_bytes()  # all is warm now
        target = targets.all[number % len(targets.all)]
        began_s = time.perf_counter()
        try:
            target()
        except Exception:  # noqa: BLE001 - that is what is looked for
            report.problems.append(f"seed {seed}, input {number}, {target.__name__}:\n{traceback.format_exc()}")
        took_s = time.perf_counter() - began_s
        report.slowest_s = max(report.slowest_s, took_s)
        if took_s > SLOW_S:
            report.problems.append(f"seed {seed}, input {number}, {target.__name__}: took {took_s:.1f} s")
        if len(report.problems) >= _PROBLEMS:
            break
        if number % 1_000 == 0:
            await asyncio.sleep(0)
    report.inputs = number + 1
    report.grown_bytes = _rss_bytes() - before_bytes
    if report.grown_bytes > GROWTH_BYTES:
        report.problems.append(f"seed {seed}: memory grew by {report.grown_bytes:,} bytes")
    return report


async def fuzz_edge(folder: Path, connections: int, seed: int) -> list[str]:
    """Send noise to a real edge over real sockets; return what is wrong: it must live, log no error, serve as ever."""
    rng = random.Random(seed)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    problems: list[str] = []
    async with House(folder, edges=0, workers=1) as house:
        await house.add_edge("--head-s", "1", "--handshake-rate", "0", "--log-level", "warning")
        edge = house.edges[0]
        port = edge.facts["port"]
        honest = await house.join("ledger/honest")
        turns = asyncio.Semaphore(_AT_ONCE)

        async def bother(data: bytes) -> None:
            async with turns, connect(port) as socket:
                try:
                    await socket.send(data)
                    async with asyncio.timeout(0.05):
                        await socket.rest()
                except (OSError, TimeoutError):
                    pass

        streams = []
        for number in range(connections):
            head = request_head(f"/parties/rawecho/{number % 50}", {"Sec-WebSocket-Protocol": "innkeeper.v1"})
            noise = rng.randbytes(rng.randrange(400))
            body = b"".join(mutate(rng, frame(rng.randrange(16), noise)) for _ in range(3))
            streams.append(mutate(rng, head) if rng.random() < 0.5 else head + body)
        await asyncio.gather(*(bother(data) for data in streams))
        began_s = time.monotonic()
        await honest.send({"i": 1})
        await honest.expect(lambda f: f.get("i") == 1, "its answer")
        if time.monotonic() - began_s > SLOW_S:
            problems.append(f"an honest client waited {time.monotonic() - began_s:.1f} s")
        async with connect(port) as socket:
            await socket.send(request_head("/parties/rawecho/after") + frame(TEXT, b"still here"))
            if (await socket.answer()).status != 101 or (await socket.frame()).payload != b"still here":
                problems.append("the edge does not serve as ever")
        if edge.process.poll() is not None:
            problems.append(f"the edge has ended with {edge.process.poll()}")
        logs = [role.log for role in (edge, house.workers[0])]
        problems += [log[-3_000:] for log in logs if "Traceback" in log or " ERROR " in log]
    return problems
