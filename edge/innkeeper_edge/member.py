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


class Member:
    """A socket on its way into a room, in it, or on its way out.

    Attributes:
        join: The iseq of its join once that was committed; 0 before: then it receives nothing.
        waiting_count: Messages taken from the socket and not yet accepted by the room.
    """

    __slots__ = (
        "_drained", "_on_closing", "_socket", "_transport", "closing", "id", "join", "left", "outgoing", "pushed",
        "waiting_bytes", "waiting_count",
    )  # fmt: skip

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.WriteTransport,
        on_closing: Callable[[asyncio.Task[bool]], None],
    ) -> None:
        self.id = f"c-{secrets.token_hex(6)}"
        self.join = 0
        self.closing = False
        self.left = False
        self.pushed = False
        self.outgoing: list[bytes] = []
        self.waiting_count = 0
        self.waiting_bytes = 0
        self._socket = socket
        self._transport = transport
        self._on_closing = on_closing
        self._drained: asyncio.Future[None] | None = None

    def write(self, frames: bytes) -> None:
        """Send finished frames in one write; a reader with more than 1 MiB waiting is closed with 4508."""
        if self.closing:
            return
        transport = self._transport
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
        """Close with a code of the table."""
        self.close(code.code, code.reason)

    def close_abruptly(self, code: CloseCode) -> None:
        """Close a socket whose client does not read: the close frame stands behind what waits, then it is cut."""
        self.closing = True
        self._transport.write(encode_close(code.code, code.reason))
        asyncio.get_running_loop().call_later(_CLOSE_S, self._transport.abort)

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
