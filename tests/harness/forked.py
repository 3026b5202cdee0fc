"""Roles as processes that start in some 30 ms, forked from a server that has imported everything; used like Popen."""

import multiprocessing
import os
import signal
import subprocess
from multiprocessing.connection import Connection
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
# Installed modules only: the server does not find those of the tests.
_FORKS.set_forkserver_preload(["uvloop", "innkeeper.cli", "innkeeper_edge.cli", "innkeeper_workers.cli"])


def _serve(arguments: list[str], log_path: str, ready: Connection, environment: dict[str, str], folder: str) -> None:
    """Be the role, as ``innkeeper …`` would in a session of its own; its logs go to a file."""
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
        reading, writing = _FORKS.Pipe(duplex=False)
        given = (arguments, str(log_path), writing, dict(os.environ), str(Path.cwd()))
        self._process = _FORKS.Process(target=_serve, args=given, daemon=True)
        self._process.start()
        writing.close()
        assert self._process.pid is not None
        self.pid = self._process.pid
        with os.fdopen(os.dup(reading.fileno()), "rb") as pipe:
            self.ready_line = pipe.readline()
        reading.close()

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the signal that ended it, or None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: It has not.
        """
        self._process.join(timeout)
        code = self._process.exitcode
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
