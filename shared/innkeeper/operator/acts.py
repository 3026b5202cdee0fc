"""What operators do to a room: always through its own order, or by asking its owner; nothing is written past it."""

import asyncio
from typing import Final

import orjson

from innkeeper import keys
from innkeeper.address import Address
from innkeeper.close_codes import KICKED
from innkeeper.functions import shard_of
from innkeeper.functions.dead import Retried, read_retried, retry
from innkeeper.keys import room_keys
from innkeeper.operator.running import OperatorFailed
from innkeeper.operator.survey import kinds, loads, processes
from innkeeper.outside import Innkeeper
from innkeeper.request import Response
from innkeeper.topology import Commands
from innkeeper.waking import wake

_GONE = 404
_LOOK_S: Final = 0.02


async def kick(inn: Innkeeper, room: Address, connection: str, *, code: int, reason: str, timeout_s: float) -> bool:
    """Close a member's socket; return whether there is such a member. Its ``on_leave`` follows as for every leave.

    Raises:
        NoAnswer: Nobody serves the room now; it may happen still.
    """
    data = orjson.dumps({"connection": connection, "code": code, "reason": reason or KICKED.reason})
    answer = Response.decode(await inn.ask(room, "kick", data, timeout_s=timeout_s))
    return answer.status != _GONE


async def owner_of(link: Commands, room: Address) -> str:
    """Return what its lock says, ``worker:token``; empty without an owner."""
    lock = await link.call("GET", room_keys(room).lock)
    return lock.decode() if lock else ""


async def check_kind(link: Commands, room: Address) -> None:
    """See that a worker ever served a room's kind: else it may be a mistake, and the room would wait for ever.

    Raises:
        OperatorFailed: None did.
    """
    known = await kinds(link)
    if room.kind not in known:
        shown = ", ".join(known) or "none"
        raise OperatorFailed(f"no worker has ever served rooms of kind {room.kind!r} (known: {shown}); --force does it")


async def check_target(link: Commands, room: Address, target: str) -> None:
    """See that a worker is there to take a room, before its owner gives it up.

    Raises:
        OperatorFailed: It is not there, is silent, does not serve the room's kind, is full, or hands its own rooms
            over.
    """
    if target not in {worker.name for worker in await processes(link, keys.WORKERS) if not worker.is_silent}:
        raise OperatorFailed(f"there is no living worker {target}: innkeeper workers lists them")
    load = (await loads(link)).get(target)
    if load is not None and room.kind not in load.kinds:
        raise OperatorFailed(f"{target} does not serve {room.kind!r}, but {', '.join(load.kinds)}")
    if load is not None and load.draining:
        raise OperatorFailed(f"{target} is about to end")
    if load is not None and load.places <= 0:
        raise OperatorFailed(f"{target} is full (--max-rooms {load.max_rooms})")


async def hand_over(link: Commands, room: Address, *, target: str = "", timeout_s: float) -> str:
    """Ask a room's owner to give it back now, to the worker ``target`` where one is named; state and sockets stay.

    Returns:
        The lock afterwards (empty: the room sleeps), or ``""`` where it had no owner to begin with.

    Raises:
        TimeoutError: The owner has not let go in time.
    """
    before = await owner_of(link, room)
    if not before:
        return ""
    order = f"handover {room} {target}".rstrip()
    worker = before.split(":")[0]
    if not await link.call("SPUBLISH", keys.worker_ear(worker), order):
        raise TimeoutError(f"worker {worker} does not listen")
    async with asyncio.timeout(timeout_s):
        while (now := await owner_of(link, room)) == before:  # noqa: ASYNC110 - what changes is in Redis
            await asyncio.sleep(_LOOK_S)
    return now


async def retry_dead(link: Commands, room: Address, entry: str) -> Retried:
    """Give a dead event another try, as a new event of its room; see :class:`Retried`."""
    done = read_retried(await link.call(*retry(room_keys(room), entry=entry)))
    if done.wants_owner:
        await wake(link, [room])
    return done


async def drop_dead(link: Commands, room: Address, entries: list[str]) -> int:
    """Delete dead events; return how many there were."""
    dropped: int = await link.call("XDEL", room_keys(room).dead, *entries)
    if not await link.call("XLEN", room_keys(room).dead):
        await link.call("ZREM", keys.dead_index(shard_of(room)), str(room))
    return dropped
