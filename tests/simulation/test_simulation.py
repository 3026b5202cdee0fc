"""The whole system under seeded faults, in one process on virtual time; ``make simulate`` runs many more seeds."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness.simulation.run import simulate

SEEDS = 100
EVENTS = 30
_PIECES = 2
_TESTS = str(Path(__file__).parents[1])


@pytest.mark.parametrize("piece", range(_PIECES))
def test_every_promise_is_kept(piece: int) -> None:
    """Whatever is killed, stopped, cut, held up or lost: each event once, in order, shown to all, and nothing left."""
    bitten: Counter[str] = Counter()
    for seed in range(1 + piece * SEEDS // _PIECES, 1 + (piece + 1) * SEEDS // _PIECES):
        outcome = simulate(str(seed), event_count=EVENTS)
        assert outcome.violations == [], f"make simulate SEED={seed} EVENTS={EVENTS}"
        bitten += outcome.bitten
    print(dict(bitten))
    needed = ("takeovers", "fills", "wires cut", "replies dropped", "workers killed", "edges killed", "edges stopped")
    assert {name: bitten[name] for name in needed if not bitten[name]} == {}


def test_a_seed_reproduces_its_run_byte_by_byte() -> None:
    """The same seed gives the same bytes at the same moments, here and in a process that hashes text differently."""
    here = simulate("5").digest
    again = simulate("5", keep_trace=True)
    program = "from harness.simulation.run import simulate; print(simulate('5').digest)"
    environment = {**os.environ, "PYTHONPATH": _TESTS, "PYTHONHASHSEED": "77"}
    there = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert [again.digest, there.stdout.strip()] == [here, here]
    assert again.lines
    assert simulate("6").digest != here
