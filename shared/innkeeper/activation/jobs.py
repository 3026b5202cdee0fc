"""The events of jobs: a result comes, once, or the room has waited long enough."""

from typing import TYPE_CHECKING

import orjson

from innkeeper.activation.hooks import contained
from innkeeper.jobs import JobResult
from innkeeper.timers import JOB

if TYPE_CHECKING:
    from innkeeper.activation.hooks import Hooks
    from innkeeper.wire import InboxEvent


class JobEvents:
    """What comes back of a room's jobs.

    Attributes:
        void_count: Results of jobs that the room does not wait for: they came before, or too late. No hook saw them.

    Args:
        hooks: Run the room's hooks.
    """

    def __init__(self, hooks: "Hooks") -> None:
        self.void_count = 0
        self._hooks = hooks
        self._timetable = hooks.context.timers

    async def result(self, event: "InboxEvent") -> None:
        """Run on_job with a result."""
        try:
            fields = orjson.loads(event.data)
            job_id, status, value, error = fields["id"], fields["status"], fields["value"], fields["error"]
        except (ValueError, TypeError, KeyError):
            self.void_count += 1
            return
        await self._end(event, str(job_id), status, value, str(error))

    async def deadline(self, event: "InboxEvent", name: str) -> None:
        """Run on_job for a job of which nothing was heard in time."""
        await self._end(event, name[len(JOB) :], "lost", None, "nothing was heard of it by its deadline")

    def condemn(self, event: "InboxEvent") -> None:
        """End the wait for a job whose result is put aside without running on_job."""
        try:
            job_id = str(orjson.loads(event.data)["id"])
        except (ValueError, TypeError, KeyError):
            return
        self._timetable.take_job(job_id)
        self._hooks.settle()

    async def _end(self, event: "InboxEvent", job_id: str, status: str, value: object, error: str) -> None:
        hooks = self._hooks
        function = self._timetable.take_job(job_id)
        if function is None:
            self.void_count += 1  # perhaps in a room that was destroyed, which it does not start anew
            return
        assert hooks.room is not None  # noqa: S101 - no event that concerns the room comes before the start
        hooks.settle()  # whatever the hook does, the job is over
        result = JobResult(job_id, function, status, value, error)  # type: ignore[arg-type] # as it came
        try:
            await hooks.run(hooks.room.on_job, result)
            hooks.settle()
        except BaseException as raised:  # noqa: BLE001 - a user's hook may raise anything
            await hooks.failed(event, None, contained(raised))
