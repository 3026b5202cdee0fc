"""A socket on its way from one room to another: it leaves the one, and joins the other when that counts."""

import asyncio
import logging
from typing import TYPE_CHECKING

from innkeeper.address import parse_address
from innkeeper.close_codes import UNAVAILABLE
from innkeeper_edge.sweep import JOIN_S

if TYPE_CHECKING:
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.feed import Feed
    from innkeeper_edge.member import Member

log = logging.getLogger("innkeeper.edge")


async def move(edge: "Edge", member: "Member", source: "Feed", target: str) -> None:
    """Take a socket to another room; until it is there nothing is read from it.

    Its leave is queued before anything waits, behind all that it said. Cancelling is safe at any moment: then it is in
    neither room.

    Args:
        edge: Where the socket is.
        member: Its membership of the source; the same object is its membership of the target.
        source: The room it leaves.
        target: Address of the room it goes to.
    """
    left = member.expect_leave()
    edge.leave(source, member)
    await left
    address = parse_address(target)
    kind = edge.kinds.get(address.kind)
    if kind is None:
        log.warning("room %s: a member moves to %s, and no worker serves that kind", source.address, target)
        member.close_with(UNAVAILABLE)
        return
    member.begin_again(edge.loop.time(), max_message_bytes=kind.message_bytes)
    try:
        async with asyncio.timeout(JOIN_S):
            feed = await edge.enter(address, member, member.user)
    except TimeoutError:
        member.close_with(UNAVAILABLE)
        return
    member.entered(edge, feed)
