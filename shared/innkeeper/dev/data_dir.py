"""The folder ``.innkeeper`` in which a development house keeps its rooms: one house at a time."""

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from innkeeper.errors import InnkeeperError
from innkeeper.supervise.role import STOP_GRACE_S

logger = logging.getLogger("innkeeper.dev")

POLL_PERIOD_S = 0.02


class DataDirBusy(InnkeeperError):
    """Another ``innkeeper dev`` uses the folder; two servers on one set of files would ruin it."""


@contextlib.contextmanager
def locked_data_dir(path: Path) -> Iterator[Path]:
    """Make the folder if need be and hold it while the block runs; yield its absolute path.

    The lock belongs to the open file, so the kernel frees it however this process ends.

    Raises:
        DataDirBusy: Somebody else holds it; nothing was touched.
    """
    path = path.resolve()
    path.mkdir(parents=True, exist_ok=True)
    ignore_path = path / ".gitignore"
    if not ignore_path.exists():
        ignore_path.write_text("*\n")
    with (path / "lock").open("a+") as lock:
        _take(lock, path)
        yield path


def _take(lock: IO[str], path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        raise DataDirBusy(
            f"{path} is in use by another innkeeper dev (process {holder}); stop it, or choose another --data-dir"
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()


def end_left_over(pid_path: Path, mark: str, *, grace_s: float = STOP_GRACE_S) -> None:
    """End a server that a killed house left behind, and return when it is gone.

    Only a process whose command line holds ``mark`` is touched: its number may belong to somebody else by now.

    Args:
        pid_path: Where the server wrote its process id; need not exist.
        mark: Text of the command line that no other program has, such as the folder it works in.
        grace_s: Seconds from SIGTERM to SIGKILL.
    """
    try:
        pid = int(pid_path.read_text())
    except (FileNotFoundError, ValueError):
        return
    if mark not in _command_line(pid):
        return
    logger.info("ending the server that an earlier run left behind (process %s)", pid)
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_number)
        deadline_monotonic_s = time.monotonic() + grace_s
        while time.monotonic() < deadline_monotonic_s:
            if mark not in _command_line(pid):  # gone, or a zombie, whose command line is empty
                return
            time.sleep(POLL_PERIOD_S)


def _command_line(pid: int) -> str:
    """Return the command line of a process, or nothing if there is none."""
    if Path("/proc/self/cmdline").exists():
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout
