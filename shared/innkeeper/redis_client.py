"""The link to Redis: commands go out in one write per loop turn, replies come back in order.

redis-py opens the connections (its URL, TLS and AUTH handling are used as they are) and its retries stay off: an act
whose answer was lost is resent unchanged by whoever sent it, because every act is idempotent. Where hiredis is
installed, an own reader takes the open socket over (0.4 against 2 µs per reply, NUMBERS.md); else, and on
fakeredis, redis-py's public ``send_packed_command`` and ``read_response`` are used.
"""

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import RedisError, ResponseError

from innkeeper.errors import RedisReplied, RedisUnavailable, RedisUnready, from_reply

hiredis: Any
try:
    import hiredis
except ImportError:  # pragma: no cover - the extra "speed" is not installed
    hiredis = None

log = logging.getLogger("innkeeper.redis")

Command = tuple[str | bytes | int, ...]
Reply = Any  # what RESP2 holds: bytes, int, None, list of those, or a RedisReplied error
Connect = Callable[[], Awaitable[AbstractConnection]]
OnReplies = Callable[[list[Reply]], None]
OnLost = Callable[[str], None]

_RECONNECT_FIRST_S = 0.02
_RECONNECT_MOST_S = 0.5
# A server that answers so serves nobody now: it loads its data, or is no primary (any more).
_UNREADY = ("READONLY ", "MASTERDOWN ", "LOADING ")


def connection_options(timeout_s: float) -> dict[str, Any]:
    """Return what every connection is opened with; redis-py's own retries are off."""
    return {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
    }


def connector(url: str, *, timeout_s: float) -> Connect:
    """Return what opens one connection per call to a ``redis://``, ``rediss://`` or ``unix://`` URL of redis-py."""
    options = connection_options(timeout_s)
    if url.startswith("unix:"):
        options.pop("socket_keepalive")
    return pool_connector(ConnectionPool.from_url(url, **options))


def pool_connector(pool: ConnectionPool) -> Connect:
    """Return what opens one connection per call as a pool of redis-py would; the pool holds none."""

    async def connect() -> AbstractConnection:
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        await _open(connection)
        return connection

    return connect


async def _open(connection: AbstractConnection) -> None:
    """Connect, and shake hands; every failure of it is redis-py's or the system's.

    Raises:
        RedisError: Also where the other side reset the connection while this process was busy: uvloop then raises
            RuntimeError from the first write, and a reset just after the handshake would be told to nobody any more.
        OSError: As the system has it.
    """
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise ConnectionFailed(f"reset while connecting: {error}") from error
    writer = getattr(connection, "_writer", None)
    if isinstance(writer, asyncio.StreamWriter) and writer.transport.is_closing():
        raise ConnectionFailed("reset right after connecting")


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
            if text.startswith(_UNREADY):
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
                if isinstance(reply, RedisReplied) and str(reply).startswith(_UNREADY):
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


