"""``make fuzz``: noise against the parsers in this process, and a share of it against a real edge; a seed is a run."""

import argparse
import asyncio
import faulthandler
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

from fuzz.run import fuzz_edge, fuzz_parsers

SOCKET_SHARE = 200  # one connection to a real edge for so many inputs
HANG_S = 60


def main() -> int:
    """Fuzz, print the figures, and return 1 where anything broke."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)
    faulthandler.dump_traceback_later(HANG_S + options.inputs / 1_000, exit=True)
    print(f"seed {options.seed}", flush=True)
    began_s = time.monotonic()
    report = asyncio.run(fuzz_parsers(options.inputs, options.seed))
    print(f"{report} in {time.monotonic() - began_s:.1f} s", flush=True)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        problems = asyncio.run(fuzz_edge(Path(folder), max(1, options.inputs // SOCKET_SHARE), options.seed))
    print(f"{max(1, options.inputs // SOCKET_SHARE):,} connections to an edge in {time.monotonic() - began_s:.1f} s")
    for problem in (*report.problems, *problems):
        print(problem, file=sys.stderr)
    return 1 if report.problems or problems else 0


if __name__ == "__main__":
    sys.exit(main())
