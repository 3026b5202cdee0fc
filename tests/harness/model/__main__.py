"""``make model`` and ``make mutants``: many seeds over all cores; each broken act until it is caught."""

import argparse
import os
import sys
from collections.abc import Sequence

from harness.model.cores import model
from harness.model.mutants import MUTANTS
from harness.model.run import STEPS, WIDTH, Hunt, hunt
from harness.valkey import Valkey

_PROMISE_SEEDS = 4 * WIDTH


def mutants(most: int, only: str) -> int:
    """Hunt every mutant, or the one named; print who was caught by what. Return 1 if one survived.

    The last columns hold the same seeds against the promises alone: an act may break a law long before a promise.
    """
    survivors = 0
    server = Valkey()
    print(f"{'mutant':<28} {'seed':>5} {'caught by':>9}  {'first violation':<42} promises alone")
    try:
        for mutant in MUTANTS:
            if only not in ("", mutant.name):
                continue
            found = hunt(server.port, mutant, most=most)
            broken = hunt(server.port, mutant, most=_PROMISE_SEEDS, holds_laws=False)
            survivors += found.first is None
            seed, how = _told(found)
            how = how or f"SURVIVED, although {mutant.breaks}"
            promise_seed, promise = _told(broken)
            print(f"{mutant.name:<28} {seed:>5} {found.caught:>3} of {found.seeds:<3} {how:<42}", end="", flush=True)
            print(f" {promise_seed:>3} {promise}", flush=True)
            if only and found.first is not None:
                print(found.first.report())
    finally:
        server.stop()
    return int(survivors > 0)


def _told(found: Hunt) -> tuple[str, str]:
    return (str(found.first.seed), found.first.law) if found.first else ("-", "")


def main(arguments: Sequence[str]) -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="harness.model")
    parser.add_argument("what", choices=("model", "mutants"))
    parser.add_argument("--seeds", type=int, default=10_000, help="how many; for mutants: at most, each")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--steps", type=int, default=STEPS, help="random steps a seed")
    parser.add_argument("--only", default="", help="one mutant's name")
    options = parser.parse_args(arguments)
    if options.what == "mutants":
        return mutants(options.seeds, options.only)
    return model(options.first, options.seeds, options.steps, os.cpu_count() or 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
