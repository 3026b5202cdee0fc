"""What happens in a run: clients that come, talk and go, and faults, all drawn from the seed."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from harness.simulation.cast import Cast, EdgeRole, Role, WorkerRole
from harness.simulation.loop import NOBODY
from harness.simulation.server import SimulatedRedis
from harness.simulation.sockets import Client
from harness.simulation.wires import Network
from innkeeper.address import Address

MOST_EVENTS = 300
_EVENT_COUNTS = (20, 30, 30, 40, 40, 60, 60, 100, 100, MOST_EVENTS)
_TRAITS = ("refused", "raises", "leave-raises", "leave-hangs", "leave-waits")
_DEEDS = (
    *("say",) * 40, *("note",) * 8, *("wait",) * 8, *("raise",) * 4, *("timer",) * 4,
    "wait-raise", "big", "big", "close", "hang",
)  # fmt: skip
_ROOMS = (Address("ledger", "one"), Address("ledger", "two"), Address("narrow", "three"), Address("ledger", "four"))


class Scenario:
    """One run's events.

    Args:
        cast: Who takes part.
        network: Where faults are.
        redis: Where faults are, too.
        seed: What all of it comes from.
        event_count: How many clients' acts and faults; at most 300; None draws it.
        only_faults: The names of the only faults to use, often; None draws them.
    """

    def __init__(
        self,
        cast: Cast,
        network: Network,
        redis: SimulatedRedis,
        *,
        seed: str,
        event_count: int | None,
        only_faults: tuple[str, ...] | None,
    ) -> None:
        self.cast = cast
        self.network = network
        self.redis = redis
        self.loop = cast.loop
        self.rng = rng = random.Random(seed)
        drawn = rng.choice(_EVENT_COUNTS)
        self.event_count = drawn if event_count is None else min(event_count, MOST_EVENTS)
        self.rooms = _ROOMS[: rng.randint(1, len(_ROOMS))]
        self.most_clients = rng.randint(4, 10)
        self.rate_s = rng.choice((0.003, 0.01, 0.03, 0.06))
        faults: list[Callable[[], Any]] = [
            self.kill_worker, self.kill_worker, self.kill_edge, self.stop_worker, self.stop_edge, self.end_worker,
            self.end_edge, self.cut, self.cut_pubsub, self.drop_reply, self.drop_reply, self.hold, self.slow,
            self.stop_redis, self.restart_redis, self.forget_functions,
            self.move_clock,
        ]  # fmt: skip
        # A run with all faults at once hides what one alone would show.
        self.faults = rng.sample(faults, rng.choice((0, 1, 2, 3, 6, len(faults))))
        self.fault_chance = rng.choice((0.03, 0.08, 0.2))
        if only_faults is not None:
            self.faults = [getattr(self, name) for name in only_faults]
            self.fault_chance = 0.15

    async def play(self) -> None:
        """Let it all happen."""
        for _ in range(self.rng.choice((2, 3))):
            self.cast.start_worker()
        for _ in range(2):
            self.cast.start_edge()
        for _ in range(self.event_count):
            await asyncio.sleep(self.rng.expovariate(1 / self.rate_s))
            if self.faults and self.rng.random() < self.fault_chance:
                self.rng.choice(self.faults)()
            else:
                self.client_acts()

    def calm(self) -> None:
        """End all faults: every process runs again, every wire carries."""
        self.network.is_calm = True
        self.network.slow_s = 0.0
        if self.redis.is_stopped:
            self.redis.resume()
        for role in (*self.cast.workers, *self.cast.edges):
            self.network.let_go(role)
            role.light_fuse(10**9, lambda: None)
            if role.is_stopped:
                self.loop.resume(role)
        for wire in self.network.wires:
            wire.reply_to_drop = False
        if not any(worker.is_up for worker in self.cast.workers):
            self.cast.start_worker()
        if not any(edge.is_up for edge in self.cast.edges):
            self.cast.start_edge()

    # --- clients --------------------------------------------------------------------------------------------------
    def client_acts(self) -> None:
        """One client comes, speaks or goes."""
        rng = self.rng
        present = [client for client in self.cast.clients if client.is_open and client.wire is not None]
        edges = [edge for edge in self.cast.edges if edge.is_open]
        if edges and len(present) < self.most_clients and rng.random() < (0.6 if len(present) < 3 else 0.15):
            traits = "+" + rng.choice(_TRAITS) if rng.random() < 0.2 else ""
            self.cast.open_client(rng.choice(edges), rng.choice(self.rooms), traits)
        elif present:
            client = rng.choice(present)
            fate = rng.random()
            if fate < 0.05:
                client.leave()
            elif fate < 0.08:
                client.vanish()
            else:
                self.speak(client)

    def speak(self, client: Client) -> None:
        """Send one message, or several at once."""
        for _ in range(self.rng.choice((1, 1, 1, 2, 5, 12))):
            client.send({"do": self.rng.choice(_DEEDS), "s": self.rng.choice((0.001, 0.02, 0.1))})

    # --- faults ---------------------------------------------------------------------------------------------------
    def _roles(self, roles: list[Any]) -> list[Any]:
        return [role for role in roles if role.is_alive and not role.is_ended]

    def _any_role(self) -> Role | None:
        roles = self._roles([*self.cast.workers, *self.cast.edges])
        return self.rng.choice(roles) if roles else None

    def _light(self, roles: list[Any], action: Callable[[Any], Any]) -> None:
        """Let something befall one of them between two of its next steps."""
        if alive := self._roles(roles):
            role = self.rng.choice(alive)
            role.light_fuse(self.rng.choice((0, 0, 3, 10, 40, 150)) + self.rng.randrange(10), lambda: action(role))

    def _kill(self, role: Role) -> None:
        self.cast.kill(role, is_silent=self.rng.random() < 0.15)
        start = self.cast.start_worker if isinstance(role, WorkerRole) else self.cast.start_edge
        self.loop.call_later(self.rng.choice((0.05, 0.5, 1.5)), self._replace, start, context=NOBODY)

    def _replace(self, start: Callable[[], Any]) -> None:
        if not self.network.is_calm:
            start()

    def kill_worker(self) -> None:
        """SIGKILL, or a power cut, and a new worker a little later."""
        self._light(self.cast.workers, self._kill)

    def kill_edge(self) -> None:
        """SIGKILL, or a power cut, and a new edge a little later."""
        self._light(self.cast.edges, self._kill)

    def stop_worker(self) -> None:
        """SIGSTOP and SIGCONT."""
        for_s = self.rng.choice((0.1, 0.6, 1.3, 2.5, 5.0))
        self._light(self.cast.workers, lambda role: self.cast.pause(role, for_s))

    def stop_edge(self) -> None:
        """SIGSTOP and SIGCONT."""
        for_s = self.rng.choice((0.1, 0.6, 1.5, 4.0, 6.0))
        self._light(self.cast.edges, lambda role: self.cast.pause(role, for_s))

    def end_worker(self) -> None:
        """SIGTERM, with the successor ready before or after."""
        self._end(self.cast.workers, self.cast.start_worker)

    def end_edge(self) -> None:
        """SIGTERM, with the successor ready before or after."""
        self._end(self.cast.edges, self.cast.start_edge)

    def _end(self, roles: list[Any], start: Callable[[], Any]) -> None:
        up = [role for role in roles if role.is_up]
        if up:
            if self.rng.random() < 0.5:
                start()
            else:
                self.loop.call_later(0.3, self._replace, start, context=NOBODY)
            self.cast.ask_to_end(self.rng.choice(up))

    def cut(self) -> None:
        """Break all wires of a process."""
        if role := self._any_role():
            for wire in self.network.of(role):
                self.network.bitten["wires cut"] += 1
                wire.cut()

    def cut_pubsub(self) -> None:
        """Break the subscriptions of all processes, as CLIENT KILL TYPE pubsub does."""
        for wire in [wire for wire in self.network.wires if wire.end._pubsub]:
            self.network.bitten["subscriptions cut"] += 1
            wire.cut()

    def drop_reply(self) -> None:
        """Carry out what comes next on a wire, and break it before the reply is out."""
        if wires := [wire for wire in self.network.wires if not wire.end._pubsub]:
            self.rng.choice(wires).reply_to_drop = True

    def hold(self) -> None:
        """Let nothing through between a process and Redis for a while, one way or both."""
        role = self._any_role()
        if role is not None and role not in self.network.held:
            ways = self.rng.choice(({"up"}, {"down"}, {"up", "down"}))
            self.cast.note(f"{role.name}: nothing goes {' or '.join(sorted(ways))}")
            self.network.hold(role, ways)
            self.loop.call_later(self.rng.choice((0.2, 0.7, 1.6, 3.0, 5.0)), self.network.let_go, role, context=NOBODY)

    def slow(self) -> None:
        """Make everything slow for a while."""
        self.network.slow_s = self.rng.choice((0.01, 0.1, 0.4))
        self.network.bitten["slow times"] += 1
        self.loop.call_later(self.rng.uniform(0.1, 1.5), self._fast, context=NOBODY)

    def _fast(self) -> None:
        self.network.slow_s = 0.0

    def stop_redis(self) -> None:
        """Let Redis answer nobody for a while, as a long fork or DEBUG SLEEP does."""
        if not self.redis.is_stopped:
            self.redis.is_stopped = True
            self.network.bitten["times Redis stood still"] += 1
            self.loop.call_later(self.rng.choice((0.1, 0.6, 2.2, 4.0)), self._resume_redis, context=NOBODY)

    def _resume_redis(self) -> None:
        if self.redis.is_stopped:
            self.redis.resume()

    def restart_redis(self) -> None:
        """Break every wire at once, as a Redis that comes back with all its data."""
        self.cast.note("Redis restarts with its data")
        self.network.bitten["restarts of Redis"] += 1
        for wire in list(self.network.wires):
            wire.cut()

    def move_clock(self) -> None:
        """Let the clock of Redis' machine jump: leases and heartbeats are judged by it."""
        by_s = self.rng.choice((-2.5, -0.8, 0.8, 1.5, 2.5, 6.0))
        self.cast.note(f"the clock of Redis jumps by {by_s} s")
        self.network.bitten["jumps of the clock"] += 1
        self.redis.clock_ahead_s += by_s

    def forget_functions(self) -> None:
        """FUNCTION FLUSH."""
        self.cast.note("FUNCTION FLUSH")
        self.network.bitten["functions lost"] += 1
        self.redis.ask("FUNCTION", "FLUSH")


__all__ = ["EdgeRole", "Scenario"]
