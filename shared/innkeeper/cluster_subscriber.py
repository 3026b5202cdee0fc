"""Sharded subscriptions in a cluster: one reader to each primary, and channels that follow their slot."""

import asyncio
from collections import Counter
from collections.abc import Callable

from innkeeper.cluster import Cluster
from innkeeper.subscriber import Subscriber

_AUDIT_S = 0.25
_REOPEN_AFTER_AUDITS = 8


class ClusterSubscriber:
    """The same calls and promises as of a :class:`Subscriber`.

    A channel is subscribed at its slot's primary and nowhere else, because the count of a bell's subscribers there is
    evidence. When the slot moves, the old node says so (an unasked ``sunsubscribe``), or the connection is lost; the
    channel is subscribed at the new one and reported as fresh.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        on_message: Callable[[bytes, bytes], None],
        on_fresh: Callable[[bytes], None],
        name: str = "subscriptions",
    ) -> None:
        self._cluster = cluster
        self._on_message = on_message
        self._on_fresh = on_fresh
        self._name = name
        self._nodes: dict[str, Subscriber] = {}
        self._placed: dict[str, str] = {}
        self._confirmed_once: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._is_planned = False
        self._retired_lost_count = 0
        cluster.on_change.append(self._plan)
        self._auditor = asyncio.create_task(self._audit(), name=f"audit of {name}")

    async def subscribe(self, channel: str) -> None:
        """Subscribe and return when the slot's primary has confirmed it."""
        future = self._confirmed_once.get(channel)
        if future is None:
            future = self._confirmed_once[channel] = self._loop.create_future()
            self._place(channel)
        await asyncio.shield(future)

    def unsubscribe(self, channel: str) -> None:
        """Forget a channel; messages already under way may still come."""
        future = self._confirmed_once.pop(channel, None)
        if future is not None:
            future.cancel()
            if node := self._placed.pop(channel, ""):
                self._nodes[node].unsubscribe(channel)

    def is_subscribed(self, channel: str) -> bool:
        """Return whether the channel is confirmed where its slot is."""
        node = self._placed.get(channel, "")
        return bool(node) and node == self._cluster.node_of(channel) and self._nodes[node].is_subscribed(channel)

    @property
    def lost_count(self) -> int:
        """Connections lost so far."""
        return self._retired_lost_count + sum(subscriber.lost_count for subscriber in self._nodes.values())

    def reopen(self) -> None:
        """Connect anew everywhere."""
        for subscriber in self._nodes.values():
            subscriber.reopen()

    async def close(self) -> None:
        """Close all connections; nothing is called afterwards."""
        self._cluster.on_change.remove(self._plan)
        self._auditor.cancel()
        for future in self._confirmed_once.values():
            future.cancel()
        self._confirmed_once.clear()
        await asyncio.gather(*(subscriber.close() for subscriber in self._nodes.values()))
        await asyncio.gather(self._auditor, *self._tasks, return_exceptions=True)

    # --- where channels are ---------------------------------------------------------------------------------------
    def _plan(self) -> None:
        """Move channels soon: one look for many slots that moved together."""
        if not self._is_planned:
            self._is_planned = True
            self._loop.call_soon(self._move)

    def _move(self) -> None:
        self._is_planned = False
        for channel in self._confirmed_once:
            self._place(channel)
        for node in set(self._nodes) - set(self._cluster.primaries) - set(self._placed.values()):
            unused = self._nodes.pop(node)
            self._retired_lost_count += unused.lost_count
            self._spawn(unused)

    def _spawn(self, unused: Subscriber) -> None:
        task = asyncio.create_task(unused.close())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _place(self, channel: str) -> None:
        node, old = self._cluster.node_of(channel), self._placed.get(channel)
        if node in ("", old):
            return
        if old:
            self._nodes[old].unsubscribe(channel)
        self._placed[channel] = node
        task = asyncio.create_task(self._confirm(channel, node))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _confirm(self, channel: str, node: str) -> None:
        await self._at(node).subscribe(channel)
        future = self._confirmed_once.get(channel)
        if future is None or self._placed.get(channel) != node:
            return
        if future.done():
            self._on_fresh(channel.encode())
        else:
            future.set_result(None)

    def _at(self, node: str) -> Subscriber:
        subscriber = self._nodes.get(node)
        if subscriber is None:
            subscriber = self._nodes[node] = Subscriber(
                self._cluster.connect_to(node),
                on_message=self._on_message,
                on_fresh=self._on_fresh,
                on_moved=self._cluster.learn,
                name=f"{self._name} {node}",
            )
        return subscriber

    async def _audit(self) -> None:
        """Ask for the topology while something is not subscribed as it should be: its node may be gone."""
        broken: Counter[Subscriber] = Counter()
        while True:
            await asyncio.sleep(_AUDIT_S)
            broken = Counter({s: broken[s] + 1 for s in self._nodes.values() if not s.is_whole})
            if broken or len(self._placed) < len(self._confirmed_once):
                self._cluster.suspect()
                self._plan()
            for subscriber, count in broken.items():
                if count % _REOPEN_AFTER_AUDITS == 0:  # nodes that sent a channel to each other and back
                    subscriber.reopen()
