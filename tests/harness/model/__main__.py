"""``make model`` and ``make mutants``: many seeds over all cores; each broken act until it is caught."""

import argparse
import os
import sys
from collections.abc import Sequence

from harness.model.cores import model
from harness.model.mutants import MUTANTS
from harness.model.run import STEPS, hunt
from harness.valkey import Valkey


def mutants(most: int, only: str) -> int:
    """Hunt every mutant, or the one named; print who was caught by what. Return 1 if one survived."""
    survivors = 0
    server = Valkey()
    print(f"{'mutant':<28} {'seed':>5} {'caught by':>9}  first violation")
    try:
        for mutant in MUTANTS:
            if only not in ("", mutant.name):
                continue
            found = hunt(server.port, mutant, most=most)
            survivors += found.first is None
            how = found.first.law if found.first else f"SURVIVED, although {mutant.breaks}"
            seed = found.first.seed if found.first else "-"
            print(f"{mutant.name:<28} {seed:>5} {found.caught:>3} of {found.seeds:<3} {how}", flush=True)
            if only and found.first is not None:
                print(found.first.report())
    finally:
        server.stop()
    return int(survivors > 0)


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
