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
_NO_PLACE_S = 0.02


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
        self, consider: Callable[[str], None], *, places: Callable[[], float], until: Callable[[], bool]
    ) -> None:
        """Call ``consider`` with each room, as ``kind/name``, while there are ``places`` for any, until asked to stop.

        What there is no place for stays in the queue, for others or for later.
        """
        await asyncio.gather(*(_serve(queues, link, consider, places, until) for queues, link in self._links))

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(link.close() for _, link in self._links))


async def _serve(
    queues: list[str],
    link: Commands,
    consider: Callable[[str], None],
    places: Callable[[], float],
    until: Callable[[], bool],
) -> None:
    while not until():
        if places() <= 0:
            await asyncio.sleep(_NO_PLACE_S)
            continue
        try:
            popped = await link.call("BZPOPMIN", *queues, _BLOCK_S)
            if not popped:
                continue
            consider(popped[1].decode())
            at_once = min(places(), _WAKES_AT_ONCE - 1)
            more = await link.call("ZPOPMIN", popped[0], int(at_once)) if at_once > 0 else ()
        except (RedisUnavailable, RedisReplied) as error:
            log.debug("wake queue: %s", error)
            await asyncio.sleep(0.05)
            continue
        for name in more[::2]:
            consider(name.decode())
