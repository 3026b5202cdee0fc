"""The role's side of the contract: say when ready, and do not outlive the process that started us.

Both facts travel in the environment, so that a role started by hand, by systemd or in a container needs nothing.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any

READY_FD_VARIABLE = "INNKEEPER_READY_FD"
PARENT_PID_VARIABLE = "INNKEEPER_PARENT_PID"
PARENT_POLL_S = 1.0
STOP_GRACE_S = 10.0

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def announce_ready(**facts: Any) -> None:
    """Tell the process that started this one that it is ready; does nothing when nobody asked.

    Call it once, as soon as work can be accepted: one JSON line goes to the parent, then the pipe is closed and the
    variable removed, so that no process started later announces in our place.

    Args:
        facts: What the parent has to know, values fit for JSON; an edge gives its ``port``.
    """
    number = os.environ.pop(READY_FD_VARIABLE, None)
    if number is None:
        return
    line = json.dumps({"ready": True, **facts}) + "\n"
    try:
        with os.fdopen(int(number), "wb") as pipe:
            pipe.write(line.encode())
    except BrokenPipeError:
        return  # the parent has gone or given up waiting; following it is not this function's matter


def follow_parent(*, grace_s: float = STOP_GRACE_S) -> None:
    """Make this process end when the one that started it has gone, however that went; call it first of all.

    Does nothing unless ``INNKEEPER_PARENT_PID`` is set; the variable is removed. Linux sends SIGTERM itself at that
    moment; elsewhere a thread that looks every second does. If this process has not ended ``grace_s`` later, nobody is
    left to kill it, so it kills itself.

    Args:
        grace_s: Seconds between SIGTERM and SIGKILL.
    """
    value = os.environ.pop(PARENT_PID_VARIABLE, None)
    if value is None:
        return
    parent_pid = int(value)
    told_by_kernel = die_with_parent(parent_pid)
    threading.Thread(
        target=_follow, args=(parent_pid, told_by_kernel, grace_s), name="innkeeper-follow-parent", daemon=True
    ).start()


def die_with_parent(parent_pid: int) -> bool:
    """Ask the kernel to send this process SIGTERM when its parent dies; return whether it will.

    Survives ``exec``, so it also binds programs that know nothing of us (between fork and exec). If the parent died
    before the kernel was asked, SIGTERM is sent here.
    """
    if _LIBC is None or _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        return False
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGTERM)
    return True


def _follow(parent_pid: int, told_by_kernel: bool, grace_s: float) -> None:
    while os.getppid() == parent_pid:
        time.sleep(PARENT_POLL_S)
    if not told_by_kernel:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os.kill(os.getpid(), signal.SIGKILL)
