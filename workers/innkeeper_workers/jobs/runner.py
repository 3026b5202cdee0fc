"""What runs in a job's process: the function, if it is one of those allowed, and the way of its result to the room."""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from rq.timeouts import JobTimeoutException

from innkeeper.activation import text_of
from innkeeper.address import parse_address
from innkeeper.jobs import outcome
from innkeeper.outside.deliver import deliver
from innkeeper_workers.jobs.metrics import JobMeters

if TYPE_CHECKING:
    from rq.job import Job

log = logging.getLogger("innkeeper.jobs")

_DELIVER_S = 60.0


class Runner:
    """The allowed functions and where Redis is; set up before the first job is forked off.

    Attributes:
        functions: By ``pkg.mod:function``.
        redis_url: Where the rooms are.
        meters: What is counted.
    """

    functions: dict[str, Callable[..., Any]]
    redis_url: str

    def __init__(self) -> None:
        self.functions = {}
        self.redis_url = ""
        self.meters = JobMeters()

    def perform(self, room: str, job_id: str, function: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Run a function and push its result to the room; a failure is pushed too, then raised for rq to show."""
        began_at_s = time.monotonic()
        try:
            value = self._call(function, args, kwargs)
        except JobTimeoutException as error:
            self.meters.ended("timeout", time.monotonic() - began_at_s)
            self.push(room, job_id, outcome(job_id, "timeout", error=text_of(error)))
            raise
        except BaseException as error:
            self.meters.ended("failed", time.monotonic() - began_at_s)
            what = f"{type(error).__name__}: {text_of(error)}"
            self.push(room, job_id, outcome(job_id, "failed", error=what[:1000]))
            raise
        ran_s = time.monotonic() - began_at_s
        data = outcome(job_id, "done", value=value)
        self.meters.ended(orjson.loads(data)["status"], ran_s)  # failed, where the value cannot be told
        self.push(room, job_id, data)

    def _call(self, function: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        allowed = self.functions.get(function)
        if allowed is None:
            raise LookupError(f"{function} is not among the jobs of this process: mark it with @job, name its module")
        result = allowed(*args, **kwargs)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

    def push(self, room: str, job_id: str, data: bytes) -> None:
        """Push a job's result to its room, once, however often this is called; gives up after a minute."""
        pushing = deliver(
            self.redis_url, parse_address(room), source=f"x-job-{job_id}", kind="job", data=data, within_s=_DELIVER_S
        )
        asyncio.run(pushing)

    def gone(self, job: "Job", error: str) -> None:
        """Push a failure for a job whose process died; what it had pushed itself before counts."""
        room, job_id = job.args[0], job.args[1]
        self.meters.ended("died")
        log.warning("room %s: job %s (%s): %s", room, job_id, job.description, error)
        try:
            self.push(room, job_id, outcome(job_id, "failed", error=error))
        except Exception:  # the room's own deadline stands behind it
            self.meters.untold()
            log.exception("room %s: job %s: its end could not be told", room, job_id)


async def _awaited(result: Any) -> Any:
    return await result


RUNNER = Runner()


def perform(room: str, job_id: str, function: str, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Run a job of a room; this is the one function that rq calls."""
    RUNNER.perform(room, job_id, function, args, kwargs)
