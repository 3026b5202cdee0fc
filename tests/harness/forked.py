"""Roles as processes that start in some 30 ms, forked from a server that has imported everything; used like Popen."""

import multiprocessing
import os
import signal
import subprocess
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# The one server of a test process. It imports what it finds: of a pytest run only installed modules.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["uvloop", "innkeeper.cli", "innkeeper_edge.cli", "innkeeper_workers.cli", "harness.chronicle"]
)


def fork(arguments: list[str], log_path: Path) -> tuple[Any, Connection]:
    """Start a role as ``innkeeper …`` would, in a session of its own; its logs go to a file.

    Returns:
        The process (:class:`multiprocessing.Process`), and where it says that it is ready, see :func:`ready_line`.
    """
    reading, writing = _FORKS.Pipe(duplex=False)
    given = (arguments, str(log_path), writing, dict(os.environ), str(Path.cwd()))
    process = _FORKS.Process(target=_serve, args=given, daemon=True)
    process.start()
    writing.close()
    return process, reading


def ready_line(reading: Connection) -> bytes:
    """Wait for what a role writes to say that it is ready; empty where it ended before."""
    with os.fdopen(os.dup(reading.fileno()), "rb") as pipe:
        line = pipe.readline()
    reading.close()
    return line


def _serve(arguments: list[str], log_path: str, ready: Connection, environment: dict[str, str], folder: str) -> None:
    os.setsid()
    fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.environ["INNKEEPER_READY_FD"] = str(os.dup(ready.fileno()))
    os.environ["INNKEEPER_PARENT_PID"] = str(os.getppid())
    os.chdir(folder)
    from innkeeper.cli import main  # noqa: PLC0415 - imported long ago, by the server this was forked from

    main.main(arguments, prog_name="innkeeper")


class Forked:
    """One role's process, with the part of Popen's interface that tests use.

    Attributes:
        pid: Its process.
        ready_line: What it wrote to say that it is ready; empty where it ended before.
    """

    def __init__(self, arguments: list[str], log_path: Path) -> None:
        self._process, reading = fork(arguments, log_path)
        self.pid: int = self._process.pid
        self.ready_line = ready_line(reading)

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the signal that ended it, or None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: It has not.
        """
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("innkeeper", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)
