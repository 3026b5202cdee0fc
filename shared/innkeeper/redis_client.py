"""The link to Redis: commands go out a few in one write, replies come back in order.

redis-py opens the connections (its URL, TLS and AUTH handling are used as they are) and its retries stay off: an act
whose answer was lost is resent unchanged by whoever sent it, because every act is idempotent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import RedisError

from innkeeper.channel import UNREADY, Channel, Command, Reply, open_channel, pack
from innkeeper.errors import RedisReplied, RedisUnavailable, RedisUnready

log = logging.getLogger("innkeeper.redis")

Connect = Callable[[], Awaitable[AbstractConnection]]

_FLUSH_COMMANDS = 8  # S5 of the bench against one write per turn: +13 % with 8, +7 % with 4, S2x +11 and +7 %
_RECONNECT_FIRST_S = 0.02
_RECONNECT_MOST_S = 0.5


def connection_options(timeout_s: float) -> dict[str, Any]:
    """Return what every connection is opened with; redis-py's own retries are off."""
    return {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "driver_info": None,  # CLIENT SETINFO: one command more that a login must be allowed
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
        await connection.disconnect(nowait=True)
        raise ConnectionFailed("reset right after connecting")


class Link:
    """Commands to one Redis over one connection, pipelined; reconnects by itself.

    What is sent within one loop turn leaves in one write, or in one for every few commands where there are many, so
    that Redis works on the first while the last are still made. Not for blocking commands unless ``timeout_s`` is
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
        if len(self._outgoing) >= _FLUSH_COMMANDS:
            self._flush()
        elif not self._flush_planned:
            self._flush_planned = True
            self._loop.call_soon(self._flush_as_planned)
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

    def _flush_as_planned(self) -> None:
        self._flush_planned = False
        self._flush()

    def _flush(self) -> None:
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
        unready = reason.startswith(UNREADY)
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
