"""Waiting for conditions, and looking at processes from outside."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

PERIOD_S = 0.02


async def eventually(condition: Callable[[], object], what: Callable[[], object], *, within_s: float = 15.0) -> None:
    """Wait until a condition holds, or fail with what was seen instead."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while not condition():
        assert loop.time() < deadline_s, f"not within {within_s:g} s; seen: {what()}"
        await asyncio.sleep(PERIOD_S)


def alive(pid: int) -> bool:
    """Return whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def processes_with(mark: str) -> list[int]:
    """Return the processes that have ``NAME=value`` in their environment, as one test gave it to its children."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                entry.name.isdigit()
                and mark.encode() + b"\0" in (entry / "environ").read_bytes()
                and alive(int(entry.name))
            ):
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def none_left(mark: str) -> Iterator[None]:
    """Kill what a failed test left running; whether something was left is the tests' own question."""
    try:
        yield
    finally:
        for pid in processes_with(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
