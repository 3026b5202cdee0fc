"""A socket behind its frame guard: how it is opened, and how it closes so that the peer hears why.

What it needs of aiohttp (seen in 3.14.5), no private name among it:

- ``WebSocketResponse.prepare(request)`` hands its reader to ``request.protocol.set_parser(reader, ...)``, once. The
  public place for the guard is *inside* prepare: a second call of set_parser fails an assertion, and by then a first
  frame that came in the handshake's segment has gone to the reader. So :func:`install` calls prepare with a view of
  the request whose ``protocol.set_parser`` puts the guard in front; all else is the request itself. If prepare ever
  stops calling it, install raises.
- set_parser feeds buffered bytes through ``feed_data``; the connection calls ``feed_eof`` when it is lost.
- ``receive()`` does not wait while the queue holds a message, and a reader that back-pressure stopped goes on parsing
  before its queue can be empty: so aiohttp holds nothing back when the receive loop waits, and what the guard then
  hands to a taker overtakes nothing (``tests/integration/test_frame_order.py``).
- back-pressure is between the reader's queue and the transport and passes the guard by; so does the heartbeat, which
  set_parser gets as its second argument.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from aiohttp import web

from innkeeper.close_codes import CloseCode
from innkeeper_edge.frames import encode_close
from innkeeper_edge.guard import FrameGuard, FrameReader, Taker
from innkeeper_edge.limits import BURST_S

_UNSENT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_UNSENT_BYTES = 131_072

LINGER_S = 2.0
"""How long a closed socket waits for the peer's close frame."""


