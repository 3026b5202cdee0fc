"""Run one scenario from its first process to the verdict."""

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Mapping
from typing import Any

from chaos.faults import relieve_redis
from chaos.scenarios import Lane, Scenario
from chaos.stage import Stage, new_folder

SPARED = "a fault never bit"
LOGS = "logs are in"
_SETTLE_S = 40.0


class Outcome:
    """What a run showed.

    Attributes:
        verdict: As the clients' process gave it.
        bitten: What was done and what the roles said of it, counted.
        failures: Why the run does not pass, in words; empty: it does.
    """

    def __init__(self, scenario: Scenario, seed: int, verdict: Mapping[str, Any], bitten: Mapping[str, int]) -> None:
        self.scenario = scenario
        self.seed = seed
        self.verdict = verdict
        self.bitten = bitten
        self.failures: list[str] = []

    def judge(self, surprises: list[str]) -> None:
        """Hold verdict and counts against what the scenario asks for."""
        verdict, scenario = self.verdict, self.scenario
        self.failures += [f"{count} times {kind}" for kind, count in verdict["violations"].items()]
        self.failures += surprises
        if verdict["settled_s"] >= _SETTLE_S:
            self.failures.append(f"not quiet after {_SETTLE_S:g} s")
        self.failures += [f"{SPARED}: {name}" for name in scenario.lacks(self.bitten)]
        for name, most in scenario.most.items():
            if verdict[name] > most:
                self.failures.append(f"{name} is {verdict[name]}, at most {most:g} is allowed")
        for code, count in verdict["ended"].items():
            final = code.isdigit() and (int(code) in {1000, 1002, 1005, 1007, 1008, 1009} or 4000 <= int(code) < 4500)
            if final or code.startswith("frame") or (scenario.may_end is not None and code not in scenario.may_end):
                self.failures.append(f"{count} socket(s) saw {code}")

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "scenario": self.scenario.name,
            "seed": self.seed,
            "passed": not self.failures,
            "failures": self.failures,
            "bitten": dict(self.bitten),
            **self.verdict,
        }


async def run(scenario: Scenario, seed: int) -> Outcome:
    """Run a scenario; what it is made of is ended when this returns."""
    folder = new_folder()
    options = {"workers": scenario.workers, "edges": scenario.edges, "proxied": scenario.proxied}
    async with Stage(folder, seed=seed, appendfsync=scenario.appendfsync, **options) as stage:  # type: ignore[arg-type]
        await stage.start_load(
            *("--tag", f"{seed}-{os.getpid()}", "--rooms", str(scenario.rooms), "--clients", str(scenario.clients)),
            *("--rate", str(scenario.rate_hz), "--slow", str(scenario.slow), "--quiet", str(_SETTLE_S)),
        )
        began_s = time.monotonic()
        lanes = [
            asyncio.create_task(_follow(lane, stage, random.Random(f"{seed} {number}")))
            for number, lane in enumerate(scenario.lanes)
        ]
        done, running = await asyncio.wait(lanes, timeout=scenario.seconds)
        while running and time.monotonic() - began_s < 2 * scenario.seconds and scenario.lacks(stage.count()):
            done, running = await asyncio.wait(lanes, timeout=1)  # a busy machine has had too little of its plan
        while running:  # a cancellation that comes together with a timeout inside is lost (Python 3.11): once more
            for lane in running:
                lane.cancel()
            _, running = await asyncio.wait(running, timeout=1)
        for lane in done:
            lane.result()
        fault_s = time.monotonic() - began_s
        await _mend(stage)
        verdict = await stage.verdict()
        outcome = Outcome(scenario, seed, {"fault_s": round(fault_s, 1), **verdict}, stage.count())
        outcome.judge(stage.surprises)
    if outcome.failures:
        outcome.failures.append(f"{LOGS} {folder}")
    else:
        shutil.rmtree(folder)
    return outcome


async def _follow(lane: Lane, stage: Stage, rng: random.Random) -> None:
    choices = [fault for fault, _ in lane.choices]
    weights = [weight for _, weight in lane.choices]
    count = 0
    while not lane.most or count < lane.most:
        await asyncio.sleep(rng.uniform(*lane.pause_s))
        fault = choices[count % len(choices)] if lane.in_turn else rng.choices(choices, weights)[0]
        await fault(stage, rng)
        count += 1


async def _mend(stage: Stage) -> None:
    """End what a fault that was interrupted may have left behind; everybody runs again."""
    for proxy in stage.proxies.values():
        proxy.heal()
    if stage.valkey.process is not None and stage.valkey.process.poll() is not None:
        await asyncio.to_thread(stage.valkey.start)
    for role in stage.roles:
        if role.frozen:
            role.signal(signal.SIGCONT)
    await relieve_redis(stage)
    async with asyncio.timeout(_SETTLE_S):
        for role in stage.roles:
            while not role.ready:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
