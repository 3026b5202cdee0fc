"""One run from one seed: what happened, what did not hold, and a hash of every byte and moment of it."""

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import secrets
import sys
import time
import warnings
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from harness.simulation.cast import Cast, NotedFleet, NoWatchdog, check_redis, stop_asked
from harness.simulation.judge import Judge
from harness.simulation.loop import NOBODY, PROCESS, VirtualLoop
from harness.simulation.record import Record
from harness.simulation.scenario import Scenario
from harness.simulation.server import SimulatedRedis
from harness.simulation.wires import Network
from innkeeper import memory
from innkeeper_workers import cli as worker_cli

EPOCH_S = 1_700_000_000.0
_QUIET_WITHIN_S = 45.0
_TRACE_LINES = 20_000
_END_S = 40.0


@dataclass
class Outcome:
    """What came of a run."""

    seed: str
    violations: list[str] = field(default_factory=list)
    bitten: Counter[str] = field(default_factory=Counter)
    digest: str = ""
    virtual_s: float = 0.0
    steps: int = 0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_TRACE_LINES))


class Trace:
    """Everything that arrives anywhere, hashed; the last lines are kept to be read."""

    def __init__(self, loop: VirtualLoop, outcome: Outcome, *, keep: bool) -> None:
        self._loop = loop
        self._outcome = outcome
        self._hash = hashlib.blake2b(digest_size=16)
        self._keep = keep

    def bytes_arrived(self, way: str, wire: str, data: bytes) -> None:
        """Take what came over a wire."""
        self._hash.update(b"%.7f %b %b " % (self._loop.now_s, way.encode(), wire.encode()))
        self._hash.update(data)
        if self._keep:
            self._add(f"{wire:12} {way} {_shorten(data)}")

    def note(self, line: str) -> None:
        """Take a line."""
        self._hash.update(f"{self._loop.now_s:.7f} {line}\n".encode())
        self._add(line)

    def _add(self, line: str) -> None:
        self._outcome.lines.append(f"{self._loop.now_s:10.6f} {line}")

    def digest(self) -> str:
        """Return the hash of all of it."""
        return self._hash.hexdigest()


def _shorten(data: bytes) -> str:
    words = data.decode(errors="replace").split("\r\n")
    words = [word for word in words if word and not (word[0] in "$*" and word[1:].lstrip("-").isdigit())]
    return " ".join(word if len(word) < 120 else word[:100] + "…" for word in words)[:600]


class _Logs(logging.Handler):
    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.INFO)
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        process = PROCESS.get(None)
        self._trace.note(f"{process.name if process else '-':12} ! {record.getMessage()}")


def _ignore(unraisable: object) -> None:
    del unraisable  # killed tasks are collected afterwards


def _process_number() -> int:
    process = PROCESS.get(None)
    return zlib.crc32(process.name.encode()) if process is not None else 0


@contextmanager
def _one_world(loop: VirtualLoop, seed: str) -> Iterator[list[SimulatedRedis]]:
    """Give all code one clock and one source of chance, the seed's; yields a list to put the server into."""
    servers: list[SimulatedRedis] = []
    chance = random.Random(f"{seed}/secrets")

    def server_clock() -> float:
        return EPOCH_S + loop.now_s + sum(server.clock_ahead_s for server in servers)

    def token_hex(size: int) -> str:
        return chance.randbytes(size).hex()

    product = logging.getLogger("innkeeper")
    level, propagate = product.level, product.propagate
    product.setLevel(logging.INFO)
    product.propagate = False
    with (
        mock.patch.object(time, "time", server_clock),
        mock.patch.object(time, "process_time", float),  # what it takes in truth differs from run to run
        mock.patch.object(secrets, "token_hex", token_hex),
        mock.patch.object(secrets, "randbelow", chance.randrange),
        mock.patch.object(os, "getpid", _process_number),
        mock.patch.object(memory, "_BURST_COUNT", 10**9),  # real memory is of no interest here
        mock.patch.object(worker_cli, "stop_asked", stop_asked),
        mock.patch.object(worker_cli, "check_redis", check_redis),
        mock.patch.object(worker_cli, "Watchdog", NoWatchdog),
        mock.patch.object(worker_cli, "Fleet", NotedFleet),
        mock.patch.object(sys, "unraisablehook", _ignore),
    ):
        try:
            yield servers
        finally:
            product.setLevel(level)
            product.propagate = propagate