class GuardedSocket:
    """How the owner of a socket closes it, and learns that it is closed. Made by :func:`install`.

    ``WebSocketResponse.close`` from another task than the receiving one ends the connection right behind its close
    frame. A client that is still sending is then answered with a reset, which may erase the close frame before it is
    read (RFC 9112, 9.6): a refusal looks like an accident, and the client comes back. So this close goes on reading
    until the peer has closed, and drops what it reads.
    """

    __slots__ = (
        "_control_at_s",
        "_control_left",
        "_control_rate",
        "_deadline",
        "_guard",
        "_is_lost",
        "_linger_s",
        "_lost",
        "_on_violation",
        "_transport",
        "closing_code",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        on_violation: Callable[[CloseCode], object],
        *,
        linger_s: float,
        control_rate: int = 0,
    ) -> None:
        self.closing_code: int | None = None
        """What this side closed the socket with, None while it has not."""
        self._guard: FrameGuard | None = None
        self._transport = transport
        self._on_violation = on_violation
        self._linger_s = linger_s
        self._control_rate = control_rate
        self._control_left = control_rate * BURST_S
        self._control_at_s = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._is_lost = False
        self._lost: asyncio.Future[None] | None = None  # made when asked for: most sockets never are

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, take nothing more, end the connection when the peer has closed too or lingered too long.

        The frame stands behind all that was written; a peer that reads none of it is cut off just the same. Returns at
        once and does nothing where the socket is closed or closing. Write nothing to it afterwards. The receive loop
        ends by itself, after the messages that were received before.

        Raises:
            ValueError: The code may not be sent, see :func:`~innkeeper_edge.frames.encode_close`; nothing was done.
        """
        if self.closing_code is not None or self._guard is None or self._transport.is_closing():
            return
        frame = encode_close(code, reason)
        self.closing_code = code
        self._guard.discard()
        self._transport.write(frame)
        self._deadline = asyncio.get_running_loop().call_later(self._linger_s, self._transport.abort)
        # Back-pressure may have stopped the reading; what is read now is dropped, so it costs no memory.
        if not self._transport.is_reading():
            self._transport.resume_reading()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, after :meth:`close` never longer than it lingers; cancelling is safe."""
        if not self._is_lost:
            if self._lost is None:
                self._lost = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._lost)

    def hand_to(self, taker: Taker | None) -> None:
        """Hand small whole messages straight to a taker, or to nobody; only while the receive loop waits."""
        if self._guard is not None and self.closing_code is None:
            self._guard.taker = taker

    def lower_limit(self, max_message_bytes: int) -> None:
        """Take no larger messages than this from now on, nor than before."""
        if self._guard is not None:
            self._guard.lower_limit(max_message_bytes)

    def guard(self, reader: FrameReader, *, max_message_bytes: int) -> FrameGuard:
        """Return the guard of this socket in front of its reader."""
        self._guard = FrameGuard(reader, self, max_message_bytes=max_message_bytes)
        return self._guard

    def admits_control(self) -> bool:
        """Count a ping or pong; return whether it may pass."""
        rate = self._control_rate
        if not rate:
            return True
        now_s = asyncio.get_running_loop().time()
        left = min(rate * BURST_S, self._control_left + (now_s - self._control_at_s) * rate) - 1
        self._control_left, self._control_at_s = left, now_s
        return left >= 0

    def violated(self, code: CloseCode) -> None:
        """Tell the owner, then close."""
        self._on_violation(code)
        self.close(code.code, code.reason)

    def peer_closed(self) -> None:
        """End the connection once all is written; the deadline stays, for a peer that does not read."""
        self._transport.close()

    def connection_lost(self) -> None:
        """Let the waiting ones go."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._is_lost = True
        if self._lost is not None:
            self._lost.set_result(None)


class _GuardedProtocol:
    """The connection of a request, where set_parser puts the guard in front of the reader it is given."""

    __slots__ = ("_guarded_connection", "_make_guard")

    def __init__(self, connection: web.RequestHandler, make_guard: Callable[[FrameReader], FrameGuard]) -> None:
        self._guarded_connection = connection
        self._make_guard: Callable[[FrameReader], FrameGuard] | None = make_guard

    @property
    def is_guarded(self) -> bool:
        return self._make_guard is None

    def set_parser(self, parser: FrameReader, *args: Any, **kwargs: Any) -> None:
        assert self._make_guard is not None  # noqa: S101 - it is called once
        guard = self._make_guard(parser)
        self._make_guard = None  # this stays as long as the socket
        self._guarded_connection.set_parser(cast("Any", guard), *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guarded_connection, name)


class _GuardedRequest:
    """A request in all but its connection, good for prepare."""

    __slots__ = ("_guarded_request", "protocol")

    def __init__(self, request: web.BaseRequest, protocol: _GuardedProtocol) -> None:
        self._guarded_request = request
        self.protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guarded_request, name)


async def install(
    request: web.BaseRequest,
    ws: web.WebSocketResponse[bool],
    *,
    max_message_bytes: int,
    on_violation: Callable[[CloseCode], object],
    linger_s: float = LINGER_S,
    control_rate: int = 0,
) -> GuardedSocket:
    """Prepare a socket with a guard in front of its reader; call it instead of ``ws.prepare(request)``.

    The first frame is guarded also where it came with the handshake, so ``on_violation`` may be called before this
    returns. Cancelling is as safe as cancelling ``prepare``.

    Args:
        request: The upgrade request, after :func:`~innkeeper_edge.handshake.check_handshake`.
        ws: Not prepared yet, made with ``compress=False`` (deflate sets a reserved bit) and ``max_msg_size`` one above
            ``max_message_bytes`` (aiohttp refuses a message of exactly its limit).
        max_message_bytes: Largest message over all its fragments; exactly this many bytes pass.
        on_violation: Gets the code the socket is being closed with, at most once, just before the close frame is
            written. It need not close anything itself.
        linger_s: How long a closed socket waits for the peer's close frame.
        control_rate: Pings and pongs per second, which may be saved up for ten seconds; 0: no limit.

    Raises:
        RuntimeError: The socket offers deflate or was prepared before, or this aiohttp does not hand its reader over
            the way the guard needs. Nothing may be received from such a socket.
        ConnectionResetError: The client is gone already, as from ``prepare``.
    """
    if ws.compress:
        raise RuntimeError("the frame guard takes no deflate: make the WebSocketResponse with compress=False")
    if request.transport is None:
        raise ConnectionResetError("Connection lost")
    guarded = GuardedSocket(request.transport, on_violation, linger_s=linger_s, control_rate=control_rate)
    protocol = _GuardedProtocol(request.protocol, partial(guarded.guard, max_message_bytes=max_message_bytes))
    await ws.prepare(cast("web.BaseRequest", _GuardedRequest(request, protocol)))
    if not protocol.is_guarded:
        raise RuntimeError("the frame guard is not in place: prepare() did not call request.protocol.set_parser()")
    _keep_queue_short(request.transport)
    return guarded


def _keep_queue_short(transport: asyncio.BaseTransport | None) -> None:
    """Let the kernel take no more than 128 KiB that the peer has no room for.

    It would take some 4 MiB for a peer that does not read: memory that nothing here counts.
    """
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is not None and _UNSENT is not None:
        with contextlib.suppress(OSError):  # a Unix socket has no such thing, and a reset one not any more
            connection.setsockopt(socket.IPPROTO_TCP, _UNSENT, _UNSENT_BYTES)
