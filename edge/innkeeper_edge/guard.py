"""The frame guard: refuses what aiohttp's WebSocket reader lets through, and closes sockets so that peers hear why.

It stands between the connection and aiohttp's reader, walks frame headers and hands the same bytes on; payloads are
neither copied nor unmasked. Everything before the first violation reaches the reader, nothing of it or after it does.

What it needs of aiohttp (seen in 3.14.5), no private name among it:

- ``WebSocketResponse.prepare(request)`` hands its reader to ``request.protocol.set_parser(reader, ...)``, once. The
  public place for it is *inside* prepare: a second call of set_parser fails an assertion, and by then a first frame
  that came in the handshake's segment has gone to the reader. So :func:`install` calls prepare with a view of the
  request whose ``protocol.set_parser`` puts the guard in front; all else is the request itself. If prepare ever stops
  calling it, install raises.
- the reader has ``feed_data(bytes) -> (eof, tail)`` and ``feed_eof()``; set_parser feeds buffered bytes through them,
  the connection calls ``feed_eof`` when it is lost.
- back-pressure is between the reader's queue and the transport and passes the guard by; so does the heartbeat, which
  set_parser gets as its second argument.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from aiohttp import web

from innkeeper.close_codes import INVALID_UTF8, PROTOCOL_ERROR, TOO_BIG, TOO_MANY_FRAGMENTS, CloseCode
from innkeeper_edge.frames import encode_close, is_close_code

MAX_FRAGMENT_COUNT = 64
"""Frames one message may come in."""

LINGER_S = 2.0
"""How long a closed socket waits for the peer's close frame."""

# First bytes a frame may start with: anything else is a reserved bit, an unknown opcode, a fragmented control frame,
# a continuation of nothing or a message inside a message.
_CONTROL = b"\x88\x89\x8a"
_BETWEEN_MESSAGES = frozenset(b"\x01\x02\x81\x82" + _CONTROL)
_INSIDE_MESSAGE = frozenset(b"\x00\x80" + _CONTROL)
_WHOLE_MESSAGE = frozenset(b"\x81\x82")

_FINAL = 0x80
_CLOSE = 0x88
_MASKED = 0x80
_LENGTH = 0x7F
_LENGTH_16 = 126
_CONTROL_SECOND_MAX = _MASKED | 125
_SHORT_HEADER_BYTES = 2
_MASK_BYTES = 4
_MASKED_HEADER_BYTES = _SHORT_HEADER_BYTES + _MASK_BYTES


class FrameReader(Protocol):
    """What stands behind the guard, and what the guard is to the connection."""

    def feed_data(self, data: bytes, /) -> tuple[bool, bytes]:
        """Take bytes from the wire; return whether the stream is over, and what was left."""

    def feed_eof(self) -> None:
        """Take the end of the connection."""


class Watcher(Protocol):
    """Who hears what the guard sees."""

    def violated(self, code: CloseCode) -> None:
        """Hear of the first violation, after everything before it was passed on; at most once."""

    def peer_closed(self) -> None:
        """Hear that a close frame of the peer has come while the guard discards."""

    def connection_lost(self) -> None:
        """Hear that nothing more can come."""


class _Forbidden(Exception):
    """Carries the close code out of the header checks."""

    def __init__(self, code: CloseCode) -> None:
        super().__init__(code.reason)
        self.code = code


