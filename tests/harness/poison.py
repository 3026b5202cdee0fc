"""Rooms that harm: their hooks do what an event, a name or the room itself says. Run by real workers only."""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from innkeeper import Connection, Room

_MEMORY_BYTES = 300 * 2**20


def _limit_memory() -> None:
    """Let this process grow by 300 MiB at most, so that eating memory ends in MemoryError and not in the machine's."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _MEMORY_BYTES, hard))


# Not in a test that only reads what is here, and not in the parent of many workers, which needs a thread a child.
if sys.argv[1:2] == ["worker"] and "--processes" not in sys.argv:
    _limit_memory()


class Odd(BaseException):
    """Not an Exception."""


class Unspeakable(Exception):
    """An exception whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


# --- what kills a worker ----------------------------------------------------------------------------------------------
def _exit(_: Room) -> None:
    os._exit(7)


def _kill(_: Room) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault(_: Room) -> None:
    ctypes.string_at(0)


def _loop(_: Room) -> None:
    while True:
        pass


def _hold(_: Room) -> None:
    sum(range(10**12))  # one call that never lets go of the interpreter's lock


def _block(_: Room) -> None:
    time.sleep(3600)


def _eat(_: Room) -> None:
    hoard = []
    while True:
        hoard.append(bytearray(2**22))


KILLERS = {
    "exit": _exit, "kill": _kill, "segfault": _segfault, "loop": _loop, "hold": _hold, "block": _block, "eat": _eat,
}  # fmt: skip


# --- what harms its own event alone -----------------------------------------------------------------------------------
def _raise(_: Room) -> NoReturn:
    raise ValueError("told to")


def _unspeakable(_: Room) -> NoReturn:
    raise Unspeakable


def _sysexit(_: Room) -> NoReturn:
    sys.exit(3)


def _interrupt(_: Room) -> NoReturn:
    raise KeyboardInterrupt


def _odd(_: Room) -> NoReturn:
    raise Odd


def _cancelled(_: Room) -> NoReturn:
    raise asyncio.CancelledError


def _recurse(room: Room) -> None:
    _recurse(room)


def _large(room: Room) -> None:
    room.state["large"] = "x" * 2_000_000


def _deep(room: Room) -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    room.state["deep"] = value


FAILURES = {
    "raise": _raise, "unspeakable": _unspeakable, "sysexit": _sysexit, "interrupt": _interrupt, "odd": _odd,
    "cancelled": _cancelled, "recurse": _recurse, "large": _large, "deep": _deep,
}  # fmt: skip


# --- what fails later, beside the event -------------------------------------------------------------------------------
_tasks: set[asyncio.Task[None]] = set()


async def _fail_later(error: BaseException) -> None:
    await asyncio.sleep(0.05)
    raise error


def _spawn(error: BaseException) -> None:
    task = asyncio.create_task(_fail_later(error))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def _task(_: Room) -> None:
    _spawn(ValueError("later"))


def _taskexit(_: Room) -> None:
    _spawn(SystemExit(9))


def _callback(_: Room) -> None:
    asyncio.get_running_loop().call_later(0.05, sys.exit, 9)


LATER = {"task": _task, "taskexit": _taskexit, "callback": _callback}

DEEDS = KILLERS | FAILURES | LATER


class Poison(Room):
    """Does what a message says, what a newcomer's name says, and at the leave what the name says behind a dash."""

    handler_s = 1.0

    def on_connect(self, conn: Connection) -> None:
        """Do what the name says, if it says something."""
        if deed := DEEDS.get(conn.user.name):
            deed(self)
        conn.send({"welcome": conn.user.name})

    async def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Do what the message says, or count."""
        match message["do"]:
            case "hang":
                await asyncio.Event().wait()
            case "await and exit":
                await asyncio.sleep(0.05)
                os._exit(7)
            case "await sysexit":
                await asyncio.create_task(_fail_later(SystemExit(9)))
            case "count":
                self.state["count"] = self.state.get("count", 0) + 1
                self.broadcast({"count": self.state["count"]})
            case deed:
                DEEDS[deed](self)

    def on_leave(self, conn: Connection) -> None:
        """Do what the name says behind ``leave-``; write down who left, if that is survived."""
        if deed := DEEDS.get(conn.user.name.removeprefix("leave-")):
            deed(self)
        self.state["left"] = [*self.state.get("left", []), conn.user.name]


class Badstart(Poison):
    """Does at each start what the room's name says, unless a file of that name tells that it was mended."""

    def on_start(self) -> None:
        """Do it."""
        with contextlib.suppress(FileNotFoundError):
            if Path(os.environ["POISON_FOLDER"], self.name).exists():
                return
        DEEDS[self.name.split("-")[0]](self)


class Badcreate(Poison):
    """Does at its creation what the room's name says."""

    def on_create(self) -> None:
        """Do it."""
        DEEDS[self.name.split("-")[0]](self)


class Lively(Room):
    """Counts messages; never harms."""

    def on_message(self, conn: Connection, message: Any) -> None:
        """Count and tell all."""
        self.state["n"] = self.state.get("n", 0) + 1
        self.broadcast({"n": self.state["n"], "from": conn.user.name, "i": message["i"]})