class Link:
    """Commands to one Redis over one connection, pipelined; reconnects by itself.

    Everything sent within one loop turn leaves in one write. Not for blocking commands unless ``timeout_s`` is
    longer than they block. Cancelling a caller is safe: its commands are then carried out or not, like after a
    lost answer.

    Args:
        connect: Opens a connection; asked anew each time, so it may lead to another server after a failover.
        timeout_s: How long a connection may stay silent while something waits.
        name: For messages.
        on_unready: Called when the server turned out to be no primary (any more), or to be loading its data.
    """

    def __init__(
        self, connect: Connect, *, timeout_s: float, name: str, on_unready: Callable[[], None] | None = None
    ) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._name = name
        self._on_unready = on_unready
        self._channel: Channel | None = None
        self._opened = asyncio.Event()
        self._closed = False
        self._outgoing: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[list[Reply]], int, list[Reply], float]] = deque()
        self._flush_planned = False
        self._lost = asyncio.Event()
        self._heard_at_s = self._checked_at_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._keeper = asyncio.create_task(self._keep_open(), name=f"redis link {name}")
        self._watch = self._loop.call_later(timeout_s / 4, self._check_timeout)

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """Send commands and return their replies in order; an error reply stands in the list as an exception.

        Raises:
            RedisUnavailable: Not connected within the timeout, or the connection was lost or silent: the commands
                may have been carried out.
        """
        if not commands:
            return []
        if self._channel is None:
            await self._wait_open()
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        for command in commands:
            self._outgoing.append(pack(command))
        self._waiting.append((future, len(commands), [], self._loop.time() + self._timeout_s))
        if not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush)
        return await future

    async def call(self, *command: str | bytes | int) -> Reply:
        """Send one command and return its reply.

        Raises:
            RedisUnavailable: As :meth:`send`.
            RedisReplied: Redis answered with an error.
        """
        reply = (await self.send((command,)))[0]
        if isinstance(reply, RedisReplied):
            raise reply
        return reply

    def lane(self, key: str) -> str:  # noqa: ARG002 - a cluster has one for each primary
        """Return which server a key is on: there is one."""
        return ""

    def primaries(self) -> "list[Link]":
        """Return a link to each primary."""
        return [self]

    async def close(self) -> None:
        """Close the connection and end the task that keeps it open; pending calls fail as unavailable."""
        self._closed = True
        self._watch.cancel()
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        if self._channel is not None:
            self._channel.close()
        self._drop("closed")

    async def _wait_open(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._opened.wait()
        except TimeoutError:
            raise RedisUnavailable(f"no connection to Redis ({self._name}) within {self._timeout_s:g} s") from None
        if self._channel is None:
            raise RedisUnavailable(f"connection to Redis ({self._name}) lost at once")

    def _flush(self) -> None:
        self._flush_planned = False
        data, self._outgoing = b"".join(self._outgoing), []
        if self._channel is not None and data:
            self._channel.write(data)

    def _on_replies(self, replies: list[Reply]) -> None:
        self._heard_at_s = self._loop.time()
        waiting = self._waiting
        for reply in replies:
            if not waiting:
                log.error("redis link %s: a reply nobody waits for", self._name)
                return
            future, count, got, _ = waiting[0]
            got.append(reply)
            if len(got) == count:
                waiting.popleft()
                if not future.done():
                    future.set_result(got)

    def _drop(self, reason: str) -> None:
        """Fail everything in flight and let the keeper open anew."""
        self._channel = None
        self._opened.clear()
        self._outgoing = []
        waiting, self._waiting = self._waiting, deque()
        unready = reason.startswith(_UNREADY)
        failure = RedisUnready if unready else RedisUnavailable
        for future, *_ in waiting:
            if not future.done():
                future.set_exception(failure(f"connection to Redis ({self._name}) {reason}"))
        self._lost.set()
        if unready:
            log.warning("redis link %s: the server answers %s, connecting anew", self._name, reason)
            if self._on_unready is not None:
                self._on_unready()

    def _check_timeout(self) -> None:
        now_s = self._loop.time()
        stalled = now_s > self._checked_at_s + self._timeout_s / 2  # replies may lie in the socket unread
        self._checked_at_s = now_s
        self._watch = self._loop.call_later(self._timeout_s / 4, self._check_timeout)
        if not self._waiting or self._channel is None or stalled:
            return
        if now_s > max(self._waiting[0][3], self._heard_at_s + self._timeout_s):
            self._channel.close()
            self._drop(f"silent for {self._timeout_s:g} s")

    async def _keep_open(self) -> None:
        wait_s = _RECONNECT_FIRST_S
        while not self._closed:
            try:
                connection = await self._connect()
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("redis link %s: %s", self._name, error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, _RECONNECT_MOST_S)
                continue
            if self._closed:  # redis-py's connect may swallow the cancellation
                await connection.disconnect(nowait=True)
                return
            wait_s = _RECONNECT_FIRST_S
            self._lost.clear()
            self._channel = open_channel(connection, self._on_replies, self._drop)
            self._opened.set()
            await self._lost.wait()
            await asyncio.sleep(_RECONNECT_FIRST_S)
