"""What "accepted" survives: the three durability modes, what they ask of Redis, and the link of the strictest."""

import asyncio
import logging
from collections.abc import Sequence
from enum import Enum

from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisReplied, RedisUnavailable, RedisUnusable
from innkeeper.redis_client import Link

log = logging.getLogger("innkeeper")


class Durability(Enum):
    """When a message counts as accepted; docs/durability.md says what each mode survives."""

    RELAXED = "relaxed"
    FSYNC = "fsync"
    REPLICATED = "replicated"


class ReplicatedLink(Link):
    """A link whose commands have counted only once a replica has them: WAIT follows in the same write.

    One such write is in flight; what comes meanwhile is the next. WAIT speaks of its own connection's server alone, so
    it must not travel by another connection than the commands.
    """

    _queue: list[tuple[Sequence[Command], asyncio.Future[list[Reply]]]]
    _flying: asyncio.Task[None] | None = None

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """Send commands and return their replies once at least one replica has all that was written before.

        Raises:
            RedisUnavailable: As of a Link, or no replica has it in time: send again unchanged.
        """
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self._flying is None or self._flying.done():
            self._queue = [(commands, future)]
            self._flying = asyncio.create_task(self._fly())
        else:
            self._queue.append((commands, future))
        return await future

    async def close(self) -> None:
        """Close the connection; pending calls fail as unavailable."""
        await super().close()
        if self._flying is not None:
            await self._flying

    async def _fly(self) -> None:
        while self._queue:
            batch, self._queue = self._queue, []
            try:
                replies = await self._send_and_wait([command for commands, _ in batch for command in commands])
            except RedisUnavailable as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            at = 0
            for commands, future in batch:
                if not future.done():
                    future.set_result(replies[at : at + len(commands)])
                at += len(commands)

    async def _send_and_wait(self, commands: list[Command]) -> list[Reply]:
        wait_ms = int(self._timeout_s * 600)  # below the link's own patience
        *replies, copies = await super().send((*commands, ("WAIT", 1, wait_ms)))
        if isinstance(copies, RedisReplied) or copies < 1:
            raise RedisUnavailable(f"{self._name}: no replica has it within {wait_ms} ms ({copies})")
        return replies


async def check_durability(link: Link, mode: Durability, shown: str) -> None:
    """See that a primary keeps what the mode promises, and say so in the log.

    Raises:
        RedisUnusable: It does not; the text says what to change.
    """
    settings = {}
    for name in ("appendonly", "appendfsync"):
        reply = (await link.send((("CONFIG", "GET", name),)))[0]
        settings[name] = "unknown" if isinstance(reply, RedisReplied) or not reply else reply[1].decode()
    replicas = await _replica_count(link)
    log.info(
        "durability %s: Redis at %s has appendonly %s, appendfsync %s, %s replica(s)",
        mode.value, shown, settings["appendonly"], settings["appendfsync"], replicas,
    )  # fmt: skip
    if mode is Durability.RELAXED:
        return
    if "unknown" in settings.values():
        log.warning("Redis at %s does not show its persistence: make sure of appendonly yes, appendfsync always", shown)
    elif settings != {"appendonly": "yes", "appendfsync": "always"}:
        raise RedisUnusable(
            f"--durability {mode.value} needs appendonly yes and appendfsync always; Redis at {shown} has appendonly "
            f"{settings['appendonly']} and appendfsync {settings['appendfsync']} (CONFIG SET, and its own file)"
        )
    if mode is Durability.REPLICATED and replicas == "0":
        raise RedisUnusable(
            f"--durability replicated needs at least one connected replica, and Redis at {shown} has none: nothing "
            "would be accepted"
        )


async def _replica_count(link: Link) -> str:
    reply = (await link.send((("INFO", "replication"),)))[0]
    if isinstance(reply, RedisReplied):
        return "unknown"
    found = [line.partition(b":")[2] for line in reply.split() if line.startswith(b"connected_slaves:")]
    return found[0].decode() if found else "unknown"
