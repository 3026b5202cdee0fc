"""A new token for an open socket: its stay is prolonged without a reconnection."""

import logging
import math
import time
from typing import TYPE_CHECKING

from innkeeper_edge.auth.grant import Grant

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.session_member import SessionMember

log = logging.getLogger("innkeeper.edge")


def left_s(grant: Grant) -> int | None:
    """Return for how many whole seconds a grant still counts; None: for ever, or a new token would not help."""
    return (
        None
        if math.isinf(grant.expires_s) or not grant.is_renewable
        else max(0, math.floor(grant.expires_s - time.time()))
    )


async def renew(edge: "Edge", member: "SessionMember", room: "Address", token: str) -> None:
    """Take a new token of a member's client, and tell it what came of it.

    One that is not valid, of another user, or without this room changes nothing: the socket then lives as long as its
    old token.
    """
    member.took(len(token))  # many of them are slowed down like messages
    try:
        grant = await edge.authenticator.renew(token)
    finally:
        member.settled(len(token))
    if grant is None or grant.user.id != member.grant.user.id or room not in grant.rooms:
        log.info("member %s: its new token was refused", member.id)
        member.say(error="token_refused")
    else:
        member.grant = grant._replace(user=member.grant.user)
        member.say(expires=left_s(grant))
