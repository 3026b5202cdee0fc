"""What can be done to a running system. Each fault waits until it can bite, bites, is over, and is counted."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.exceptions

from chaos.roles import Role
from chaos.stage import Stage

Fault = Callable[[Stage, random.Random], Awaitable[None]]

LEASE_S = 2.0


async def _ready(roles: Sequence[Role], rng: random.Random) -> Role:
    """Return one of the roles that run, waiting for one if need be."""
    while not (running := [role for role in roles if role.ready and not role.frozen]):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return rng.choice(running)


# --- processes --------------------------------------------------------------------------------------------------------
async def kill_worker(stage: Stage, rng: random.Random) -> None:
    """SIGKILL; the next process is started at once."""
    role = await _ready(stage.workers, rng)
    stage.bitten["worker kills"] += role.signal(signal.SIGKILL)


async def kill_edge(stage: Stage, rng: random.Random) -> None:
    """SIGKILL; the next process is started at once."""
    role = await _ready(stage.edges, rng)
    stage.bitten["edge kills"] += role.signal(signal.SIGKILL)


async def kill(stage: Stage, rng: random.Random) -> None:
    """SIGKILL: three workers to two edges."""
    await (kill_worker if rng.random() < 0.6 else kill_edge)(stage, rng)


async def _freeze(stage: Stage, roles: Sequence[Role], rng: random.Random) -> None:
    role = await _ready(roles, rng)
    if not role.signal(signal.SIGSTOP):
        return
    starts = role.starts
    await asyncio.sleep(LEASE_S * rng.uniform(1.5, 5))
    if role.starts == starts and role.signal(signal.SIGCONT):
        stage.bitten[f"{role.kind} freezes"] += 1


async def freeze_worker(stage: Stage, rng: random.Random) -> None:
    """SIGSTOP for 1.5 to 5 leases, then SIGCONT."""
    await _freeze(stage, stage.workers, rng)


async def freeze_edge(stage: Stage, rng: random.Random) -> None:
    """SIGSTOP for 1.5 to 5 leases, then SIGCONT."""
    await _freeze(stage, stage.edges, rng)


async def _roll(stage: Stage, role: Role) -> None:
    while not role.ready or role.frozen:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await role.replace()
    stage.bitten["workers rolled"] += 1


async def roll_worker(stage: Stage, rng: random.Random) -> None:
    """Replace a worker, the successor ready before SIGTERM."""
    await _roll(stage, await _ready(stage.workers, rng))


async def roll_workers(stage: Stage, rng: random.Random) -> None:
    """Replace all workers one by one."""
    for role in rng.sample(stage.workers, len(stage.workers)):
        await _roll(stage, role)
    stage.bitten["rolling restarts"] += 1


async def end_edge(stage: Stage, rng: random.Random) -> None:
    """SIGTERM an edge: it closes its sockets and goes; the next is started."""
    role = await _ready(stage.edges, rng)
    if role.signal(signal.SIGTERM):
        stage.bitten["edge restarts"] += 1


# --- Redis ------------------------------------------------------------------------------------------------------------
async def kill_redis(stage: Stage, rng: random.Random) -> None:
    """SIGKILL Redis and start it again from its AOF."""
    stage.valkey.kill()
    await asyncio.sleep(rng.uniform(0.0, 1.0))
    await asyncio.to_thread(stage.valkey.start)
    stage.bitten["Redis kills"] += 1


async def kill_pubsub(stage: Stage, rng: random.Random) -> None:  # noqa: ARG001 - a fault's signature
    """Cut every subscribed connection at Redis."""
    cut = await _quietly(stage, "CLIENT", "KILL", "TYPE", "pubsub")
    if cut:
        stage.bitten["pub/sub kills"] += 1
        stage.bitten["pub/sub connections cut"] += cut


async def sleep_redis(stage: Stage, rng: random.Random) -> None:
    """Let Redis answer nobody for up to 2.5 leases."""
    if await _quietly(stage, "DEBUG", "SLEEP", f"{LEASE_S * rng.uniform(0.2, 2.5):.2f}") is not None:
        stage.bitten["Redis sleeps"] += 1


async def fill_redis(stage: Stage, rng: random.Random) -> None:
    """Reach maxmemory for half a second to three."""
    before = await _refused(stage)
    if await _quietly(stage, "CONFIG", "SET", "maxmemory", "1mb") is None:
        return
    await asyncio.sleep(rng.uniform(0.5, 3))
    if (after := await _refused(stage)) > before:
        stage.bitten["memory full"] += 1
        stage.bitten["OOM refusals"] += after - before
    await relieve_redis(stage)


async def relieve_redis(stage: Stage) -> None:
    """Lift maxmemory again."""
    await _quietly(stage, "CONFIG", "SET", "maxmemory", "0")


async def _refused(stage: Stage) -> int:
    info = await _quietly(stage, "INFO", "errorstats")
    return int(info.get("errorstat_OOM", {}).get("count", 0)) if info else 0


async def flush_functions(stage: Stage, rng: random.Random) -> None:  # noqa: ARG001 - a fault's signature
    """Take Redis' functions away."""
    if await _quietly(stage, "FUNCTION", "FLUSH"):
        stage.bitten["functions flushed"] += 1


