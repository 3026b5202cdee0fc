"""One socket of a room at this edge: writes whole batches, closes in order, and never lets a slow reader hurt others."""

import asyncio
import logging
import secrets
from collections.abc import Callable

from aiohttp import web

from innkeeper.close_codes import SLOW_READER, CloseCode
from innkeeper_edge.frames import encode_close

log = logging.getLogger("innkeeper.edge")

QUEUE_BYTES = 1_048_576
PENDING_COUNT = 64
PENDING_BYTES = 262_144
_CLOSE_S = 5.0
_PING = b"\x89\x00"


class Member:
    """A socket on its way into a room, in it, or on its way out.

    Attributes:
        entered_at_s: When it was opened, by the loop's clock.
        heard_at_s: When its client was last heard of.
        join: The iseq of its join once that was committed; 0 before: then it receives nothing.
        waiting_count: Messages taken from the socket and not yet accepted by the room.
    """

    __slots__ = (
        "_drained",
        "_on_closing",
        "_socket",
        "_transport",
        "_violation",
        "closing",
        "entered_at_s",
        "heard_at_s",
        "id",
        "join",
        "left",
        "outgoing",
        "pushed",
        "waiting_bytes",
        "waiting_count",
    )

    def __init__(
        self, socket: web.WebSocketResponse, now_s: float, on_closing: Callable[[asyncio.Task[bool]], None]
    ) -> None:
        self.id = f"c-{secrets.token_hex(6)}"
        self.join = 0
        self.closing = False
        self.left = False
        self.pushed = False
        self.outgoing: list[bytes] = []
        self.entered_at_s = self.heard_at_s = now_s
        self.waiting_count = 0
        self.waiting_bytes = 0
        self._socket = socket
        self._transport: asyncio.WriteTransport | None = None
        self._violation: CloseCode | None = None
        self._on_closing = on_closing
        self._drained: asyncio.Future[None] | None = None

    def attach(self, transport: asyncio.WriteTransport) -> None:
        """Take the transport of the prepared socket; a violation seen before closes it now."""
        self._transport = transport
        if self._violation is not None:
            self.close_with(self._violation)

    def write(self, frames: bytes) -> None:
        """Send finished frames in one write; a reader with more than 1 MiB waiting is closed with 4508."""
        transport = self._transport
        if self.closing or transport is None:
            return
        transport.write(frames)
        if transport.get_write_buffer_size() > QUEUE_BYTES:
            log.info("member %s: slow reader, closed", self.id)
            self.close_abruptly(SLOW_READER)

    def close(self, code: int, reason: str) -> None:
        """Close after all that was written; waits for the client's side in the background."""
        if self.closing:
            return
        self.closing = True
        self._on_closing(asyncio.ensure_future(self._socket.close(code=code, message=reason.encode())))

    def close_with(self, code: CloseCode) -> None:
        """Close with a code of the table; before the socket is attached, as soon as it is."""
        if self._transport is None:
            self._violation = code
        else:
            self.close(code.code, code.reason)

    def close_abruptly(self, code: CloseCode) -> None:
        """Close a socket whose client does not read: the close frame stands behind what waits, then it is cut."""
        self.closing = True
        if self._transport is not None:
            self._transport.write(encode_close(code.code, code.reason))
            asyncio.get_running_loop().call_later(_CLOSE_S, self._transport.abort)

    def ping(self) -> None:
        """Ask the client for a sign of life."""
        if not self.closing and self._transport is not None:
            self._transport.write(_PING)

    # --- back-pressure towards the socket -------------------------------------------------------------------------
    def took(self, size_bytes: int) -> None:
        """Count a message taken from the socket."""
        self.waiting_count += 1
        self.waiting_bytes += size_bytes

    def settled(self, size_bytes: int) -> None:
        """Count a message as accepted, or dropped with its sender."""
        self.waiting_count -= 1
        self.waiting_bytes -= size_bytes
        if self._drained is not None and not self.is_overfull and not self._drained.done():
            self._drained.set_result(None)

    @property
    def is_overfull(self) -> bool:
        """Whether reading the socket should wait."""
        return self.waiting_count >= PENDING_COUNT or self.waiting_bytes >= PENDING_BYTES

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
