"""A socket on its way from one room to another: it leaves the one, and joins the other when that counts.

Its leave is queued before any of this begins, behind all that it said. Cancelling is safe at any moment: then it is in
neither room.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from innkeeper.address import Address, parse_address
from innkeeper.close_codes import REFUSED, REPLACED, RESTARTING, SESSION_OVER, UNAVAILABLE
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper_edge.subprotocol import HELLO_S, read_moved
from innkeeper_edge.sweep import JOIN_S

if TYPE_CHECKING:
    from innkeeper_edge.edge import Edge, Kind
    from innkeeper_edge.feed import Feed
    from innkeeper_edge.member import Member
    from innkeeper_edge.session_member import SessionMember

log = logging.getLogger("innkeeper.edge")

_APPLIED_S = 2.0
"""How long a session waits in the old room to hear that all it said there is applied."""


async def move(edge: "Edge", member: "Member", target: str) -> None:
    """Take a raw socket to another room; until it is there nothing is read from it.

    Args:
        edge: Where the socket is.
        member: Its membership of the room it leaves; the same object is its membership of the target.
        target: Address of the room it goes to.
    """
    await member.has_left()
    found = _find(edge, member, target)
    if found is not None:
        address, kind = found
        member.begin_again(edge.loop.time(), max_message_bytes=kind.message_bytes)
        await _enter(edge, member, address)


async def move_session(edge: "Edge", member: "SessionMember", source: "Feed", target: str) -> None:
    """Take the socket of a session to another room, once its client has heard what the old one has of it.

    Args:
        edge: Where the socket is.
        member: Its membership of the room it leaves; the same object is its membership of the target.
        source: The room it leaves.
        target: Address of the room it goes to.
    """
    held = edge.hold(source.address)  # so that its cursor is heard of
    try:
        await member.has_left()
        if member.leave_letter in ("a", "d"):
            await member.has_applied(_APPLIED_S)
    finally:
        source.opened_sessions().forget(member)
        edge.release(held)
    if member.leave_letter in ("a", "d"):
        await _lead(edge, member, target, member.accepted)
    else:  # it comes back to where it was, and hears there what counts
        member.close_with(REPLACED if member.leave_letter == "o" else RESTARTING)


async def follow(edge: "Edge", member: "SessionMember", source: "Feed") -> None:
    """Lead a client that asks for a session that is over to where that was moved, if it was.

    Args:
        edge: Where the socket is.
        member: The socket; it is in no room.
        source: The room that it asked.
    """
    try:
        row = await source.link.call("HGET", source.keys.sessions, f"s:{member.session}")
    except (RedisUnavailable, RedisReplied) as error:
        log.warning("room %s: where a session went was not read: %s", source.address, error)
        member.close_with(UNAVAILABLE)
        return
    moved = read_moved(row)
    if moved is None:
        member.close_with(SESSION_OVER)
    else:
        accepted, target = moved
        await _lead(edge, member, target, accepted)


async def _lead(edge: "Edge", member: "SessionMember", target: str, accepted: int) -> None:
    """Tell a client where it goes, and take it there when it says hello."""
    try:
        async with asyncio.timeout(HELLO_S):
            hello = await member.invited(target, accepted)
    except TimeoutError:
        member.close_with(UNAVAILABLE)
        return
    found = _find(edge, member, target)
    if found is not None:
        address, kind = found
        member.begin_anew(hello, edge.loop.time(), message_bytes=kind.message_bytes)
        await _enter(edge, member, address)


def _find(edge: "Edge", member: "Member", target: str) -> "tuple[Address, Kind] | None":
    """Return the target; where the socket cannot go there it is closed."""
    address = parse_address(target)
    kind = edge.kinds.get(address.kind)
    if not edge.ready.is_set():
        member.close_with(RESTARTING)  # this edge has closed its other sockets already
    elif kind is None:
        log.warning("a member moves to %s, and no worker serves that kind", target)
        member.close_with(UNAVAILABLE)
    elif address not in member.grant.rooms:
        log.info("a member was moved to %s, where its token does not let it in", target)
        member.close_with(REFUSED)
    else:
        return address, kind
    return None


async def _enter(edge: "Edge", member: "Member", address: Address) -> None:
    try:
        async with asyncio.timeout(JOIN_S):
            feed = await edge.enter(address, member)
    except TimeoutError:
        member.close_with(UNAVAILABLE)
        return
    member.entered(edge, feed)
