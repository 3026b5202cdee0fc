"""What rq may call: one function of Innkeeper's. rq itself would import and call whatever a job in Redis names."""

from collections.abc import Callable
from typing import Any

from rq.job import Job

from innkeeper_workers.jobs.desk import PERFORM
from innkeeper_workers.jobs.runner import perform


class AllowedJob(Job):
    """A job that runs :func:`innkeeper_workers.jobs.runner.perform`, or nothing, and has no callbacks."""

    @property
    def func(self) -> Callable[..., Any]:
        """What the job runs.

        Raises:
            LookupError: Its data names something else; somebody else has written it.
        """
        if self.func_name != PERFORM or self.instance:
            raise LookupError(f"{self.func_name!r} is not what jobs of Innkeeper run; it was not imported")
        return perform

    @property
    def success_callback(self) -> None:
        """None."""

    @property
    def failure_callback(self) -> None:
        """None."""

    @property
    def stopped_callback(self) -> None:
        """None."""
