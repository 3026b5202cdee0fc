"""A cluster from the bundled server: three primaries, each with a replica if asked for, on free loopback ports."""

import asyncio
import functools
import socket
from types import TracebackType
from typing import Any, Self

import redis.asyncio
from redis.crc import key_slot

from harness.house import until
from harness.talk import History, history_of
from harness.valkey import Valkey

NODE_TIMEOUT_MS = 1500
SLOTS = 16384


class Cluster:
    """Use it as an async context manager; ``url`` names one node."""

    def __init__(self, *, replicas: bool = False) -> None:
        self._replicas = replicas
        self.nodes: list[Valkey] = []

    async def __aenter__(self) -> Self:
        try:
            for _ in range(6 if self._replicas else 3):
                self.nodes.append(await asyncio.to_thread(_start_node))
            await self._join()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.stop()

    @property
    def url(self) -> str:
        """What the roles are given."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    async def _join(self) -> None:
        for number, node in enumerate(self.nodes):
            await self.tell(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < 3:
                first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
                await self.tell(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
            if number:
                bus = _bus_port(self.nodes[0])
                await self.tell(node, "CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port, bus)
        await until(self.is_whole, "the nodes know each other", timeout_s=30)
        for replica, primary in zip(self.nodes[3:], self.nodes[:3], strict=False):
            name = await self.tell(primary, "CLUSTER", "MYID")
            await self.tell(replica, "CLUSTER", "REPLICATE", name)
        for replica in self.nodes[3:]:
            await until(functools.partial(self._follows, replica), "the replica is in step", timeout_s=30)

    async def is_whole(self) -> bool:
        """Return whether every node sees every other one and all slots."""
        for node in self.nodes:
            info = await self.tell(node, "CLUSTER", "INFO")
            if info["cluster_state"] != "ok" or int(info["cluster_known_nodes"]) < len(self.nodes):
                return False
        return True

    async def _follows(self, replica: Valkey) -> bool:
        info = await self.tell(replica, "INFO", "replication")
        return bool(info["role"] == "slave" and info["master_link_status"] == "up")

    async def node_of(self, room: str, asked: int = 0) -> Valkey:
        """Return the primary of a room."""
        slot = key_slot(room.encode())
        slots = await self.tell(self.nodes[asked], "CLUSTER", "SLOTS")
        port = next(primary[1] for first, last, primary, *_ in slots if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    async def migrate(self, slot: int, source: Valkey, target: Valkey) -> None:
        """Move a slot in one step (Valkey 9), and wait until it is done."""
        name = await self.tell(target, "CLUSTER", "MYID")
        await self.tell(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", name)
        await until(lambda: self._serves(target, slot), "the slot has moved")

    async def migrate_key_by_key(self, slot: int, source: Valkey, target: Valkey) -> int:
        """Move a slot as older tools do; return how many keys were moved."""
        names = {node: await self.tell(node, "CLUSTER", "MYID") for node in (source, target)}
        await self.tell(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
        await self.tell(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
        moved = 0
        while found := await self.tell(source, "CLUSTER", "GETKEYSINSLOT", slot, 10):
            await self.tell(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *found)
            moved += len(found)
        for node in (target, source):
            await self.tell(node, "CLUSTER", "SETSLOT", slot, "NODE", names[target])
        return moved

    async def _serves(self, node: Valkey, slot: int) -> bool:
        slots = await self.tell(node, "CLUSTER", "SLOTS")
        return any(first <= slot <= last and primary[1] == node.port for first, last, primary, *_ in slots)

    async def history(self, room: str) -> History:
        """Return a room's stored history."""
        outlog = await self.tell(await self.node_of(room), "XRANGE", f"inn:{{{room}}}:outlog", "-", "+")
        return history_of(outlog)

    @staticmethod
    async def tell(node: Valkey, *command: str | int) -> Any:
        """Run a command at one node."""
        client: Any = redis.asyncio.Redis(port=node.port, decode_responses=True)
        async with client:
            return (
                await client.execute_command(" ".join(map(str, command[:2])), *command[2:])
                if (command[0] == "CLUSTER")
                else await client.execute_command(*command)
            )


def _start_node() -> Valkey:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        bus = probe.getsockname()[1]
    return Valkey(
        *("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
        *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
        persist=True,
    )


def _bus_port(node: Valkey) -> int:
    return int(node.options[node.options.index("--cluster-port") + 1])
