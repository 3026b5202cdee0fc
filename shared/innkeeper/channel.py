"""An open connection to Redis as bytes out and replies in, read by hiredis where it is installed.

An own reader then takes over the socket that redis-py opened (0.4 against 2 µs per reply, NUMBERS.md); else, and on
fakeredis, redis-py's public ``send_packed_command`` and ``read_response`` are used.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from innkeeper.errors import RedisReplied, from_reply

hiredis: Any
try:
    import hiredis
except ImportError:  # pragma: no cover - the extra "speed" is not installed
    hiredis = None

Command = tuple[str | bytes | int, ...]
Reply = Any  # what RESP2 holds: bytes, int, None, list of those, or a RedisReplied error
OnReplies = Callable[[list[Reply]], None]
OnLost = Callable[[str], None]

# A server that answers so serves nobody now: it loads its data, or is no primary (any more).
UNREADY = ("READONLY ", "MASTERDOWN ", "LOADING ")


def pack(command: Command) -> bytes:
    """Return a command as RESP bytes; text goes as UTF-8, numbers as decimal text."""
    if hiredis is not None:
        packed: bytes = hiredis.pack_command(command)
        return packed
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Channel(Protocol):
    """An open connection: bytes out, replies in by the callback given at opening."""

    def write(self, data: bytes) -> None:
        """Send bytes; never waits."""

    def close(self) -> None:
        """Close at once; the lost callback is not called for it."""


class _SocketReader(asyncio.Protocol):
    """Takes over the socket that redis-py opened and parses it with hiredis."""

    def __init__(self, writer: asyncio.StreamWriter, on_replies: OnReplies, on_lost: OnLost) -> None:
        self._writer = writer  # kept, because a StreamWriter closes its socket when it is collected
        self._transport = transport = writer.transport
        self._on_replies = on_replies
        self._on_lost: OnLost | None = on_lost
        self._unready = unready = list[str]()

        def to_error(text: str) -> RedisReplied:
            if text.startswith(UNREADY):
                unready.append(text)
            return from_reply(text)

        self._reader = hiredis.Reader(replyError=to_error)
        transport.set_protocol(self)

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self) -> None:
        self._on_lost = None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        replies: list[Reply] = []
        while (reply := reader.gets()) is not False:
            replies.append(reply)
        if self._unready:
            self._lose(self._unready[0])
            self._transport.abort()
        elif replies:
            self._on_replies(replies)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._lose("lost")

    def _lose(self, reason: str) -> None:
        lost, self._on_lost = self._on_lost, None
        if lost is not None:
            lost(reason)


class _RedisPyReader:
    """Reads through redis-py's public calls: for fakeredis, and where hiredis is missing."""

    def __init__(self, connection: AbstractConnection, on_replies: OnReplies, on_lost: OnLost) -> None:
        self._connection = connection
        self._on_replies = on_replies
        self._on_lost: OnLost | None = on_lost
        self._outgoing: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._tasks = [asyncio.ensure_future(self._write()), asyncio.ensure_future(self._read())]

    def write(self, data: bytes) -> None:
        self._outgoing.append(data)
        self._news.set()

    def close(self) -> None:
        self._on_lost = None
        self._stop()

    def _stop(self, reason: str = "lost") -> None:
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        lost, self._on_lost = self._on_lost, None
        if lost is not None:
            lost(reason)

    async def _write(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await self._news.wait()
                self._news.clear()
                while self._outgoing:
                    try:
                        await self._connection.send_packed_command([self._outgoing.popleft()], check_health=False)
                    except (RedisError, OSError):
                        self._stop()
                        return

    async def _read(self) -> None:
        try:
            while True:
                try:
                    reply = await self._connection.read_response(timeout=math.inf, disconnect_on_error=False)
                except RedisError as error:
                    if not _is_reply(error):
                        raise
                    reply = error
                reply = _with_errors(reply)
                if isinstance(reply, RedisReplied) and str(reply).startswith(UNREADY):
                    self._stop(str(reply))
                    return
                self._on_replies([reply])
        except asyncio.CancelledError:
            pass
        except (RedisError, OSError, RuntimeError):
            self._stop()
        finally:
            with contextlib.suppress(Exception):
                await self._connection.disconnect(nowait=True)


def _is_reply(error: RedisError) -> bool:
    """Return whether redis-py raised what the server answered (LOADING too, which it counts as a lost connection)."""
    return isinstance(error, ResponseError) or getattr(error, "status_code", None) is not None


def _with_errors(reply: Reply) -> Reply:
    if isinstance(reply, list):
        return [_with_errors(part) for part in reply]
    if isinstance(reply, RedisError):
        # redis-py takes the first word out of the text; owners and edges decide by it.
        code = getattr(reply, "status_code", None)
        return from_reply(f"{code} {reply}" if code else str(reply))
    return reply.encode() if isinstance(reply, str) else reply


def open_channel(connection: AbstractConnection, on_replies: OnReplies, on_lost: OnLost) -> Channel:
    """Hand an open connection to the fastest reader that can take it.

    A server that answers READONLY, MASTERDOWN or LOADING counts as lost, and its answers are not passed on.

    Args:
        connection: Opened by redis-py.
        on_replies: Called with replies in order.
        on_lost: Called once, with the reason, when the connection is of no use any more.
    """
    writer = getattr(connection, "_writer", None)
    if hiredis is not None and isinstance(writer, asyncio.StreamWriter):
        # redis-py's own end must neither read nor close the socket from here on.
        connection._reader = connection._writer = None  # noqa: SLF001
        return _SocketReader(writer, on_replies, on_lost)
    return _RedisPyReader(connection, on_replies, on_lost)
