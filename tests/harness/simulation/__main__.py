"""``make simulate``: run many seeds on all cores, tell what bit, and how to see again what broke."""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from harness.simulation.run import Outcome, simulate

_TELL_EVERY_S = 30.0
_TRACE_TAIL = 150


def _run(work: tuple[str, int | None]) -> Outcome:
    seed, event_count = work
    try:
        return simulate(seed, event_count=event_count)
    except Exception as error:  # noqa: BLE001 - the other seeds go on
        return Outcome(seed, violations=[f"the simulation itself failed: {error!r}"])


def _outcomes(seeds: range, event_count: int | None, jobs: int) -> Iterator[Outcome]:
    work = [(str(seed), event_count) for seed in seeds]
    if jobs == 1:
        yield from map(_run, work)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(_run, work, chunksize=4)


def _many(seeds: range, event_count: int | None, jobs: int) -> int:
    started_s = told_s = time.perf_counter()
    bitten: Counter[str] = Counter()
    violated = count = 0
    virtual_s = 0.0
    for count, outcome in enumerate(_outcomes(seeds, event_count, jobs), 1):
        bitten += outcome.bitten
        virtual_s += outcome.virtual_s
        if outcome.violations:
            violated += 1
            more = f" EVENTS={event_count}" if event_count is not None else ""
            print(f"seed {outcome.seed} violates; again, with a trace: make simulate SEED={outcome.seed}{more}")
            for violation in outcome.violations[:5]:
                print(f"  {violation}", flush=True)
        if time.perf_counter() - told_s > _TELL_EVERY_S:
            told_s = time.perf_counter()
            print(f"{count} of {len(seeds)} seeds, {violated} violate", flush=True)
    took_s = time.perf_counter() - started_s
    for name, times in sorted(bitten.items()):
        print(f"{times:10,} {name}")
    print(
        f"{count:,} seeds from {seeds.start} on, {violated} violate; {took_s:.0f} s on {jobs} core(s), "
        f"{count / took_s:.1f} seeds/s, {virtual_s / 3600:.1f} h of virtual time"
    )
    return 1 if violated else 0


def _one(seed: str, event_count: int | None) -> int:
    outcome = simulate(seed, event_count=event_count, keep_trace=True)
    for line in list(outcome.lines)[-_TRACE_TAIL:]:
        print(line)
    for name, times in sorted(outcome.bitten.items()):
        print(f"{times:10,} {name}")
    print(f"seed {seed}: {outcome.steps:,} steps, {outcome.virtual_s:.3f} virtual s, trace {outcome.digest}")
    for violation in outcome.violations:
        print(f"VIOLATED {violation}")
    return 1 if outcome.violations else 0


def main() -> int:
    """Run what the command line asks for; return the exit code, 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", help="run this one alone and show its trace")
    parser.add_argument("--events", type=int, help="events in a run (default: drawn from the seed)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    if asked.seed:
        return _one(asked.seed, asked.events)
    return _many(range(asked.first, asked.first + asked.seeds), asked.events, asked.jobs)


if __name__ == "__main__":
    sys.exit(main())