def simulate(
    seed: str, *, event_count: int | None = None, only_faults: tuple[str, ...] | None = None, keep_trace: bool = False
) -> Outcome:
    """Run one seed.

    Args:
        seed: Any text; equal texts give equal runs.
        event_count: How many clients' acts and faults; None lets the seed draw it.
        only_faults: The methods of :class:`Scenario` to use as faults; None lets the seed draw them.
        keep_trace: Whether to keep readable lines of all that arrives (half the speed).
    """
    outcome = Outcome(seed)
    loop = VirtualLoop()
    record = Record(loop.time)
    trace = Trace(loop, outcome, keep=keep_trace)
    logs = _Logs(trace)
    product = logging.getLogger("innkeeper")
    product.addHandler(logs)
    try:
        with _one_world(loop, seed) as servers:
            redis = SimulatedRedis(loop, record.tap)
            servers.append(redis)
            record.peek = redis.peek
            network = Network(loop, redis, seed, trace.bytes_arrived)
            cast = Cast(loop, network, seed, trace.note)
            scenario = Scenario(cast, network, redis, seed=seed, event_count=event_count, only_faults=only_faults)
            judge = Judge(cast, record, redis)
            try:
                loop.run_until_complete(NOBODY.run(loop.create_task, _run(scenario, judge, outcome)))
            finally:
                loop.close()
    finally:
        product.removeHandler(logs)
    outcome.violations[:0] = loop.failures
    outcome.bitten = network.bitten + record.bitten
    for role in cast.edges:
        if role.edge is not None:
            outcome.bitten["fills"] += role.edge.fill_count
            outcome.bitten["resyncs"] += role.edge.resync_count
    outcome.digest, outcome.virtual_s, outcome.steps = trace.digest(), loop.now_s, loop.step_count
    return outcome


async def _run(scenario: Scenario, judge: Judge, outcome: Outcome) -> None:
    try:
        await _play(scenario, judge, outcome)
    finally:
        _bury(scenario.cast)


async def _play(scenario: Scenario, judge: Judge, outcome: Outcome) -> None:
    loop = scenario.loop
    await scenario.play()
    scenario.calm()
    judge.calm_since_s = loop.now_s
    deadline_s = loop.now_s + _QUIET_WITHIN_S
    quiet_looks = 0
    while quiet_looks < 2:  # what a process that was stopped has yet to read shows only a little later
        unrest = list(judge.unrest())
        quiet_looks = 0 if unrest else quiet_looks + 1
        if loop.now_s > deadline_s:
            outcome.violations += [f"no rest after {_QUIET_WITHIN_S:g} s: {what}" for what in unrest]
            break
        await asyncio.sleep(0.25)
    outcome.violations += judge.violations()
    await _end(scenario, judge, outcome)
    await asyncio.sleep(2.1)  # a room whose hook was cut in the end keeps its lock for a lease
    if not outcome.violations:
        outcome.violations += judge.leftovers()


async def _end(scenario: Scenario, judge: Judge, outcome: Outcome) -> None:
    """End all processes as SIGTERM does, edges first."""
    for roles in (scenario.cast.edges, scenario.cast.workers):
        ending = [role for role in roles if role.is_alive]
        for role in ending:
            scenario.cast.ask_to_end(role)
        tasks: list[asyncio.Task[Any]] = [role.main for role in ending if role.main is not None]
        await asyncio.wait(tasks, timeout=_END_S)
        for _ in range(100):  # sockets may linger, last leaves may wait
            if any(role.open_tasks for role in ending) or list(judge.backlogs()):
                await asyncio.sleep(0.1)
        for role in ending:
            if role.main is None or not role.main.done():
                outcome.violations.append(f"{role.name} did not end within {_END_S:g} s")
            elif role.main.exception() is not None:
                outcome.violations.append(f"{role.name} failed: {role.main.exception()!r}")
            elif role.main.result() != 0:
                outcome.violations.append(f"{role.name} ended with {role.main.result()}")
            if role.open_tasks:
                outcome.violations.append(f"{role.name} left tasks: {role.open_tasks}")


def _bury(cast: Cast) -> None:
    """Unwind what killed processes left, now that it can do nothing any more; else the collector would, at any time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coroutines that they still make are never awaited
        for role in (*cast.edges, *cast.workers):
            for task in role.open_tasks:
                with contextlib.suppress(BaseException):
                    task.get_coro().close()
