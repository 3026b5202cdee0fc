"""Where owners hand in jobs: rq's queue, through its synchronous client, in a thread."""

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any

import orjson

from innkeeper.jobs import QUEUE
from innkeeper.sync_redis import open_sync, prepare_rq

if TYPE_CHECKING:
    from rq import Queue

log = logging.getLogger("innkeeper.worker")

PERFORM = "innkeeper_workers.jobs.runner.perform"
_RESULT_KEPT_S = 60
_FAILURE_KEPT_S = 86_400


class Desk:
    """Puts jobs into the queue and takes them out again; opened at the first job, because importing rq takes 0.1 s.

    Args:
        url: Where Redis is.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._queue: Queue | None = None
        self._lock = asyncio.Lock()

    async def serve(self, room: str, kind: str, target: str, data: bytes) -> None:
        """Carry out what a room's outbox asks for, once, however often this is called.

        Args:
            room: Where the job's result goes, ``kind/name``.
            kind: ``job`` puts one into the queue; ``cancel`` takes it out, if it does not run yet.
            target: The job's function, ``pkg.mod:function``; of a ``cancel`` its id.
            data: Of a ``job``: as :func:`innkeeper.jobs.job_data` makes it.

        Raises:
            redis.RedisError: It may or may not be done: call again.
            ValueError: There is no such kind.
        """
        async with self._lock:
            if kind == "job":
                await asyncio.to_thread(self._put, room, target, orjson.loads(data))
            elif kind == "cancel":
                await asyncio.to_thread(self._cancel, target)
            else:
                raise ValueError(f"an outbox entry of kind {kind!r}: this version does not know it")

    def _put(self, room: str, function: str, fields: dict[str, Any]) -> None:
        queue = self._open()
        from rq.exceptions import DuplicateJobError  # noqa: PLC0415 - see the class

        try:
            queue.enqueue_call(
                PERFORM,
                args=[room, fields["id"], function, fields["args"], fields["kwargs"]],
                timeout=math.ceil(fields["timeout_s"]),
                job_id=fields["id"],
                unique=True,
                result_ttl=_RESULT_KEPT_S,
                failure_ttl=_FAILURE_KEPT_S,
                description=f"{function} for {room}",
            )
        except DuplicateJobError:
            log.debug("room %s: job %s is in the queue already", room, fields["id"])

    def _cancel(self, job_id: str) -> None:
        queue = self._open()
        job = queue.fetch_job(job_id)
        if job is not None and job.get_status() == "queued":
            job.delete()

    def _open(self) -> "Queue":
        if self._queue is None:
            prepare_rq(self._url)
            from rq import Queue  # noqa: PLC0415 - see the class

            self._queue = Queue(QUEUE, connection=open_sync(self._url), serializer="json")
        return self._queue
