"""``innkeeper worker TARGET…``: claims rooms of the kinds its targets define, and runs them."""

import asyncio
import logging
import os
import sys
from typing import Any

import click

from innkeeper.boot import check_redis, run_role, stop_asked
from innkeeper.durability import Durability
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.lease import DEFAULT_TIMES
from innkeeper.logs import set_up_logs
from innkeeper.ops import NO_OPS, OpsSettings, ops_options
from innkeeper.options import durability_option, log_level_option, redis_option, without_password
from innkeeper.room import Room
from innkeeper.supervise import announce_ready, follow_parent, run_processes
from innkeeper.target import load_rooms
from innkeeper_workers.balance import Balance
from innkeeper_workers.fleet import Fleet
from innkeeper_workers.kinds import announce_kinds
from innkeeper_workers.metrics import show
from innkeeper_workers.outboxes import OutboxSweep
from innkeeper_workers.placement import UNMOVED, Placement, placement_options
from innkeeper_workers.pulse import Pulse
from innkeeper_workers.sweep import Sweep
from innkeeper_workers.timers import LookOut
from innkeeper_workers.watchdog import EXIT_CODE, Watchdog

log = logging.getLogger("innkeeper.worker")

_DRAIN_S = 25.0


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...", envvar="INNKEEPER_TARGETS")
@redis_option()
@durability_option()
@click.option("--processes", envvar="INNKEEPER_PROCESSES", type=click.IntRange(1), default=1, help="Worker processes.")
@placement_options
@ops_options()
@log_level_option()
def worker(  # noqa: PLR0917 - click passes them by name
    targets: tuple[str, ...],
    redis: str,
    durability: str,
    processes: int,
    log_level: str,
    ops: OpsSettings,
    **options: Any,
) -> None:
    """Run rooms. TARGET is pkg.mod, pkg.mod:Class or file.py; every Room class defined there is served.

    Several may also stand in INNKEEPER_TARGETS, with blanks between them.
    """
    set_up_logs(log_level)
    placement = Placement(**options)
    rooms = placement.choose(load_rooms(targets))  # a mistake is told once, also where there are several processes
    if processes > 1:
        os.environ["INNKEEPER_REDIS"] = redis  # not as an argument: a password would show in ps
        arguments = ["worker", *targets, "--durability", durability, "--log-level", log_level, *placement.arguments]
        with ops.for_children(processes) as environments:
            sys.exit(run_processes(arguments, processes, environments=environments))
    follow_parent()
    sys.exit(run_role(lambda: serve(rooms, redis, Durability(durability), ops, placement)))


async def serve(
    rooms: dict[str, type[Room]],
    redis_url: str,
    durability: Durability,
    ops: OpsSettings = NO_OPS,
    placement: Placement = UNMOVED,
) -> int:
    """Serve rooms until SIGTERM or SIGINT, then hand all of them over."""
    stop = stop_asked()
    times = DEFAULT_TIMES
    where = await check_redis(
        redis_url,
        timeout_s=times.redis_timeout_ms / 1000,
        shown=without_password(redis_url),
        durability=durability,
        role="worker",
    )
    fleet = Fleet(rooms, where, times, durability, redis_url)
    fleet.max_rooms = placement.max_rooms
    pulse = Pulse(fleet)
    sweep = Sweep(fleet, pulse)
    shown = show(fleet, sweep, ops)
    watchdog = Watchdog(end_after_s=2 * times.lease_ms / 1000)
    duties: list[asyncio.Task[None]] = []
    try:
        await shown.start()
        await fleet.load_functions()
        try:
            await announce_kinds(fleet)
        except (RedisUnavailable, RedisReplied) as error:
            log.warning("kinds not announced yet, the next look will: %s", error)
        beside = (
            pulse.beat_forever,
            pulse.watch_forever,
            pulse.watch_edges_forever,
            pulse.renew_forever,
            sweep.sweep_forever,
            OutboxSweep(fleet, pulse).sweep_forever,
            LookOut(fleet, pulse).look_forever,
            Balance(fleet, rebalance=placement.rebalance).balance_forever,
        )
        duties = [asyncio.create_task(work()) for work in beside]
        waking = asyncio.create_task(fleet.serve_wakes())
        log.info("worker %s serves %s", fleet.incarnation, ", ".join(sorted(rooms)))
        announce_ready(ops_port=shown.port)
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(fleet.out_of_memory.wait())]
        await asyncio.wait([*waits, *duties, waking], return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for duty in (*duties, waking):
            if duty.done():
                log.critical("a duty of this worker has ended: it goes", exc_info=duty.exception())
                return 1
        log.info("worker %s hands over %d room(s)", fleet.incarnation, len(fleet.owners))
        await fleet.drain(_DRAIN_S)
        await waking
        for duty in duties:
            duty.cancel()
        await pulse.say_goodbye()
    finally:
        for duty in duties:
            duty.cancel()
        watchdog.stop()
        await fleet.close()
        await shown.close()
    log.info("worker %s ended", fleet.incarnation)
    return EXIT_CODE if fleet.out_of_memory.is_set() else 0
