"""The network between processes and Redis: each connection two streams in order, slow, held up, or broken."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio.connection import AbstractConnection

from harness.simulation.loop import NOBODY, Process, VirtualLoop
from harness.simulation.server import ServerEnd, SimulatedRedis
from innkeeper.redis_client import Connect

_CONNECT_TIMEOUT_S = 0.5
_SLOW_CHANCE = 0.01


class Network:
    """All wires of a run.

    Args:
        loop: Its clock.
        redis: Where all wires lead to.
        seed: What all delays come from.
        witness: Called with (what, wire, bytes) for everything that arrives, for the trace.

    Attributes:
        bitten: What faults did, and how often.
        haunting: Processes that are gone, whose commands were held up, and carried out when others had buried them.
    """

    def __init__(
        self, loop: VirtualLoop, redis: SimulatedRedis, seed: str, witness: Callable[[str, str, bytes], None]
    ) -> None:
        self.loop = loop
        self.redis = redis
        self.witness = witness
        self.bitten: Counter[str] = Counter()
        self.slow_s = 0.0
        self.is_calm = False
        self.held: dict[Process, set[str]] = {}
        self.wires: list[Wire] = []
        self.haunting: set[Process] = set()
        self._seed = seed
        self._count = 0

    def connect_from(self, process: Process) -> Connect:
        """Return what opens connections to Redis from a process, as ``connector`` does."""

        async def connect() -> AbstractConnection:
            self._count += 1
            wire = Wire(self, process, self._count, random.Random(f"{self._seed}/{self._count}"))
            await asyncio.sleep(2 * wire.delay_s())
            if self.held.get(process):
                self.bitten["connects held up"] += 1
                await asyncio.sleep(_CONNECT_TIMEOUT_S)
                raise TimeoutError
            self.wires.append(wire)
            return cast("AbstractConnection", _Connection(wire))

        return connect

    def of(self, process: Process, *, pubsub_only: bool = False) -> "list[Wire]":
        """Return a process's open wires."""
        return [w for w in self.wires if w.process is process and (w.end._pubsub or not pubsub_only)]

    def hold(self, process: Process, ways: set[str]) -> None:
        """Let nothing through on the process's wires, ``up`` or ``down`` or both, until :meth:`let_go`."""
        self.held[process] = ways

    def let_go(self, process: Process) -> None:
        """Deliver what was held up, in order."""
        self.held.pop(process, None)
        for wire in list(self.wires):
            if wire.process is process:
                wire.let_go()

    def kill(self, process: Process, *, is_silent: bool) -> None:
        """End a process's wires: at once and heard by Redis, or (its machine is gone) unheard for a long time."""
        for wire in self.of(process):
            wire.die(is_silent=is_silent)


class Wire:
    """One connection."""

    def __init__(self, network: Network, process: Process, number: int, rng: random.Random) -> None:
        self.network = network
        self.process = process
        self.name = f"{process.name}#{number}"
        self.end = ServerEnd(network.redis, self.name, self._send_down)
        self.protocol: asyncio.Protocol | None = None
        self.is_open = True  # at the process's side
        self.reply_to_drop = False
        self._rng = rng
        self._last_at = {"up": 0.0, "down": 0.0}
        self._held: dict[str, list[bytes | None]] = {"up": [], "down": []}

    def delay_s(self) -> float:
        """Draw how long a piece takes one way."""
        rng = self._rng
        delay_s = rng.uniform(0.00005, 0.001)
        if not self.network.is_calm and rng.random() < _SLOW_CHANCE:
            self.network.bitten["slow pieces"] += 1
            delay_s += rng.expovariate(20)
        return delay_s + self.network.slow_s * rng.random()

    # --- the process's side ---------------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        """Send bytes up."""
        if self.is_open:
            self._put("up", data)

    def abort(self) -> None:
        """Close from the process's side; Redis hears of it after what was sent."""
        if self.is_open:
            self.is_open = False
            self._put("up", None)

    def die(self, *, is_silent: bool) -> None:
        """The process is gone; what it had sent may still arrive."""
        self.is_open = False
        self.protocol = None
        if is_silent:
            self.network.loop.call_later(30, self._hang_up, context=NOBODY)
        else:
            self._put("up", None)

    # --- faults ---------------------------------------------------------------------------------------------------
    def cut(self) -> None:
        """Break the connection: what is under way is lost, and both sides learn of it a little later."""
        self._hang_up()
        if self.is_open:
            self.network.loop.call_later(self.delay_s(), self._lost, context=NOBODY)

    def let_go(self) -> None:
        """Deliver what was held up."""
        if self._held["up"] and (not self.process.is_alive or self.process.is_ended):
            self.network.haunting.add(self.process)
        for way, held in self._held.items():
            self._held[way] = []
            for data in held:
                self._arrive(way, data)

    # --- both ways ------------------------------------------------------------------------------------------------
    def _put(self, way: str, data: bytes | None) -> None:
        at_s = max(self._last_at[way] + 1e-7, self.network.loop.now_s + self.delay_s())
        self._last_at[way] = at_s
        self.network.loop.call_at(at_s, self._arrive, way, data, context=NOBODY)

    def _arrive(self, way: str, data: bytes | None) -> None:
        if self._held[way] or way in self.network.held.get(self.process, ()):
            self.network.bitten["pieces held up"] += 1
            self._held[way].append(data)
        elif way == "down":
            self._arrive_down(data)
        elif data is None:
            self._hang_up()
        elif self.end.is_open:
            self.network.witness(">", self.name, data)
            self.network.redis.feed(self.end, data)

    def _arrive_down(self, data: bytes | None) -> None:
        if not self.is_open:
            return
        if data is None:
            self._lost()
        elif self.protocol is not None:
            self.network.witness("<", self.name, data)
            loop, context = self.network.loop, self.process.context
            at = self._rng.randrange(len(data)) if self._rng.random() < 0.02 else 0  # a reply may come in two pieces
            for piece in (data[:at], data[at:]) if at else (data,):
                loop.call_soon(self._received, piece, context=context)

    def _received(self, data: bytes) -> None:
        if self.is_open and self.protocol is not None:
            self.protocol.data_received(data)

    def _send_down(self, data: bytes) -> None:
        if self.reply_to_drop:
            self.network.bitten["replies dropped"] += 1
            self.cut()
        else:
            self._put("down", data)

    def _hang_up(self) -> None:
        self.end.hang_up()
        if self in self.network.wires:
            self.network.wires.remove(self)

    def _lost(self) -> None:
        if self.is_open:
            self.is_open = False
            self._hang_up()
            if self.protocol is not None:
                self.network.loop.call_soon(self.protocol.connection_lost, None, context=self.process.context)


class _Transport(asyncio.Transport):
    """What asyncio's socket transport is to the product's reader."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._wire.protocol = cast("asyncio.Protocol", protocol)

    def write(self, data: Any) -> None:
        self._wire.write(bytes(data))

    def abort(self) -> None:
        self._wire.abort()

    def close(self) -> None:
        self._wire.abort()

    def is_closing(self) -> bool:
        return not self._wire.is_open


class _Connection:
    """What redis-py's connection is to the product once it is open: the owner of a stream writer."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._reader = None
        self._writer: asyncio.StreamWriter | None = asyncio.StreamWriter(
            _Transport(wire), asyncio.Protocol(), None, wire.network.loop
        )

    async def disconnect(self, *, nowait: bool = False) -> None:  # noqa: ARG002 - redis-py's signature
        self._wire.abort()
