"""Sharded subscriptions to one Redis: confirmed, kept over reconnects, and never silent about a gap.

Pub/sub tells nobody that a connection was lost in between (FACTS.md finding 3). So each subscription that is made
anew is reported, and a silent connection is found by its missing pong.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable

from redis.crc import key_slot
from redis.exceptions import RedisError

from innkeeper.channel import Channel, Reply, open_channel, pack
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.redis_client import Connect

log = logging.getLogger("innkeeper.redis")

_PING_EVERY_S = 0.5
_PIECE = 500
_AFTER_ERROR_S = 0.25


class Subscriber:
    """SSUBSCRIBE on one connection, used for nothing else.

    Args:
        connect: Opens a connection.
        on_message: Called with (channel, body) for each message, in order.
        on_fresh: Called with a channel each time its subscription is confirmed again after a lost connection: what
            was published in between did not come.
        on_moved: Called with a ``MOVED slot host:port`` that a subscription met; whoever gave this unsubscribes here.
        silent_s: How long a connection may leave a PING unanswered.

    Attributes:
        lost_count: Connections lost so far; each was followed by another.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        on_message: Callable[[bytes, bytes], None],
        on_fresh: Callable[[bytes], None],
        on_moved: Callable[[str], None] | None = None,
        silent_s: float = 1.5,
        name: str = "subscriptions",
    ) -> None:
        self._connect = connect
        self._on_message = on_message
        self._on_fresh = on_fresh
        self._on_moved = on_moved
        self._silent_s = silent_s
        self._name = name
        self._channel: Channel | None = None
        self._wanted: dict[bytes, asyncio.Future[None]] = {}
        self._confirmed: set[bytes] = set()
        # SSUBSCRIBEs of each channel that Redis has not answered: after unsubscribing in between, an old answer counts
        # for nothing.
        self._unanswered: Counter[bytes] = Counter()
        self._fresh: set[bytes] = set()
        self._heard_at_s = 0.0
        self._outgoing: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._lost = asyncio.Event()
        self._closed = False
        self._pause_s = 0.0
        self.lost_count = 0
        self._keeper = asyncio.create_task(self._keep_open(), name=f"redis {name}")

    async def subscribe(self, channel: str) -> None:
        """Subscribe and return when Redis has confirmed it: from then on every message comes, or on_fresh is called.

        Waits through lost connections; cancel it to give up (then call unsubscribe).
        """
        name = channel.encode()
        future = self._wanted.get(name)
        if future is None:
            future = self._wanted[name] = self._loop.create_future()
            if self._channel is not None:
                self._unanswered[name] += 1
                self._send(b"SSUBSCRIBE", name)
        await asyncio.shield(future)

    def unsubscribe(self, channel: str) -> None:
        """Forget a channel; messages already under way may still come."""
        name = channel.encode()
        future = self._wanted.pop(name, None)
        if future is not None:
            if not future.done():
                future.cancel()
            self._confirmed.discard(name)
            self._fresh.discard(name)
            self._send(b"SUNSUBSCRIBE", name)

    @property
    def is_whole(self) -> bool:
        """Whether every channel is confirmed on the present connection."""
        return self._channel is not None and len(self._confirmed) == len(self._wanted)

    def is_subscribed(self, channel: str) -> bool:
        """Return whether the channel is confirmed on the present connection."""
        return channel.encode() in self._confirmed

    def reopen(self) -> None:
        """Connect anew, as where the server is no primary any more: what is published does not come here."""
        if self._channel is not None:
            self._channel.close()
            self._on_lost("given up")

    async def close(self) -> None:
        """Close the connection; nothing is called afterwards."""
        self._closed = True
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for future in self._wanted.values():
            future.cancel()

    def _send(self, *command: bytes) -> None:
        if self._channel is None:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(pack(command))

    def _flush(self) -> None:
        data, self._outgoing = b"".join(self._outgoing), []
        if self._channel is not None:
            self._channel.write(data)

    def _on_replies(self, replies: list[Reply]) -> None:
        self._heard_at_s = self._loop.time()
        for reply in replies:
            if type(reply) is list and reply[0] == b"smessage":
                self._on_message(reply[1], reply[2])
            elif isinstance(reply, RedisReplied):
                self._on_error(str(reply))
            elif isinstance(reply, list) and reply[0] == b"ssubscribe":
                self._on_confirmed(reply[1])
            elif isinstance(reply, list) and reply[0] == b"sunsubscribe":
                self._on_ended(reply[1])

    def _on_ended(self, name: bytes) -> None:
        """A subscription is over: asked for, or its slot left this node; then asking again tells where it went."""
        if name in self._confirmed and not self._unanswered[name]:
            self._confirmed.discard(name)
            self._fresh.add(name)
            self._unanswered[name] += 1
            self._send(b"SSUBSCRIBE", name)

    def _on_error(self, text: str) -> None:
        if text.startswith("MOVED ") and self._on_moved is not None:
            # It does not say for which channel: one of the slot, and all of them get the same answer.
            slot = int(text.split()[1])
            name = next((name for name in self._unanswered if key_slot(name) == slot), None)
            if name is not None:
                self._unanswered -= Counter((name,))
            self._on_moved(text)
        else:
            log.error("redis %s: %s", self._name, text)
            self._pause_s = _AFTER_ERROR_S
            self.reopen()

    def _on_confirmed(self, name: bytes) -> None:
        self._unanswered[name] -= 1
        if self._unanswered[name] > 0:
            return
        del self._unanswered[name]
        future = self._wanted.get(name)
        if future is None:
            return
        self._confirmed.add(name)
        if not future.done():
            future.set_result(None)
        elif name in self._fresh:
            self._fresh.discard(name)
            self._on_fresh(name)

    def _on_lost(self, reason: str) -> None:
        log.debug("redis %s: connection %s", self._name, reason)
        self._channel = None
        self.lost_count += 1
        self._confirmed.clear()
        self._lost.set()

    async def _keep_open(self) -> None:
        wait_s = 0.02
        while True:
            try:
                connection = await self._connect()
            except (RedisError, OSError, TimeoutError, RedisUnavailable):
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 0.5)
                continue
            if self._closed:  # redis-py's connect may swallow the cancellation
                await connection.disconnect(nowait=True)
                return
            wait_s = 0.02
            self._lost.clear()
            self._outgoing = []
            self._heard_at_s = self._loop.time()
            channel = self._channel = open_channel(connection, self._on_replies, self._on_lost)
            names = list(self._wanted)
            self._fresh = {name for name in names if self._wanted[name].done()}
            self._unanswered = Counter(names)
            for at in range(0, len(names), _PIECE):
                channel.write(b"".join(pack((b"SSUBSCRIBE", name)) for name in names[at : at + _PIECE]))
            await self._watch(channel)
            await asyncio.sleep(self._pause_s)
            self._pause_s = 0.0

    async def _watch(self, channel: Channel) -> None:
        """Ping until the connection is lost or leaves a ping unanswered."""
        while not self._lost.is_set():
            channel.write(pack((b"PING",)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PING_EVERY_S):
                    await self._lost.wait()
            if not self._lost.is_set() and self._loop.time() - self._heard_at_s > self._silent_s:
                log.warning("redis %s: silent for %.1f s, reconnecting", self._name, self._silent_s)
                channel.close()
                self._on_lost("silent")
