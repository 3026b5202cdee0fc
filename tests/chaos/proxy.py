"""A TCP proxy between one role and Redis that does what networks do, when told."""

import asyncio
import random
import socket
import struct
from collections import Counter, deque
from typing import cast


class Proxy:
    """Listens on a port of its own and passes bytes both ways, but for the faults set on it.

    Attributes:
        port: Where the role connects.
        delay_s: Every piece is held this long.
        hold_up: Nothing reaches Redis; what comes waits, like packets that are sent again and again.
        hold_down: Nothing reaches the role.
        lose_reply: Chance that a piece of Redis' answers is swallowed and the connection cut: it was done, and
            nobody hears of it.
        bitten: What was done to bytes and connections so far.
    """

    def __init__(self, redis_port: int, seed: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.hold_up = False
        self.hold_down = False
        self.lose_reply = 0.0
        self.bitten: Counter[str] = Counter()
        self.random = random.Random(seed)
        self.redis_port = redis_port
        self._pairs: set[_Pair] = set()

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Pair(self, self._pairs).role, "127.0.0.1", 0, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]

    def heal(self) -> None:
        """End all lasting faults; what was held goes on."""
        self.delay_s = self.lose_reply = 0.0
        self.hold_up = self.hold_down = False
        for pair in list(self._pairs):
            pair.role.release()
            pair.redis.release()

    def cut(self) -> int:
        """Cut every connection; return how many."""
        pairs = list(self._pairs)
        for pair in pairs:
            pair.cut()
        self.bitten["cuts"] += len(pairs)
        return len(pairs)

    def half_close(self, *, towards_role: bool) -> int:
        """Say "no more comes" on every connection in one direction; return how many."""
        pairs = list(self._pairs)
        for pair in pairs:
            end = pair.role if towards_role else pair.redis
            end.say_eof()
        self.bitten["half-closes"] += len(pairs)
        return len(pairs)

    async def close(self) -> None:
        """End it."""
        self._server.close()
        self.cut()


class _Pair:
    """One connection of the role and the one to Redis that belongs to it."""

    def __init__(self, proxy: Proxy, pairs: "set[_Pair]") -> None:
        self.proxy = proxy
        self.role = _End(self, is_role=True)
        self.redis = _End(self, is_role=False)
        self._pairs = pairs
        pairs.add(self)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.redis, "127.0.0.1", self.proxy.redis_port)
        except OSError:
            self.cut()

    def look(self) -> None:
        """Forget the pair once both sides are gone."""
        if self.role.transport is None and self.redis.transport is None:
            self._pairs.discard(self)

    def cut(self) -> None:
        for end in (self.role, self.redis):
            if end.transport is not None:
                sock = end.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no polite end
                end.transport.abort()


class _End(asyncio.Protocol):
    """One side of a pair. What it receives goes to the other side."""

    def __init__(self, pair: _Pair, *, is_role: bool) -> None:
        self.transport: asyncio.Transport | None = None
        self._pair = pair
        self._is_role = is_role
        self._waiting: deque[tuple[float, bytes]] = deque()  # for this side to write, and when: TCP keeps the order
        self.gone = False  # whether the other side is
        self.eof = False
        self._connecting: asyncio.Task[None] | None = None

    @property
    def other(self) -> "_End":
        return self._pair.redis if self._is_role else self._pair.role

    @property
    def _is_blocked(self) -> bool:
        """Whether nothing may be written to this side now."""
        proxy = self._pair.proxy
        return proxy.hold_down if self._is_role else proxy.hold_up

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._is_role:
            self._connecting = asyncio.create_task(self._pair.connect())
        else:
            self.release()

    def data_received(self, data: bytes) -> None:
        proxy = self._pair.proxy
        if not self._is_role and proxy.lose_reply and proxy.random.random() < proxy.lose_reply:
            proxy.bitten["replies dropped"] += 1
            self._pair.cut()
        else:
            self.other.pass_on(data)

    def pass_on(self, data: bytes) -> None:
        proxy, loop = self._pair.proxy, asyncio.get_running_loop()
        if self._is_blocked:
            proxy.bitten["pieces held"] += 1
        if proxy.delay_s:
            proxy.bitten["pieces delayed"] += 1
        self._waiting.append((loop.time() + proxy.delay_s, data))
        self.release()

    def say_eof(self) -> None:
        """Tell this side that no more comes; what comes for it all the same is lost."""
        self.eof = True
        if self.transport is not None:
            self.transport.write_eof()

    def release(self) -> None:
        """Write what may be written by now, then close if the other side is gone."""
        if self.transport is None or self._is_blocked:
            return
        now_s = asyncio.get_running_loop().time()
        while self._waiting:
            due_s, data = self._waiting[0]
            if due_s > now_s + 0.001:
                asyncio.get_running_loop().call_at(due_s, self.release)
                return
            self._waiting.popleft()
            if not self.eof:
                self.transport.write(data)
        if self.gone:
            self.transport.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The other side hears of it when it can: what was sent before may still be on its way."""
        self.transport = None
        self.other.gone = True
        self.other.release()
        self._pair.look()
