"""The wake queues of the kinds that a worker serves: where it hears of rooms that want an owner."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from innkeeper import keys
from innkeeper.cluster import Cluster
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.topology import Commands, Where, open_link

log = logging.getLogger("innkeeper.worker")

_WAKES_AT_ONCE = 32  # at 8 the pops alone took 1 s for 500 rooms; more would take them from idle workers
_BLOCK_S = 1


class WakeQueues:
    """Takes rooms from the queues, over connections that may block.

    Args:
        where: Where Redis is.
        kinds: Whose queues.
        timeout_s: Of a command that does not block.
    """

    def __init__(self, where: Where, kinds: Iterable[str], *, timeout_s: float) -> None:
        groups = [[keys.wake_queue(kind) for kind in kinds]]
        if isinstance(where, Cluster):
            # They may be in different slots, and one that blocks must not hold up another on its node.
            groups = [[queue] for queue in groups[0]]
        wait_s = _BLOCK_S + 2 * timeout_s
        self._links: list[tuple[list[str], Commands]] = [
            (group, open_link(where, timeout_s=wait_s, name="wake queue")) for group in groups
        ]

    async def serve(
        self, consider: Callable[[str], None], *, may_take: Callable[[], bool], until: Callable[[], bool]
    ) -> None:
        """Call ``consider`` with each room, as ``kind/name``, while it may take any, until asked to stop."""
        await asyncio.gather(*(_serve(queues, link, consider, may_take, until) for queues, link in self._links))

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(link.close() for _, link in self._links))


async def _serve(
    queues: list[str],
    link: Commands,
    consider: Callable[[str], None],
    may_take: Callable[[], bool],
    until: Callable[[], bool],
) -> None:
    while not until():
        if not may_take():
            await asyncio.sleep(0.01)
            continue
        try:
            popped = await link.call("BZPOPMIN", *queues, _BLOCK_S)
            if not popped:
                continue
            consider(popped[1].decode())
            more = await link.call("ZPOPMIN", popped[0], _WAKES_AT_ONCE - 1)
        except (RedisUnavailable, RedisReplied) as error:
            log.debug("wake queue: %s", error)
            await asyncio.sleep(0.05)
            continue
        for name in more[::2]:
            consider(name.decode())
