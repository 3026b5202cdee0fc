"""``innkeeper jobs TARGET…``: runs the functions that rooms put into the queue."""

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from innkeeper.boot import check_redis
from innkeeper.errors import TargetInvalid
from innkeeper.jobs import QUEUE
from innkeeper.lease import DEFAULT_TIMES
from innkeeper.logs import set_up_logs
from innkeeper.ops import OpsSettings, ops_options
from innkeeper.options import log_level_option, redis_option, without_password
from innkeeper.supervise import announce_ready, follow_parent, run_processes
from innkeeper.sync_redis import open_sync, prepare_rq
from innkeeper.target import load_jobs

if TYPE_CHECKING:
    from rq.job import Job

log = logging.getLogger("innkeeper.jobs")

_LOOK_AFTER_DEAD_S = 10
_HEARTBEAT_S = 5


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...", envvar="INNKEEPER_TARGETS")
@redis_option()
@click.option("--processes", envvar="INNKEEPER_PROCESSES", type=click.IntRange(1), default=1, help="Jobs at a time.")
@click.option("--list", "only_list", is_flag=True, help="Print the names of the jobs in the targets, and end.")
@ops_options(traces=False)
@log_level_option()
def jobs(
    targets: tuple[str, ...], redis: str, processes: int, log_level: str, ops: OpsSettings, *, only_list: bool
) -> None:
    """Run jobs. TARGET is pkg.mod, pkg.mod:function or file.py; every function marked with @job there may run.

    Several may also stand in INNKEEPER_TARGETS, with blanks between them.
    """
    set_up_logs(log_level)
    functions = load_jobs(targets)
    if only_list:
        for name in sorted(functions):
            click.echo(name)
        return
    if not functions:
        raise TargetInvalid(f"{' '.join(targets)}: no job in it; mark functions with @job")
    if processes > 1:
        os.environ["INNKEEPER_REDIS"] = redis  # not as an argument: a password would show in ps
        with ops.for_children(processes) as environments:
            arguments = ["jobs", *targets, "--log-level", log_level]
            sys.exit(run_processes(arguments, processes, environments=environments))
    follow_parent()
    timeout_s = DEFAULT_TIMES.redis_timeout_ms / 1000
    asyncio.run(check_redis(redis, timeout_s=timeout_s, shown=without_password(redis), role="jobs"))
    prepare_rq(redis)
    from innkeeper_workers.jobs.runner import RUNNER  # noqa: PLC0415 - rq reads its settings when it is imported

    RUNNER.functions, RUNNER.redis_url = functions, redis
    _work(redis, ops)


def _work(redis: str, ops: OpsSettings) -> None:
    from rq import Worker  # noqa: PLC0415 - as above

    from innkeeper_workers.jobs.allowed import AllowedJob  # noqa: PLC0415
    from innkeeper_workers.jobs.metrics import JobsSource, shown  # noqa: PLC0415
    from innkeeper_workers.jobs.runner import RUNNER  # noqa: PLC0415

    def killed(job: "Job", pid: int, status: int, usage: object) -> None:  # noqa: ARG001 - rq's signature
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        RUNNER.gone(job, f"its process died ({how})")

    def abandoned(job: "Job", kind: type[BaseException], *rest: object) -> bool:  # noqa: ARG001 - rq's signature
        if kind.__name__ == "AbandonedJobError":
            RUNNER.gone(job, "its worker died")
        return True

    worker = Worker(
        [QUEUE],  # alone: only so does rq keep a job whose worker dies between taking and starting it
        connection=open_sync(redis),
        serializer="json",
        job_class=AllowedJob,
        exception_handlers=[abandoned],
        maintenance_interval=_LOOK_AFTER_DEAD_S,
        worker_ttl=_LOOK_AFTER_DEAD_S + 15,  # rq waits for a job for 15 s less, and looks only in between
        job_monitoring_interval=_HEARTBEAT_S,
        work_horse_killed_handler=killed,
    )
    worker.log = log
    log.info("jobs %s: %s", worker.name, ", ".join(sorted(RUNNER.functions)))
    with shown(ops, JobsSource(worker, RUNNER.meters)) as ops_port:
        announce_ready(ops_port=ops_port)
        worker.work(logging_level=logging.getLevelName(log.getEffectiveLevel()))
