"""Several processes of one role under one parent: ``innkeeper edge|worker --processes N``."""

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence

from innkeeper.supervise.child import BootFailed, Program
from innkeeper.supervise.keeper import Backoff, Keeper
from innkeeper.supervise.role import announce_ready, follow_parent

logger = logging.getLogger("innkeeper.supervise")

# Longer than a role takes to drain (25 s), shorter than a container's last warning (30 s).
STOP_GRACE_S = 28.0

PROCESSES_VARIABLE = "INNKEEPER_PROCESSES"
INNKEEPER_COMMAND = (sys.executable, "-m", "innkeeper")


def run_processes(
    arguments: Sequence[str],
    count: int,
    *,
    command: Sequence[str] = INNKEEPER_COMMAND,
    backoff: Backoff | None = None,
    grace_s: float = STOP_GRACE_S,
    environments: Sequence[Mapping[str, str]] = (),
) -> int:
    """Run several processes of one role until SIGTERM or SIGINT; return the exit code.

    SIGHUP rolls them one by one: the successor is ready before the old one gets SIGTERM. A child that crashes is
    started again. Children that share a port get ``--port P --reuse-port`` from the caller, who holds it with
    :func:`innkeeper.supervise.port.reserve_port` meanwhile.

    Args:
        arguments: The role and its options, without ``--processes``.
        count: Children, at least 1.
        command: What the arguments are given to.
        backoff: The waits after crashes.
        grace_s: How long a child may take to end after SIGTERM.
        environments: Added to that of each child; as many as children, or none.

    Returns:
        0 after a stop that was asked for; the exit code of a child that did not get ready at the first start.
    """
    follow_parent()
    role = arguments[0]
    programs = [
        # Not the user's number, or each child would become the parent of as many.
        Program(
            name=f"{role} {number}",
            arguments=[*command, *arguments],
            environment={PROCESSES_VARIABLE: "1", **added},
        )
        for number, added in enumerate(environments or [{}] * count, 1)
    ]
    keepers = [Keeper(program, backoff=backoff, grace_s=grace_s) for program in programs]
    return asyncio.run(_supervise(role, keepers))


async def _supervise(role: str, keepers: Sequence[Keeper]) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    roll = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, roll.set)
    running = asyncio.create_task(_start_and_roll(role, keepers, roll))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return await running if running.done() else 0
    except BootFailed as failed:
        return failed.exit_code
    finally:
        running.cancel()
        stopped.cancel()
        await asyncio.gather(running, stopped, return_exceptions=True)
        await asyncio.gather(*(keeper.stop() for keeper in keepers))


async def _start_and_roll(role: str, keepers: Sequence[Keeper], roll: asyncio.Event) -> int:
    # The first alone: if the options are wrong, the message comes once.
    first = await keepers[0].start()
    await _start_all(keepers[1:])
    announce_ready(**{name: fact for name, fact in first.facts.items() if name != "ready"})
    logger.info("%s: %d processes are ready", role, len(keepers))
    while True:
        await roll.wait()
        roll.clear()
        await _roll(role, keepers)


async def _start_all(keepers: Sequence[Keeper]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for keeper in keepers:
                group.create_task(keeper.start())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _roll(role: str, keepers: Sequence[Keeper]) -> None:
    for keeper in keepers:
        try:
            await keeper.replace()
        except BootFailed as failed:
            logger.warning("%s; the roll stops here and the old processes go on", failed)
            return
    logger.info("%s: %d processes were replaced", role, len(keepers))
