"""Who takes part: edges, workers and clients, started, killed, stopped and ended like processes."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from harness.simulation.loop import NOBODY, PROCESS, Process, VirtualLoop
from harness.simulation.rooms import Ledger, Narrow
from harness.simulation.sockets import Client, serve_socket
from harness.simulation.wires import Network
from innkeeper.address import Address
from innkeeper.durability import Durability
from innkeeper.lease import LeaseTimes
from innkeeper.redis_client import Connect
from innkeeper.room import Room
from innkeeper.topology import Where
from innkeeper_edge.app import Site
from innkeeper_edge.drain import drain
from innkeeper_edge.edge import Edge
from innkeeper_workers import cli as worker_cli
from innkeeper_workers.fleet import Fleet

ROOMS: dict[str, type[Room]] = {"ledger": Ledger, "narrow": Narrow}
_EDGE_DRAIN_S = 5.0


class Role(Process):
    """One edge or worker process."""

    def __init__(self, name: str, network: Network) -> None:
        super().__init__(name)
        self.connect: Connect = network.connect_from(self)
        self.stop = asyncio.Event()
        self.main: asyncio.Task[int] | None = None
        self.is_leaving = False

    @property
    def incarnation(self) -> str:
        """Its present id; empty while it has none."""
        raise NotImplementedError

    @property
    def is_ended(self) -> bool:
        """Whether it came to its end by itself."""
        return self.main is not None and self.main.done()

    @property
    def is_up(self) -> bool:
        """Whether it is there, stopped or not, and was not asked to go."""
        return self.is_alive and not self.is_ended and not self.is_leaving

    @property
    def open_tasks(self) -> list[asyncio.Task[Any]]:
        """Its tasks that have not ended."""
        return [task for task in self.tasks if not task.done()]


class WorkerRole(Role):
    """One worker, running the product's own ``serve``."""

    fleet: Fleet | None = None

    @property
    def incarnation(self) -> str:
        """Its present id; empty while it has none."""
        return self.fleet.incarnation if self.fleet is not None else ""


class EdgeRole(Role):
    """One edge, without its HTTP server."""

    edge: Edge | None = None
    site: Site | None = None

    @property
    def incarnation(self) -> str:
        """Its present id; empty while it has none."""
        return self.edge.incarnation if self.edge is not None else ""

    @property
    def is_open(self) -> bool:
        """Whether it takes sockets."""
        return self.is_up and not self.is_stopped and self.edge is not None and self.edge.ready.is_set()


class Cast:
    """All that take part in a run.

    Args:
        loop: Its clock.
        network: Between them and Redis.
        seed: What the clients' delays come from.
        note: Called with a line for the trace.
    """

    def __init__(self, loop: VirtualLoop, network: Network, seed: str, note: Callable[[str], None]) -> None:
        self.loop = loop
        self.network = network
        self.note = note
        self.workers: list[WorkerRole] = []
        self.edges: list[EdgeRole] = []
        self.clients: list[Client] = []
        self._seed = seed

    def start_worker(self) -> WorkerRole:
        """Start one more worker."""
        role = WorkerRole(f"worker{len(self.workers)}", self.network)
        self.workers.append(role)
        self._start(role, worker_cli.serve(ROOMS, "redis://simulated", Durability.RELAXED))
        return role

    def start_edge(self) -> EdgeRole:
        """Start one more edge."""
        role = EdgeRole(f"edge{len(self.edges)}", self.network)
        self.edges.append(role)
        self._start(role, _serve_edge(role))
        return role

    def _start(self, role: Role, main: Any) -> None:
        self.note(f"{role.name} starts")
        role.main = role.context.run(self.loop.create_task, main)

    def open_client(self, role: EdgeRole, room: Address, traits: str) -> Client:
        """Connect one more client to an open edge."""
        name = f"c{len(self.clients)}{traits}"
        client = Client(name, room, role, random.Random(f"{self._seed}/{name}"))
        self.clients.append(client)
        self.note(f"{name} connects to {room} at {role.name}")
        assert role.site is not None
        client.served = role.context.run(self.loop.create_task, serve_socket(role.site, self.loop, client))
        return client

    # --- how processes end ----------------------------------------------------------------------------------------
    def kill(self, role: Role, *, is_silent: bool = False) -> None:
        """End a process at once, as SIGKILL does, or (silently) as a power cut does."""
        if not role.is_alive or role.is_ended:
            return
        self.note(f"{role.name} is killed{' silently' if is_silent else ''}")
        role.is_alive = False
        self.network.kill(role, is_silent=is_silent)
        for client in self.clients:
            if client.edge is role:
                client.edge_is_gone()
        self.network.bitten[f"{role.name.rstrip('0123456789')}s killed"] += 1

    def pause(self, role: Role, for_s: float) -> None:
        """Stop a process for a while, as SIGSTOP and SIGCONT do."""
        if role.is_alive and not role.is_ended and not role.is_stopped:
            self.note(f"{role.name} is stopped for {for_s:.2f} s")
            role.is_stopped = True
            self.network.bitten[f"{role.name.rstrip('0123456789')}s stopped"] += 1
            self.loop.call_later(for_s, self.loop.resume, role, context=NOBODY)

    def ask_to_end(self, role: Role) -> None:
        """Ask a process to end, as SIGTERM does."""
        if role.is_up:
            self.note(f"{role.name} is asked to end")
            role.is_leaving = True
            if not self.network.is_calm:
                self.network.bitten[f"{role.name.rstrip('0123456789')}s asked to end"] += 1
            self.loop.call_soon(role.stop.set, context=role.context)


async def _serve_edge(role: EdgeRole) -> int:
    """Do what the edge's ``serve`` does, but for its listener."""
    edge = role.edge = Edge(role.connect)
    role.site = Site(edge)
    waiting = asyncio.create_task(role.stop.wait())
    done, _ = await asyncio.wait({waiting, *edge.duties}, return_when=asyncio.FIRST_COMPLETED)
    if waiting not in done:
        return 1
    await drain(edge, window_s=0, grace_s=_EDGE_DRAIN_S)
    await edge.close()
    return 0


class NoWatchdog:
    """In place of the thread that watches a real loop."""

    def __init__(self, *, end_after_s: float) -> None:
        pass

    def stop(self) -> None:
        """Do nothing."""


class NotedFleet(Fleet):
    """A fleet that its process knows."""

    def __init__(
        self, rooms: dict[str, type[Room]], where: Where, times: LeaseTimes, durability: Durability, url: str
    ) -> None:
        super().__init__(rooms, where, times, durability, url)
        role = PROCESS.get()
        assert isinstance(role, WorkerRole)
        role.fleet = self


async def check_redis(url: str, **options: object) -> Connect:  # noqa: ARG001 - as in boot
    """Return the process's own way to Redis."""
    role = PROCESS.get()
    assert isinstance(role, Role)
    return role.connect


def stop_asked() -> asyncio.Event:
    """Return what stands for SIGTERM in this process."""
    role = PROCESS.get()
    assert isinstance(role, Role)
    return role.stop
