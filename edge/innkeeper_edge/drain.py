"""The end of an edge that is asked to stop: its sockets go elsewhere one after another, then it leaves the registry."""

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from innkeeper.close_codes import RESTARTING
from innkeeper.errors import RedisUnavailable

if TYPE_CHECKING:
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.member import Member

log = logging.getLogger("innkeeper.edge")

NOTICE_PART: Final = 0.75
"""The part of the window in which clients that were given notice go by themselves, each at a moment of its own."""

_STEP_S = 0.02


async def drain(edge: "Edge", *, window_s: float, grace_s: float, hurry: asyncio.Event | None = None) -> None:
    """Send all sockets away, push their leaves, and leave the registry.

    At once it takes no new socket and is not ready any more. Sessions are told to go (``close-soon``); the others, and
    those that stay, are closed with 1012, spread over the window so that the other edges are not stormed.

    Args:
        edge: Not listening any more.
        window_s: Over how long sockets are sent away; 0: at once.
        grace_s: How long their leaves may take after that.
        hurry: Ends the window at once.
    """
    edge.draining = True
    edge.ready.clear()  # no request on a kept connection becomes a socket any more, or reaches a room
    edge.calls.drain()
    if window_s > 0 and edge.feeds:
        await _send_away(edge, window_s, hurry or asyncio.Event())
    try:
        async with asyncio.timeout(grace_s):
            while edge.feeds:
                for member in _sockets(edge):  # also those that were still on their way in
                    member.close_with(RESTARTING)
                await asyncio.sleep(_STEP_S)
            await edge.deregister()
    except (TimeoutError, RedisUnavailable):
        log.warning("not all leaves were pushed in %.0f s: the reaper will do it", grace_s)


def _sockets(edge: "Edge") -> "list[Member]":
    return [member for feed in edge.feeds.values() for member in feed.sockets()]


async def _send_away(edge: "Edge", window_s: float, hurry: asyncio.Event) -> None:
    """Give notice, and close what does not go by itself, each socket at its time."""
    sockets = _sockets(edge)
    log.info("%d socket(s) go elsewhere within %g s", len(sockets), window_s)
    began_s = edge.loop.time()
    due: list[tuple[float, Member]] = []
    for count, member in enumerate(sockets):
        first = NOTICE_PART if member.close_soon(window_s) else 0.0
        due.append((began_s + window_s * random.uniform(first, 1.0), member))  # noqa: S311 - no secret
        if count % 500 == 499:  # noqa: PLR2004 - the rooms go on meanwhile
            await asyncio.sleep(0)
    due.sort(key=lambda pair: -pair[0])
    while due and edge.feeds and not hurry.is_set():
        now_s = edge.loop.time()
        while due and due[-1][0] <= now_s:
            due.pop()[1].close_with(RESTARTING)
        try:
            async with asyncio.timeout(_STEP_S):
                await hurry.wait()
        except TimeoutError:
            continue
