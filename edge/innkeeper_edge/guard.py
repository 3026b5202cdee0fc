"""The frame guard: refuses what aiohttp's WebSocket reader lets through.

It stands between the connection and aiohttp's reader, walks frame headers and hands the same bytes on; payloads are
neither copied nor unmasked. Everything before the first violation reaches the reader, nothing of it or after it does.
The exception is the message that nearly every read brings, small and whole: while the receive loop waits with nothing
queued, its payload goes straight to a :class:`Taker`, which is half of what aiohttp's queue and a task's turn cost.
The reader has ``feed_data(bytes) -> (eof, tail)`` and ``feed_eof()``; :mod:`innkeeper_edge.guarded_socket` installs it.
"""

import sys
from typing import Protocol

from innkeeper.close_codes import (
    INVALID_UTF8,
    PROTOCOL_ERROR,
    TOO_BIG,
    TOO_FAST,
    TOO_MANY_FRAGMENTS,
    CloseCode,
)
from innkeeper_edge.frames import is_close_code

MAX_FRAGMENT_COUNT = 64
"""Frames one message may come in."""

# First bytes a frame may start with: anything else is a reserved bit, an unknown opcode, a fragmented control frame,
# a continuation of nothing or a message inside a message.
_CONTROL = b"\x88\x89\x8a"
_BETWEEN_MESSAGES = frozenset(b"\x01\x02\x81\x82" + _CONTROL)
_INSIDE_MESSAGE = frozenset(b"\x00\x80" + _CONTROL)
_WHOLE_MESSAGE = frozenset(b"\x81\x82")

_GO_ON = (False, b"")

_MOST_PIECES = 1_000  # of one read, of whichever messages: 250 KB of empty ones took 45 ms, in which nobody was served
_MOST_DROPPED = 5_000  # frames of one read, a few ms: 250 KB of empty ones took 36 ms, in which nobody was served

_TEXT = 0x81
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


class Taker(Protocol):
    """Who takes small whole messages at once."""

    def take(self, payload: bytes, *, is_text: bool) -> bool:
        """Take a message, text not yet checked for UTF-8; return whether the next may come the same way."""


class Watcher(Protocol):
    """Who hears what the guard sees."""

    def violated(self, code: CloseCode) -> None:
        """Hear of the first violation, after everything before it was passed on; at most once."""

    def admits_control(self) -> bool:
        """Return whether a ping or pong may pass; else the socket is closed."""

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
        "_payload_left",
        "_reader",
        "_small_bytes",
        "_watcher",
        "taker",
    )

    def __init__(self, reader: FrameReader, watcher: Watcher, *, max_message_bytes: int) -> None:
        self._reader = reader
        self._watcher = watcher
        self.taker: Taker | None = None
        """Set while the receive loop waits with nothing queued; taken away by whatever goes to the reader."""
        self._max_message_bytes = max_message_bytes
        self._small_bytes = _MASKED_HEADER_BYTES + min(_LENGTH_16 - 1, max_message_bytes)
        self._idle = True  # between messages and between frames, with nothing held back
        self._held = b""  # the start of a frame that cannot be judged yet: at most a close frame
        self._payload_left = 0  # bytes of the current frame (and its mask) still to come
        self._fragment_count = 0  # above 0 while a fragmented message is open, also an empty one
        self._message_bytes = 0
        self._discarding = False
        self._in_close = False  # the frame being dropped is the peer's close

    def lower_limit(self, max_message_bytes: int) -> None:
        """Take no larger messages than this from now on, nor than before."""
        self._max_message_bytes = min(self._max_message_bytes, max_message_bytes)
        self._small_bytes = _MASKED_HEADER_BYTES + min(_LENGTH_16 - 1, self._max_message_bytes)

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
            taker = self.taker
            if taker is None:
                return self._reader.feed_data(data)
            if not taker.take(_unmasked(data), is_text=data[0] == _TEXT):
                self.taker = None
            return _GO_ON
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
        self.taker = None
        self._idle = False

    def _walk(self, data: bytes) -> tuple[bool, bytes]:
        """Pass on what is allowed; hold back a frame start that cannot be judged yet."""
        self.taker = None
        if self._held:
            data, self._held = self._held + data, b""
        size, pieces = len(data), 0
        at = self._payload_left
        try:
            while at < size:
                is_piece = self._fragment_count
                end = self._admit(data, at)
                if not end:
                    break
                at = end
                if is_piece or self._fragment_count:
                    pieces += 1
                    if pieces > _MOST_PIECES:
                        raise _Forbidden(TOO_MANY_FRAGMENTS)  # noqa: TRY301 - as _admit does
        except _Forbidden as forbidden:
            self._violate(forbidden.code, data, at)
            return False, b""
        if at < size:
            self._payload_left, self._held, self._idle = 0, data[at:], False
            return self._reader.feed_data(data[:at]) if at else (False, b"")
        self._payload_left = at - size
        self._idle = at == size and not self._fragment_count
        return self._reader.feed_data(data)

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
        elif not self._watcher.admits_control():
            raise _Forbidden(TOO_FAST)
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
            self._reader.feed_data(data[:at])
        self._watcher.violated(code)
        self._drop(data[at:])

    def _drop(self, data: bytes) -> None:
        """Step over frames, forbidden or not, to the end of the peer's close frame."""
        data = self._held + data
        size = len(data)
        at = self._payload_left
        frame_count = 0
        while at <= size:
            frame_count += 1
            if frame_count > _MOST_DROPPED:
                at = sys.maxsize  # a flood: its close is not worth the time, it will be cut off
                break
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


def _unmasked(frame: bytes) -> bytes:
    """Return the payload of one whole masked frame with a short header."""
    size = len(frame) - _MASKED_HEADER_BYTES
    mask = (frame[_SHORT_HEADER_BYTES:_MASKED_HEADER_BYTES] * (size // _MASK_BYTES + 1))[:size]
    payload = int.from_bytes(frame[_MASKED_HEADER_BYTES:], "little") ^ int.from_bytes(mask, "little")
    return payload.to_bytes(size, "little")


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
