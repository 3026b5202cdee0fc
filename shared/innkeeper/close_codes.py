"""Close codes: one table for the server, the clients and the docs.

4000-4499 are final (the client should not come back by itself), 4500-4999 and the standard codes marked so may be
retried. The texts are the close reasons that go over the wire: never a trace, never a user's data.
"""

from typing import Final, NamedTuple

REFUSAL_HEADER: Final = "Innkeeper-Refusal"
"""Says ``error: message`` in an answer before the upgrade: who wants a socket sees no body."""


class CloseCode(NamedTuple):
    """One way a socket ends: number, reason on the wire, may the client retry, and what it means."""

    code: int
    reason: str
    retry: bool
    meaning: str


NORMAL = CloseCode(1000, "", False, "closed by the client or by the room without a code of its own")
PROTOCOL_ERROR = CloseCode(1002, "protocol error", False, "a frame that RFC 6455 forbids")
INVALID_UTF8 = CloseCode(1007, "invalid utf-8", False, "a text message that is not UTF-8")
TOO_MANY_FRAGMENTS = CloseCode(
    1008, "too many fragments", False, "a message, or messages at once, in more pieces than the edge takes"
)
TOO_BIG = CloseCode(1009, "message too big", False, "a message over the room's limit (64 KiB unless the class says so)")
RESTARTING = CloseCode(1012, "edge restarting", True, "this edge goes or starts anew; another takes the socket")
UNAVAILABLE = CloseCode(1013, "try again later", True, "the room could not take the join, or a message, in time (10 s)")
BAD_FRAME = CloseCode(4400, "bad frame", False, "a frame that innkeeper.v1 does not know, or a message out of order")
EXPIRED = CloseCode(4401, "token expired", False, "the time of its token is over: come back with a new one")
REFUSED = CloseCode(
    4403, "refused", False, "the room's authorize or on_connect refused the connection, or its token does not let it in"
)
DESTROYED = CloseCode(
    4404, "room destroyed", False, "the room was destroyed: its state is gone, and a new connection finds a fresh room"
)
KICKED = CloseCode(4405, "kicked", False, "an operator closed it (`innkeeper kick`)")
REPLACED = CloseCode(4409, "replaced", False, "a newer connection of the same session took over")
SESSION_OVER = CloseCode(
    4410, "session over", False, "the session has ended or is not known (any more): start a new one, with a new secret"
)
FULL = CloseCode(4503, "room full", True, "the room has max_connections members")
SILENT = CloseCode(4507, "no answer to pings", True, "the client was silent for 30 s, pings included")
SLOW_READER = CloseCode(
    4508, "slow reader", True, "more than 1 MiB waited for this socket, or nothing of it moved for 10 s"
)
RESYNC = CloseCode(4512, "resync", True, "history was cut: reconnect, on_connect is the snapshot")
TOO_FAST = CloseCode(4529, "too fast", True, "messages over the rate for 30 s, though slowed down; or too many pings")

TABLE: tuple[CloseCode, ...] = (
    NORMAL,
    PROTOCOL_ERROR,
    INVALID_UTF8,
    TOO_MANY_FRAGMENTS,
    TOO_BIG,
    RESTARTING,
    UNAVAILABLE,
    BAD_FRAME,
    EXPIRED,
    REFUSED,
    DESTROYED,
    KICKED,
    REPLACED,
    SESSION_OVER,
    FULL,
    SILENT,
    SLOW_READER,
    RESYNC,
    TOO_FAST,
)

_RETRY = {code.code: code.retry for code in TABLE}


def is_final(code: int) -> bool:
    """Return whether a client that is closed with a code stays away: by the table, else 3000-4499 are final."""
    return not _RETRY.get(code, not 3000 <= code <= 4499)  # noqa: PLR2004 - the ranges are the module's


class Refusal(NamedTuple):
    """One way a handshake or request ends before it reaches a room because of a limit.

    ``retry_after_s`` is what the header ``Retry-After`` says.
    """

    status: int
    error: str
    retry_after_s: int
    meaning: str


TOO_MANY_OF_ADDRESS = Refusal(
    429, "too_many_of_address", 10, "this address has as many sockets, or unanswered requests, as it may have"
)
TOO_MANY_OF_USER = Refusal(
    429, "too_many_of_user", 10, "this user has as many sockets, or unanswered requests, as one may have"
)
DRAINING = Refusal(503, "draining", 1, "this edge is being stopped: another takes the socket")
EDGE_FULL = Refusal(
    503, "edge_full", 5, "this edge has as many sockets, or unanswered requests, as it may have: another may have room"
)
TOO_MANY_HANDSHAKES = Refusal(
    503, "too_many_handshakes", 1, "more handshakes and requests a second than this edge takes"
)
NOT_READY = Refusal(503, "unavailable", 1, "this edge has not reached Redis yet")

REFUSALS: tuple[Refusal, ...] = (
    TOO_MANY_OF_ADDRESS,
    TOO_MANY_OF_USER,
    DRAINING,
    EDGE_FULL,
    TOO_MANY_HANDSHAKES,
    NOT_READY,
)