async def flush_all(stage: Stage, rng: random.Random) -> None:  # noqa: ARG001 - a fault's signature
    """Delete everything: history is gone, and what is open may lose things."""
    await stage.tell_load("lossy")
    await asyncio.sleep(0.2)
    if await _quietly(stage, "FLUSHALL"):
        stage.bitten["everything flushed"] += 1
    await asyncio.sleep(2)  # a socket opened meanwhile may have begun in the old history
    await stage.tell_load("whole")


async def _quietly(stage: Stage, *command: str) -> Any:
    """Send a command; None where another fault has Redis just now."""
    for _ in range(3):  # connections kept from before a kill fail first
        try:
            return await stage.redis.execute_command(*command)
        except (redis.exceptions.RedisError, OSError):
            continue
    return None


# --- the network ------------------------------------------------------------------------------------------------------
async def partition(stage: Stage, rng: random.Random) -> None:
    """Let nothing through between one role and Redis, one way or both, for up to 30 s; then all of it."""
    name = rng.choice(list(stage.proxies))
    proxy = stage.proxies[name]
    both = rng.random() < 0.5
    proxy.hold_up = both or rng.random() < 0.5
    proxy.hold_down = both or not proxy.hold_up
    await asyncio.sleep(rng.uniform(*rng.choice(((0.3, 2), (1, 8), (1, 8), (8, 30)))))
    proxy.heal()
    stage.bitten[f"{name.split('-')[0]} partitions"] += 1


async def slow_link(stage: Stage, rng: random.Random) -> None:
    """Delay everything between one role and Redis for a second or two."""
    proxy = stage.proxies[rng.choice(list(stage.proxies))]
    proxy.delay_s = rng.uniform(0.005, 0.3)
    await asyncio.sleep(rng.uniform(0.5, 2))
    proxy.heal()


async def drop_replies(stage: Stage, rng: random.Random) -> None:
    """Swallow answers of Redis to one role now and then, for a second or two; each time the connection is cut."""
    proxy = stage.proxies[rng.choice(list(stage.proxies))]
    proxy.lose_reply = 0.05
    await asyncio.sleep(rng.uniform(0.5, 2))
    proxy.heal()


async def cut_link(stage: Stage, rng: random.Random) -> None:
    """Cut all connections between one role and Redis."""
    stage.proxies[rng.choice(list(stage.proxies))].cut()


async def half_close(stage: Stage, rng: random.Random) -> None:
    """End all connections between one role and Redis in one direction."""
    stage.proxies[rng.choice(list(stage.proxies))].half_close(towards_role=rng.random() < 0.5)
