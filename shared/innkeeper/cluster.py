"""A Redis Cluster: each command goes to the primary of its key's slot, each subscription too, and both follow moves.

redis-py discovers who serves which slot (its NodesManager) and counts slots; a command that meets a move is sent again
unchanged, like one whose answer was lost.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.cluster import ClusterNode, NodesManager
from redis.asyncio.connection import Connection, ConnectionPool, parse_url
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.redis_client import Connect, Link, connection_options, pool_connector
from innkeeper.sentinel import plain_url, split_hosts

log = logging.getLogger("innkeeper.redis")

SCHEMES = ("redis+cluster", "rediss+cluster")
_PORT = 6379
_REFRESH_GAP_S = 0.2
_TRY_AGAIN_S = 0.02
_REDIRECTIONS = ("MOVED ", "ASK ", "TRYAGAIN ", "CLUSTERDOWN ")


class Cluster:
    """Who serves which slot; shared by the links and subscriptions of a process.

    Args:
        url: ``redis+cluster://user:password@host:port,host:port``; ``rediss+cluster`` for TLS. Some nodes are enough,
            the others are found through them.
        timeout_s: For each step of connecting.

    Raises:
        ValueError: The URL cannot be read, or names another database than 0.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._seeds = split_hosts(urlsplit(url).netloc, _PORT)
        options: dict[str, Any] = {**parse_url(plain_url(url)[0]), **connection_options(timeout_s)}
        if options.pop("db", 0):
            raise ValueError("a cluster has database 0 only")
        self._connection_class = options.pop("connection_class", Connection)
        self._options = {name: value for name, value in options.items() if name not in ("host", "port")}
        self._owners: list[str] = [""] * REDIS_CLUSTER_HASH_SLOTS
        self._manager: NodesManager | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at_s = 0.0
        self.on_change: list[Callable[[], None]] = []

    @property
    def primaries(self) -> list[str]:
        """The primaries that serve slots, as ``host:port``."""
        return sorted({owner for owner in self._owners if owner})

    def node_of(self, key: str | bytes) -> str:
        """Return the primary that serves a key or sharded channel; empty where nobody is known to."""
        return self._owners[key_slot(key.encode() if isinstance(key, str) else key)]

    def connect_to(self, node: str) -> Connect:
        """Return what opens connections to one node."""
        host, _, port = node.rpartition(":")
        pool = ConnectionPool(connection_class=self._connection_class, host=host, port=int(port), **self._options)
        return pool_connector(pool)

    async def refresh(self) -> None:
        """Ask the cluster who serves which slot; callers at the same time share one question.

        Raises:
            redis.exceptions.RedisError: No node answers.
        """
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh(), name="cluster topology")
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        options = {**self._options, "connection_class": self._connection_class}
        if self._manager is None:
            nodes = [ClusterNode(host, port, **options) for host, port in self._seeds]
            self._manager = NodesManager(nodes, require_full_coverage=False, connection_kwargs=options)
        manager = self._manager
        try:
            await manager.initialize(additional_startup_nodes_info=self._seeds)
        finally:
            self._refreshed_at_s = asyncio.get_running_loop().time()
            for nodes_of in ("nodes_cache", "startup_nodes"):
                await manager.aclose(nodes_of)
        slots = manager.slots_cache
        self._set([slots[slot][0].name if slot in slots else "" for slot in range(REDIS_CLUSTER_HASH_SLOTS)])

    def suspect(self) -> None:
        """Ask again soon, beside: something did not answer as the present picture says."""
        now_s = asyncio.get_running_loop().time()
        idle = self._refreshing is None or self._refreshing.done()
        if idle and now_s - self._refreshed_at_s > _REFRESH_GAP_S:
            self._refreshing = asyncio.create_task(self._refresh(), name="cluster topology")
            self._refreshing.add_done_callback(_log_failure)

    def learn(self, moved: str) -> None:
        """Take what a ``MOVED slot host:port`` says, and ask for the rest."""
        _, slot, node = moved.split()[:3]
        if not node.startswith(":") and self._owners[int(slot)] != node:
            owners = self._owners.copy()
            owners[int(slot)] = node
            self._set(owners)
        self.suspect()

    def _set(self, owners: list[str]) -> None:
        if owners != self._owners:
            self._owners = owners
            for heard in self.on_change:
                heard()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("cluster: topology not known anew: %s", error)