class FrameGuard:
    """An incremental check of client frames in front of a reader; see the module's text."""

    __slots__ = (
        "_discarding",
        "_fragment_count",
        "_held",
        "_idle",
        "_in_close",
        "_max_message_bytes",
        "_message_bytes",
        "_pass_on",
        "_payload_left",
        "_reader",
        "_small_bytes",
        "_watcher",
    )

    def __init__(self, reader: FrameReader, watcher: Watcher, *, max_message_bytes: int) -> None:
        self._reader = reader
        self._pass_on = reader.feed_data
        self._watcher = watcher
        self._max_message_bytes = max_message_bytes
        self._small_bytes = _MASKED_HEADER_BYTES + min(_LENGTH_16 - 1, max_message_bytes)
        self._idle = True  # between messages and between frames, with nothing held back
        self._held = b""  # the start of a frame that cannot be judged yet: at most a close frame
        self._payload_left = 0  # bytes of the current frame (and its mask) still to come
        self._fragment_count = 0  # above 0 while a fragmented message is open, also an empty one
        self._message_bytes = 0
        self._discarding = False
        self._in_close = False  # the frame being dropped is the peer's close

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Check what came from the client and pass it on; called by aiohttp's connection.

        Raises for no input; a violation is for the watcher.
        """
        # One small, whole, masked message in one read is what nearly every call brings: six comparisons, no state.
        size = len(data)
        if (
            self._idle
            and _MASKED_HEADER_BYTES <= size <= self._small_bytes
            and data[1] == size + (_MASKED - _MASKED_HEADER_BYTES)
            and data[0] in _WHOLE_MESSAGE
        ):
            return self._pass_on(data)
        if type(data) is not bytes:  # the proactor loop reads into a bytearray
            data = bytes(data)
        if not self._discarding:
            return self._walk(data)
        self._drop(data)
        return False, b""

    def feed_eof(self) -> None:
        """Tell the reader and the watcher that the connection is gone."""
        self._reader.feed_eof()
        self._watcher.connection_lost()

    def discard(self) -> None:
        """Pass nothing on from here; only look for the peer's close frame."""
        self._discarding = True
        self._idle = False

    def _walk(self, data: bytes) -> tuple[bool, bytes]:
        """Pass on what is allowed; hold back a frame start that cannot be judged yet."""
        if self._held:
            data, self._held = self._held + data, b""
        size = len(data)
        at = self._payload_left
        try:
            while at < size:
                end = self._admit(data, at)
                if not end:
                    break
                at = end
        except _Forbidden as forbidden:
            self._violate(forbidden.code, data, at)
            return False, b""
        if at < size:
            self._payload_left, self._held, self._idle = 0, data[at:], False
            return self._pass_on(data[:at]) if at else (False, b"")
        self._payload_left = at - size
        self._idle = at == size and not self._fragment_count
        return self._pass_on(data)

    def _admit(self, data: bytes, at: int) -> int:
        """Return where the frame at ``at`` ends, 0 while too little of it is here; state moves once, on admission."""
        here = len(data) - at
        if here < _SHORT_HEADER_BYTES:
            return 0
        first, second = data[at], data[at + 1]
        if (
            first not in (_INSIDE_MESSAGE if self._fragment_count else _BETWEEN_MESSAGES)
            or second < _MASKED
            or (first >= _CLOSE and second > _CONTROL_SECOND_MAX)
        ):
            raise _Forbidden(PROTOCOL_ERROR)
        length = second & _LENGTH
        header_bytes = _SHORT_HEADER_BYTES
        if length >= _LENGTH_16:
            header_bytes, smallest = (4, 126) if length == _LENGTH_16 else (10, 65_536)
            if here < header_bytes:
                return 0
            length = int.from_bytes(data[at + 2 : at + header_bytes], "big")
            if length < smallest or length >> 63:
                raise _Forbidden(PROTOCOL_ERROR)
        end = at + header_bytes + _MASK_BYTES + length
        if first < _CLOSE:
            self._count(first, length)
        elif first == _CLOSE:
            if end > len(data):
                return 0
            _check_close(data[at + 2 : at + 6], data[at + 6 : end])
        return end

    def _count(self, first: int, length: int) -> None:
        """Add a data frame to its message."""
        message_bytes = self._message_bytes + length
        if message_bytes > self._max_message_bytes:
            raise _Forbidden(TOO_BIG)
        fragment_count = self._fragment_count + 1
        if fragment_count > MAX_FRAGMENT_COUNT:
            raise _Forbidden(TOO_MANY_FRAGMENTS)
        if first & _FINAL:
            fragment_count = message_bytes = 0
        self._fragment_count, self._message_bytes = fragment_count, message_bytes

    def _violate(self, code: CloseCode, data: bytes, at: int) -> None:
        """Pass on what came before the frame at ``at``, report once, drop the rest."""
        self.discard()
        self._payload_left = 0
        if at:
            self._pass_on(data[:at])
        self._watcher.violated(code)
        self._drop(data[at:])

    def _drop(self, data: bytes) -> None:
        """Step over frames, forbidden or not, to the end of the peer's close frame."""
        data = self._held + data
        size = len(data)
        at = self._payload_left
        while at <= size:
            if self._in_close:
                # Only now: to close before its last byte is read would answer that byte with a reset.
                self._in_close = False
                self._watcher.peer_closed()
            if size - at < _SHORT_HEADER_BYTES:
                break
            length = data[at + 1] & _LENGTH
            header_bytes = _SHORT_HEADER_BYTES
            if length >= _LENGTH_16:
                header_bytes = 4 if length == _LENGTH_16 else 10
                if size - at < header_bytes:
                    break
                length = int.from_bytes(data[at + 2 : at + header_bytes], "big")
            self._in_close = data[at] & 0x0F == _CLOSE & 0x0F
            at += header_bytes + (_MASK_BYTES if data[at + 1] & _MASKED else 0) + length
        self._held = data[at:]
        self._payload_left = max(0, at - size)


