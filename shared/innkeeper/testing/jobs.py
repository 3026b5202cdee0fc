"""The jobs of a room in memory: what it put into the queue, and how a test says that one ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from innkeeper.jobs import outcome
from innkeeper.testing.stored import StoredRoom
from innkeeper.timers import JOB

_ENDS: Final = ("done", "failed", "timeout", "lost")


@dataclass(frozen=True, slots=True)
class Job:
    """A job that the room has put into the queue.

    Attributes:
        id: What ``enqueue`` returned.
        function: ``pkg.mod:function``.
        args: Its arguments as the function would get them: what JSON makes of them.
        kwargs: Likewise.
        timeout_s: How long it may run.
        is_awaited: Whether the room still waits for its result.
    """

    id: str
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    timeout_s: float
    is_awaited: bool


def jobs_of(stored: StoredRoom) -> Iterator[Job]:
    """Return the jobs that a room ever put into the queue, in order."""
    for kind, function, data in stored.outbox:
        if kind == "job":
            fields = orjson.loads(data)
            job_id, timeout_s = fields["id"], fields["timeout_s"]
            is_awaited = JOB + job_id in stored.timers
            yield Job(job_id, function, tuple(fields["args"]), fields["kwargs"], timeout_s, is_awaited)


def ending(jobs: Sequence[Job], job_id: str, *, value: Any, status: str, error: str) -> bytes:
    """Return the data of the event that a job has ended.

    Raises:
        ValueError: There is no such job, or it cannot end so.
    """
    if not any(job.id == job_id for job in jobs):
        known = ", ".join(f"{job.id} ({job.function})" for job in jobs) or "none"
        raise ValueError(f"finish({job_id!r}): the room has put no such job into the queue; its jobs: {known}")
    status = status or ("failed" if error else "done")
    if status not in _ENDS:
        raise ValueError(f"finish(status={status!r}): a job ends as one of {', '.join(_ENDS)}")
    if status == "done" and error:
        raise ValueError(f"finish(status='done', error={error!r}): a job that is done has no error")
    if status != "done" and value is not None:
        raise ValueError(f"finish({value!r}, status={status!r}): only a job that is done has a value")
    told = "" if status == "done" else error or f"{status}, says the test"
    return outcome(job_id, status, value=value, error=told)  # type: ignore[arg-type] # looked at above
