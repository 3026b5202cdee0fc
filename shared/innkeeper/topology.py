"""Where Redis is: one server, a primary behind Sentinels, or a cluster; the form of the URL says which."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from innkeeper.channel import Command, Reply
from innkeeper.cluster import SCHEMES as CLUSTER_SCHEMES
from innkeeper.cluster import Cluster, ClusterLink
from innkeeper.cluster_subscriber import ClusterSubscriber
from innkeeper.redis_client import Connect, Link, connector
from innkeeper.sentinel import SCHEMES as SENTINEL_SCHEMES
from innkeeper.sentinel import sentinel_connector
from innkeeper.subscriber import Subscriber

Where = Connect | Cluster
Item = TypeVar("Item")


class Commands(Protocol):
    """What carries commands: a :class:`Link` to one server, or a :class:`ClusterLink`."""

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """Send commands and return their replies in order; RedisUnavailable: they may have been carried out."""

    async def call(self, *command: str | bytes | int) -> Reply:
        """Send one command and return its reply; an error reply raises."""

    def lane(self, key: str) -> str:
        """Return which server a key is on: what is in another lane fails apart."""

    def primaries(self) -> Sequence["Commands"]:
        """Return what carries commands to each primary."""

    async def close(self) -> None:
        """Close all connections."""


class Subscriptions(Protocol):
    """What holds sharded subscriptions: a :class:`Subscriber` at one server, or a :class:`ClusterSubscriber`."""

    async def subscribe(self, channel: str) -> None:
        """Subscribe and return when it is confirmed."""

    def unsubscribe(self, channel: str) -> None:
        """Forget a channel."""

    def is_subscribed(self, channel: str) -> bool:
        """Return whether the channel is confirmed."""

    def reopen(self) -> None:
        """Connect anew."""

    @property
    def lost_count(self) -> int:
        """Connections lost so far."""

    async def close(self) -> None:
        """Close all connections."""


def reach(url: str, *, timeout_s: float) -> Where:
    """Return what leads to the server or servers at ``url``; nothing is opened yet.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``; ``redis+sentinel://``; ``redis+cluster://``.
        timeout_s: For each connection.

    Raises:
        ValueError: The URL cannot be read; the text says why.
    """
    scheme = urlsplit(url).scheme
    if scheme in SENTINEL_SCHEMES:
        return sentinel_connector(url, timeout_s=timeout_s)
    if scheme in CLUSTER_SCHEMES:
        return Cluster(url, timeout_s=timeout_s)
    return connector(url, timeout_s=timeout_s)


def open_link(
    where: Where,
    *,
    timeout_s: float,
    name: str,
    on_unready: Callable[[], None] | None = None,
    kind: type[Link] = Link,
) -> Link | ClusterLink:
    """Return a link to where Redis is; ``kind`` is of the connections to each server, the rest as of :class:`Link`."""
    if isinstance(where, Cluster):
        return ClusterLink(where, timeout_s=timeout_s, name=name, link=kind)
    return kind(where, timeout_s=timeout_s, name=name, on_unready=on_unready)


def open_subscriber(
    where: Where, *, on_message: Callable[[bytes, bytes], None], on_fresh: Callable[[bytes], None], name: str
) -> Subscriber | ClusterSubscriber:
    """Return subscriptions at where Redis is; the arguments are those of :class:`Subscriber`."""
    if isinstance(where, Cluster):
        return ClusterSubscriber(where, on_message=on_message, on_fresh=on_fresh, name=name)
    return Subscriber(where, on_message=on_message, on_fresh=on_fresh, name=name)


def by_lane(link: Commands, items: Sequence[Item], key: Callable[[Item], str]) -> list[list[Item]]:
    """Return the items in groups whose keys are on one server each, in order."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(link.lane(key(item)), []).append(item)
    return list(groups.values())
