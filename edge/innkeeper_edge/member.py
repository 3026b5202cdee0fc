"""One socket of a room at this edge: writes whole batches, closes in order, lets no slow reader hurt others."""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import TYPE_CHECKING

import orjson

from innkeeper.close_codes import INVALID_UTF8, SLOW_READER, UNAVAILABLE, CloseCode
from innkeeper.connection import User
from innkeeper.functions import PushEvent
from innkeeper_edge.auth import Grant, Patterns
from innkeeper_edge.guard import is_utf8
from innkeeper_edge.guarded_socket import GuardedSocket
from innkeeper_edge.move import move

if TYPE_CHECKING:
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.feed import Feed
    from innkeeper_edge.rates import Meter

log = logging.getLogger("innkeeper.edge")

QUEUE_BYTES = 1_048_576
PENDING_COUNT = 64
PENDING_BYTES = 262_144
_PING = b"\x89\x00"
_NOBODY = Grant(User("", ""), Patterns([]))


class Member:
    """A socket on its way into a room, in it, or on its way out.

    Attributes:
        entered_at_s: When it was opened, by the loop's clock.
        grant: Whose it is, which rooms it may enter, and until when.
        heard_at_s: When its client was last heard of.
        join: The iseq of its join once that was committed; 0 before: then it receives nothing.
        waiting_count: Messages taken from the socket and not yet accepted by the room.
        taken_count: Messages taken from the socket since its rate was judged last, and their bytes.
        meter: What it may still say, while it talks fast.
    """

    __slots__ = (
        "_drained",
        "_edge",
        "_feed",
        "_late_bytes",
        "_leave",
        "_mover",
        "_seen_bytes",
        "_socket",
        "_stalled_looks",
        "_transport",
        "entered_at_s",
        "grant",
        "heard_at_s",
        "id",
        "is_throttled",
        "join",
        "left",
        "meter",
        "outgoing",
        "pushed",
        "taken_bytes",
        "taken_count",
        "waiting_bytes",
        "waiting_count",
    )

    def __init__(self, socket: GuardedSocket, transport: asyncio.WriteTransport, now_s: float) -> None:
        self.id = f"c-{secrets.token_hex(6)}"
        self.grant = _NOBODY
        self.join = 0
        self.left = False
        self.pushed = False
        self.outgoing: list[bytes] = []
        self.entered_at_s = self.heard_at_s = now_s
        self.waiting_count = 0
        self.waiting_bytes = 0
        self.taken_count = self.taken_bytes = 0
        self.meter: Meter | None = None
        self.is_throttled = False
        self._late_bytes = self._seen_bytes = self._stalled_looks = 0
        self._socket = socket
        self._transport = transport
        self._drained: asyncio.Future[None] | None = None
        self._edge: Edge | None = None
        self._feed: Feed | None = None
        self._mover: asyncio.Task[None] | None = None
        self._leave: asyncio.Future[None] | None = None

    def entered(self, edge: "Edge", feed: "Feed") -> None:
        """Note where its messages go; reading goes on where it was on its way from another room."""
        self._edge, self._feed = edge, feed
        self._mover = None
        self._go_on()

    # --- from room to room ----------------------------------------------------------------------------------------
    def move(self, target: str) -> None:
        """Leave this room and join another, ``kind/name``; until it is there nothing is read from the socket."""
        edge, feed = self._edge, self._feed
        if edge is None or feed is None or self.closing:
            return
        self._socket.hand_to(None)
        self._feed = None
        self._leave = edge.loop.create_future()
        edge.leave(feed, self)  # at once: the socket may be gone before the way begins
        self._mover = edge.start(self._way(edge, feed, target))

    def _way(self, edge: "Edge", source: "Feed", target: str) -> Coroutine[None, None, None]:  # noqa: ARG002 - see sessions
        return move(edge, self, target)

    async def has_left(self) -> None:
        """Return when the room has accepted the leave, or it counts no more."""
        if self._leave is not None:
            await self._leave

    def leave_settled(self) -> None:
        """Hear that its leave was accepted, or counts no more."""
        if self._leave is not None and not self._leave.done():
            self._leave.set_result(None)

    def begin_again(self, now_s: float, *, max_message_bytes: int) -> None:
        """Be as new, for another room, whose messages may be smaller."""
        self.join, self.left, self.entered_at_s = 0, False, now_s
        self._socket.lower_limit(max_message_bytes)

    def gone(self) -> None:
        """Leave wherever it is: its socket is gone."""
        if self._mover is not None:
            self._mover.cancel()
        elif self._edge is not None and self._feed is not None:
            self._edge.leave(self._feed, self)

    # --- what comes and goes --------------------------------------------------------------------------------------

    def register(self, feed: "Feed") -> None:
        """Stand among the sockets of a room."""
        feed.fanout.members[self.id] = self

    def unregister(self, feed: "Feed") -> None:
        """Stand there no more."""
        feed.fanout.remove(self)

    def join_event(self, user: User) -> PushEvent:
        """Return the event that brings it into the room."""
        return PushEvent("join", self.id, orjson.dumps({"user": list(user)}))

    def leave_event(self) -> PushEvent:
        """Return the event that says that its socket is gone."""
        return PushEvent("leave", self.id, b"")

    def ended(self, code: int) -> None:
        """Hear with what code the client closed."""

    def take(self, payload: bytes, *, is_text: bool) -> bool:
        """Take a message of its client; return whether the next may follow at once. Invalid UTF-8 closes with 1007."""
        edge, feed = self._edge, self._feed
        assert edge is not None  # noqa: S101 - nothing is read before it has entered
        self.heard_at_s = edge.loop.time()
        if is_text and not is_utf8(payload):
            self.close_with(INVALID_UTF8)
        elif feed is not None and not self.closing:
            edge.take(feed, self, "text" if is_text else "binary", payload)
        return not self.is_overfull

    @property
    def closing(self) -> bool:
        """Whether this side has closed the socket; then nothing is written or taken any more."""
        return self._socket.closing_code is not None

    def write(self, frames: bytes) -> None:
        """Send finished frames in one write; a reader with more than 1 MiB waiting is closed with 4508."""
        transport = self._transport
        # Of a connection that is gone the leave is on its way. uvloop would raise here, in the middle of a fan-out.
        if self._socket.closing_code is not None or transport.is_closing():
            return
        # Judged before writing: one batch may be larger than the queue, and that is not its reader's fault.
        queued_bytes = transport.get_write_buffer_size()
        if queued_bytes > QUEUE_BYTES:
            log.info("member %s: slow reader, closed", self.id)
            self.close_with(SLOW_READER)
            return
        if queued_bytes:
            self._late_bytes += len(frames)
        transport.write(frames)

    @property
    def queued_bytes(self) -> int:
        """What waits to be written to it."""
        return 0 if self._transport.is_closing() else self._transport.get_write_buffer_size()

    @property
    def behind_bytes(self) -> int:
        """What waited when it was looked at last."""
        return self._seen_bytes

    def stalled_looks(self, queued_bytes: int) -> int:
        """Return how many times in a row it was found that nothing of what waited had moved; this is one more look."""
        is_stalled = self._seen_bytes and queued_bytes >= self._seen_bytes + self._late_bytes
        self._stalled_looks = self._stalled_looks + 1 if is_stalled else 0
        self._seen_bytes, self._late_bytes = queued_bytes, 0
        return self._stalled_looks

    def cut_off(self, code: CloseCode) -> None:
        """Close without waiting for what it has not read: it would take memory for nothing."""
        self.close_with(code)
        self._transport.abort()

    def close(self, code: int, reason: str) -> None:
        """Close after all that was written; a peer that does not answer is cut off after two seconds."""
        self._socket.close(code, reason)

    def close_with(self, code: CloseCode) -> None:
        """Close with a code of the table."""
        self._socket.close(code.code, code.reason)

    def overloaded(self) -> None:
        """Hear that the room is full and has taken nothing for long: its client shall try again later."""
        self.close_with(UNAVAILABLE)

    def close_soon(self, within_s: float) -> bool:  # noqa: ARG002 - see sessions
        """Tell the client that this edge stops; return whether it was told, and goes by itself within that time."""
        return False

    def ping(self) -> None:
        """Ask the client for a sign of life."""
        if not self.closing and not self._transport.is_closing():
            self._transport.write(_PING)

    # --- back-pressure towards the socket -------------------------------------------------------------------------
    def took(self, size_bytes: int) -> None:
        """Count a message taken from the socket."""
        edge = self._edge
        if edge is not None:
            if not self.taken_count:
                edge.talkers.append(self)
            elif self.taken_count >= edge.rates.most_count:
                edge.rates.hold(self)
        self.taken_count += 1
        self.taken_bytes += size_bytes
        self.waiting_count += 1
        self.waiting_bytes += size_bytes

    def settled(self, size_bytes: int) -> None:
        """Count a message as accepted, or dropped with its sender."""
        self.waiting_count -= 1
        self.waiting_bytes -= size_bytes
        self._go_on()

    def counted(self, size_bytes: int) -> None:
        """Count what is not pushed, such as a message said again: whoever floods with it has a rate, too."""
        self.took(size_bytes)
        self.settled(size_bytes)

    def throttle(self) -> None:
        """Read nothing for a while: it was too fast."""
        self.is_throttled = True

    def unthrottle(self) -> None:
        """Read on."""
        self.is_throttled = False
        self._go_on()

    def _go_on(self) -> None:
        if self._drained is not None and not self.is_overfull and not self._drained.done():
            self._drained.set_result(None)

    @property
    def is_overfull(self) -> bool:
        """Whether reading the socket should wait."""
        return (
            self.waiting_count >= PENDING_COUNT
            or self.waiting_bytes >= PENDING_BYTES
            or self.is_throttled
            or self._mover is not None
        )

    async def drained(self) -> None:
        """Return when enough was accepted to read on; meanwhile TCP slows the client down."""
        while self.is_overfull and not self.closing:
            self._drained = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(1):
                    await self._drained
            except TimeoutError:
                continue
            finally:
                self._drained = None
        self.heard_at_s = asyncio.get_running_loop().time()  # it could not be heard meanwhile
