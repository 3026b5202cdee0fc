"""The acts under random faults on a real server, every step judged; and broken acts, which must not get through.

`make model` runs many more seeds and `make mutants` all mutants.
"""

from functools import partial

import pytest

from harness.model.mutants import MUTANTS, Mutant
from harness.model.run import SHORT_STEPS, hunt, missing, run_seeds
from harness.valkey import Valkey

SEEDS = 200


@pytest.mark.timeout(180)
def test_nothing_is_lost_doubled_or_reordered(valkey: Valkey) -> None:
    """Whatever is lost, late, repeated, stolen or rolled back: one history, every accepted event in it once."""
    verdict = run_seeds(valkey.port, range(1, SEEDS + 1), steps=SHORT_STEPS)
    assert not verdict.failures, verdict.failures[0].report()
    assert verdict.seeds == SEEDS
    assert missing(verdict) == []


def test_a_seed_is_a_run(valkey: Valkey) -> None:
    """The same seeds take the same steps with the same outcome, whatever runs beside them."""
    run = partial(run_seeds, valkey.port, steps=SHORT_STEPS)
    both, one, other = run([11, 12]), run([12]), run([11])
    assert both.counts == one.counts + other.counts
    assert one.counts != other.counts


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_broken_act_is_caught(valkey: Valkey, mutant: Mutant) -> None:
    """Each deliberately broken act violates something; most within a few seeds, none takes 300."""
    found = hunt(valkey.port, mutant, most=300, at_once=6, to_the_end=False)
    assert found.first is not None, f"{mutant.name} survived {found.seeds} seeds, although {mutant.breaks}"


PLAIN = ("no dedupe", "no input check", "no contiguity", "repeat applied", "inbox trimmed too far", "reaped twice")


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.name in PLAIN], ids=lambda each: each.name)
def test_the_promises_alone_catch_it(valkey: Valkey, mutant: Mutant) -> None:
    """What the outlog tells and members see is enough to catch what breaks a promise, without the laws of the acts."""
    assert run_seeds(valkey.port, range(1, 5), steps=SHORT_STEPS, holds_laws=False).failures == []
    found = hunt(valkey.port, mutant, most=24, at_once=6, to_the_end=False, holds_laws=False)
    assert found.first is not None, f"{mutant.name} survived {found.seeds} seeds, although {mutant.breaks}"
