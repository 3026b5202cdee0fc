"""``python -m chaos SCENARIO…``: run scenarios, print a table, write JSON."""

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

import uvloop

from chaos.run import Outcome, run
from chaos.scenarios import SCENARIOS, scaled

_SHOWN = (
    "fault_s", "rooms", "sockets", "sent", "sent_per_s", "applied", "outputs", "joins", "leaves", "settled_s",
    "echo_p50_ms", "echo_p99_ms", "echo_max_ms", "handovers", "handover_p50_ms", "handover_p99_ms", "handover_max_ms",
)  # fmt: skip


def show(outcome: Outcome) -> None:
    """Print one run as a table."""
    print(f"\n{outcome.scenario.name}: {'FAILED' if outcome.failures else 'passed'}   SEED={outcome.seed}")
    rows = {name: outcome.verdict[name] for name in _SHOWN if name in outcome.verdict}
    rows |= {f"closed {code}": count for code, count in sorted(outcome.verdict["ended"].items())}
    rows |= dict(sorted(outcome.bitten.items()))
    for name, figure in rows.items():
        print(f"  {name:28} {figure:>12,.1f}" if isinstance(figure, float) else f"  {name:28} {figure:>12,}")
    print(f"  {'violations':28} {sum(outcome.verdict['violations'].values()):>12,}")
    for failure in outcome.failures:
        print(f"  FAILED: {failure}")
    for example in outcome.verdict["examples"]:
        print(f"    {example}")
    sys.stdout.flush()


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("scenarios", nargs="+", choices=SCENARIOS)
    parser.add_argument("--seconds", type=float, default=0, help="of faults, instead of the scenario's own")
    parser.add_argument("--seed", type=int, default=0, help="0 draws one; it is printed")
    parser.add_argument("--rooms", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0, help="messages a second over all rooms")
    parser.add_argument("--results", type=Path, default=Path("tests/chaos/results"))
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in options.scenarios:
        seed = options.seed or random.SystemRandom().randrange(1, 10**6)
        print(f"{name}: SEED={seed}", flush=True)
        scenario = SCENARIOS[name]
        scenario = scaled(
            scenario, seconds=options.seconds or scenario.seconds, rooms=options.rooms, rate_hz=options.rate
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(run(scenario, seed))
        show(outcome)
        path = options.results / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}-{seed}.json"
        path.write_text(json.dumps(outcome.as_json(), indent=1), encoding="utf-8")
        failed = failed or bool(outcome.failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