def _check_close(mask: bytes, masked: bytes) -> None:
    """Refuse a close body of one byte, with a code that may not be sent, or with a reason that is not UTF-8."""
    if not masked:
        return
    body = bytes(byte ^ mask[index & 3] for index, byte in enumerate(masked))
    if len(body) == 1 or not is_close_code(int.from_bytes(body[:2], "big")):
        raise _Forbidden(PROTOCOL_ERROR)
    if not is_utf8(body[2:]):
        raise _Forbidden(INVALID_UTF8)


def is_utf8(payload: bytes | bytearray) -> bool:
    """Return whether a text message is UTF-8, as ``decode_text=False`` leaves it to the receive loop to ask."""
    if payload.isascii():
        return True
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


class GuardedSocket:
    """How the owner of a socket closes it, and learns that it is closed. Made by :func:`install`.

    ``WebSocketResponse.close`` from another task than the receiving one ends the connection right behind its close
    frame. A client that is still sending is then answered with a reset, which may erase the close frame before it is
    read (RFC 9112, 9.6): a refusal looks like an accident, and the client comes back. So this close goes on reading
    until the peer has closed, and drops what it reads.
    """

    __slots__ = ("_deadline", "_guard", "_is_lost", "_linger_s", "_lost", "_on_violation", "_transport", "closing_code")

    def __init__(
        self, transport: asyncio.Transport, on_violation: Callable[[CloseCode], object], *, linger_s: float
    ) -> None:
        self.closing_code: int | None = None
        """What this side closed the socket with, None while it has not."""
        self._guard: FrameGuard | None = None
        self._transport = transport
        self._on_violation = on_violation
        self._linger_s = linger_s
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

    def guard(self, reader: FrameReader, *, max_message_bytes: int) -> FrameGuard:
        """Return the guard of this socket in front of its reader."""
        self._guard = FrameGuard(reader, self, max_message_bytes=max_message_bytes)
        return self._guard

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

    __slots__ = ("_guarded_connection", "_make_guard", "is_guarded")

    def __init__(self, connection: web.RequestHandler, make_guard: Callable[[FrameReader], FrameGuard]) -> None:
        self._guarded_connection = connection
        self._make_guard = make_guard
        self.is_guarded = False

    def set_parser(self, parser: FrameReader, *args: Any, **kwargs: Any) -> None:
        self.is_guarded = True
        self._guarded_connection.set_parser(cast("Any", self._make_guard(parser)), *args, **kwargs)

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

    Raises:
        RuntimeError: The socket offers deflate or was prepared before, or this aiohttp does not hand its reader over
            the way the guard needs. Nothing may be received from such a socket.
        ConnectionResetError: The client is gone already, as from ``prepare``.
    """
    if ws.compress:
        raise RuntimeError("the frame guard takes no deflate: make the WebSocketResponse with compress=False")
    if request.transport is None:
        raise ConnectionResetError("Connection lost")
    socket = GuardedSocket(request.transport, on_violation, linger_s=linger_s)
    protocol = _GuardedProtocol(request.protocol, partial(socket.guard, max_message_bytes=max_message_bytes))
    await ws.prepare(cast("web.BaseRequest", _GuardedRequest(request, protocol)))
    if not protocol.is_guarded:
        raise RuntimeError("the frame guard is not in place: prepare() did not call request.protocol.set_parser()")
    return socket
