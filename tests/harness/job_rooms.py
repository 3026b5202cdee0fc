"""A room that has jobs run, and the jobs, for tests. Each run of a job leaves a line in the file JOB_RUNS names."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from innkeeper import Connection, JobResult, Room, job


def _note(word: str) -> None:
    with Path(os.environ["JOB_RUNS"]).open("a", encoding="utf-8") as file:
        file.write(f"{word} {os.getpid()} {os.getppid()}\n")


@job
def double(number: int) -> int:
    """Return twice the number."""
    _note(f"double-{number}")
    return 2 * number


@job
async def later(number: int, *, wait_s: float) -> dict[str, int]:
    """Return the number after a while."""
    _note(f"later-{number}")
    await asyncio.sleep(wait_s)
    return {"number": number}


@job
def fail(text: str) -> None:
    """Raise."""
    raise ValueError(text)


@job
def sleep(seconds: float) -> str:
    """Sleep, however long it may run."""
    _note("sleep")
    time.sleep(seconds)
    return "slept"


@job
def die() -> None:
    """End the job's process."""
    os.kill(os.getpid(), signal.SIGKILL)


@job
def unspeakable() -> object:
    """Return what is not JSON."""
    return object()


def secret() -> str:
    """Return what nobody may have: it is no job."""
    return "secret"


class Works(Room):
    """Enqueues what it is told to, and shows what comes back."""

    def on_message(self, conn: Connection, message: Any) -> None:
        """Enqueue ``[name, args, kwargs]`` for each entry, or destroy the room."""
        if message.get("destroy"):
            self.destroy()
            return
        for name, args, kwargs in message["jobs"]:
            job_id = self.enqueue(f"job_rooms:{name}", *args, **kwargs)
            conn.send({"enqueued": job_id, "name": name})

    def on_job(self, result: JobResult) -> None:
        """Keep and show it."""
        shown = [result.id, result.function, result.status, result.value, result.error]
        self.state.setdefault("results", []).append(shown)
        self.broadcast({"result": shown})