class ClusterLink:
    """Commands to a cluster: one :class:`Link` to each primary; the same calls and promises as of a Link.

    Commands without a key go to one of :meth:`primaries`.
    """

    def __init__(self, cluster: Cluster, *, timeout_s: float, name: str, link: type[Link] = Link) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._name = name
        self._link_class = link
        self._links: dict[str, Link] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        cluster.on_change.append(self._drop_unused)

    def lane(self, key: str) -> str:
        """Return the node that serves a key at present: what has another lane fails apart."""
        return self._cluster.node_of(key)

    def primaries(self) -> list[Link]:
        """Return a link to each primary."""
        return [self._link_to(node) for node in self._cluster.primaries]

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """Send commands and return their replies in order, wherever each was answered.

        Commands of one slot are carried out in their order; there is no order between nodes.

        Raises:
            RedisUnavailable: A node did not answer in time, or a slot is served by nobody: any of the commands may
                have been carried out.
        """
        replies = await self._send_once(commands)
        deadline_s = self._loop.time() + self._timeout_s
        while redirected := [n for n, reply in enumerate(replies) if _is_redirection(reply)]:
            if self._loop.time() > deadline_s:
                raise RedisUnavailable(f"{self._name}: {replies[redirected[0]]}, for {self._timeout_s:g} s")
            for n, reply in zip(redirected, await self._send_again(commands, replies, redirected), strict=True):
                replies[n] = reply
        return replies

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

    async def close(self) -> None:
        """Close all connections; pending calls fail as unavailable."""
        self._cluster.on_change.remove(self._drop_unused)
        links, self._links = list(self._links.values()), {}
        await asyncio.gather(*(link.close() for link in links), *self._closing)

    async def _send_once(self, commands: Sequence[Command]) -> list[Reply]:
        places: dict[str, list[int]] = {}
        for n, command in enumerate(commands):
            places.setdefault(self._cluster.node_of(_key_of(command)), []).append(n)
        if len(places) == 1:
            return await self._send_to(next(iter(places)), commands)
        answers = await asyncio.gather(
            *(self._send_to(node, [commands[n] for n in numbers]) for node, numbers in places.items()),
            return_exceptions=True,
        )
        replies: list[Reply] = [None] * len(commands)
        for numbers, answer in zip(places.values(), answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            for n, reply in zip(numbers, answer, strict=True):
                replies[n] = reply
        return replies

    async def _send_to(self, node: str, commands: Sequence[Command]) -> list[Reply]:
        if not node:
            self._cluster.suspect()
            raise RedisUnavailable(f"{self._name}: no node of the cluster serves the slot")
        try:
            return await self._link_to(node).send(commands)
        except RedisUnavailable:
            self._cluster.suspect()
            raise

    async def _send_again(self, commands: Sequence[Command], replies: list[Reply], numbers: list[int]) -> list[Reply]:
        """Send what was redirected once more; the answers come in the order of ``numbers``."""
        asked: dict[int, Reply] = {}
        waits = False
        for n in numbers:
            text = str(replies[n])
            if text.startswith("MOVED "):
                self._cluster.learn(text)
            elif text.startswith("ASK "):
                node = text.split()[2]
                asked[n] = (await self._send_to(node, (("ASKING",), commands[n])))[1]
            else:
                waits = True
        if waits:
            self._cluster.suspect()
            await asyncio.sleep(_TRY_AGAIN_S)
        rest = [n for n in numbers if n not in asked]
        again = dict(zip(rest, await self._send_once([commands[n] for n in rest]), strict=True)) if rest else {}
        return [asked[n] if n in asked else again[n] for n in numbers]

    def _link_to(self, node: str) -> Link:
        link = self._links.get(node)
        if link is None:
            link = self._links[node] = self._link_class(
                self._cluster.connect_to(node),
                timeout_s=self._timeout_s,
                name=f"{self._name} {node}",
                on_unready=self._cluster.suspect,
            )
        return link

    def _drop_unused(self) -> None:
        for node in set(self._links) - set(self._cluster.primaries):
            closing = asyncio.create_task(self._links.pop(node).close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _key_of(command: Command) -> str | bytes:
    """Return the key that says where a command goes; all other keys of it are in the same slot."""
    key = command[{"FCALL": 3, "XREAD": 6}.get(str(command[0]), 1)]
    return key if isinstance(key, bytes) else str(key)


def _is_redirection(reply: Reply) -> bool:
    return isinstance(reply, RedisReplied) and str(reply).startswith(_REDIRECTIONS)
