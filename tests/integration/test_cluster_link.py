"""Links and subscriptions in a real cluster: routed by slot, and following slots that move."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.crc import key_slot

from harness.cluster import Cluster
from harness.house import until
from harness.valkey import Valkey
from innkeeper.cluster import Cluster as Nodes
from innkeeper.cluster import ClusterLink
from innkeeper.cluster_subscriber import ClusterSubscriber
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.functions.library import NAME, load_library

KEYS = [f"test:{{{n}}}" for n in range(60)]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """Three primaries of this test's own."""
    async with Cluster() as running:
        yield running


async def test_a_link_and_subscriptions_follow_the_slots(cluster: Cluster) -> None:
    """One cluster, one story: it is started once, because starting it takes longer than all that is asked of it."""
    nodes = Nodes(cluster.url, timeout_s=1)
    await nodes.refresh()
    link = ClusterLink(nodes, timeout_s=2, name="test")
    heard: list[tuple[bytes, bytes]] = []
    fresh: list[bytes] = []
    ears = ClusterSubscriber(nodes, on_message=lambda c, b: heard.append((c, b)), on_fresh=fresh.append)
    try:
        await replies_come_in_the_order_of_the_commands(link)
        await every_primary_gets_the_functions(link)
        await subscriptions_stand_at_the_primary_of_their_slot(cluster, link, ears)
        await a_moved_slot_is_followed(cluster, link, ears, fresh, heard)
        await a_slot_between_two_nodes_is_served(cluster, link)
        await a_dead_node_fails_its_own_slots_only(cluster, link, fresh)
    finally:
        await ears.close()
        await link.close()


async def replies_come_in_the_order_of_the_commands(link: ClusterLink) -> None:
    """A batch over all nodes is answered in its own order; an error reply hides no other."""
    assert len(link.primaries()) == 3
    assert len({link.lane(key) for key in KEYS}) == 3
    await link.send([("SET", key, n) for n, key in enumerate(KEYS)])
    assert await link.send([("GET", key) for key in KEYS]) == [str(n).encode() for n in range(len(KEYS))]
    replies = await link.send((("GET", KEYS[0]), ("LPUSH", KEYS[1], "x"), ("GET", KEYS[2])))
    assert isinstance(replies[1], RedisReplied)
    assert (replies[0], replies[2]) == (b"0", b"2")


async def every_primary_gets_the_functions(link: ClusterLink) -> None:
    """Each primary has the library, so that an act works wherever its room is."""
    await load_library(link)
    for primary in link.primaries():
        assert NAME.encode() in (await primary.call("FUNCTION", "LIST"))[0]


async def subscriptions_stand_at_the_primary_of_their_slot(
    cluster: Cluster, link: ClusterLink, ears: ClusterSubscriber
) -> None:
    """A channel is heard, and counts where its slot is: that count is evidence."""
    for key in KEYS:
        await ears.subscribe(key)
        assert ears.is_subscribed(key)
        assert await link.call("SPUBLISH", key, "hello") == 1
    for node in cluster.nodes:
        mine = [key for key in KEYS if nodes_port(link.lane(key)) == node.port]
        counts = await cluster.tell(node, "PUBSUB", "SHARDNUMSUB", *mine)
        assert len(mine) > 5
        assert sum(map(int, counts[1::2])) == len(mine)


def nodes_port(node: str) -> int:
    """Return the port of a node."""
    return int(node.rpartition(":")[2])


async def a_moved_slot_is_followed(
    cluster: Cluster, link: ClusterLink, ears: ClusterSubscriber, fresh: list[bytes], heard: list[tuple[bytes, bytes]]
) -> None:
    """After a move the next command finds its way, and the channel is subscribed anew without one, and reported."""
    key = KEYS[0]
    slot = key_slot(key.encode())
    source, target = await two_nodes(cluster, link, key)
    await cluster.migrate(slot, source, target)
    await until(lambda: key.encode() in fresh, "the channel is reported as fresh")
    assert ears.is_subscribed(key)
    counts = await cluster.tell(target, "PUBSUB", "SHARDNUMSUB", key)
    assert int(counts[1]) == 1
    heard.clear()
    assert await link.send((("GET", key), ("SPUBLISH", key, "moved"))) == [b"0", 1]
    await until(lambda: heard == [(key.encode(), b"moved")], "the message comes once", seen=heard)


async def a_slot_between_two_nodes_is_served(cluster: Cluster, link: ClusterLink) -> None:
    """While a slot is moved key by key, each key is asked for where it is."""
    key = KEYS[1]
    slot = key_slot(key.encode())
    source, target = await two_nodes(cluster, link, key)
    names = [await cluster.tell(node, "CLUSTER", "MYID") for node in (source, target)]
    await cluster.tell(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
    await cluster.tell(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
    await cluster.tell(source, "MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    assert await link.call("GET", key) == b"1", "ASK was not followed"
    refused = asyncio.create_task(link.call("DEL", key, key.replace(":", ":other:")))
    with pytest.raises(RedisUnavailable, match=r"ASK|TRYAGAIN"):
        await refused
    for node in (target, source):
        await cluster.tell(node, "CLUSTER", "SETSLOT", slot, "NODE", names[1])
    assert await link.call("DEL", key, key.replace(":", ":other:")) == 1


async def a_dead_node_fails_its_own_slots_only(cluster: Cluster, link: ClusterLink, fresh: list[bytes]) -> None:
    """Without it the others answer; back again it is reached by itself, and its channels are reported as fresh."""
    victim = cluster.nodes[2]
    hit, spared = (
        [key for key in KEYS[2:] if (nodes_port(link.lane(key)) == victim.port) is there] for there in (True, False)
    )
    victim.kill()
    assert await link.send([("EXISTS", key) for key in spared]) == [1] * len(spared)
    with pytest.raises(RedisUnavailable):
        await link.send([("EXISTS", key) for key in KEYS[2:]])
    fresh.clear()
    await asyncio.to_thread(victim.start)

    async def is_back() -> bool:
        try:
            return bool(await link.send([("EXISTS", key) for key in hit]) == [1] * len(hit))
        except RedisUnavailable:
            return False

    await until(is_back, "the node answers")
    await until(lambda: set(fresh) >= {key.encode() for key in hit}, "its channels are fresh", seen=fresh)
    assert await link.call("SPUBLISH", hit[0], "x") == 1


async def two_nodes(cluster: Cluster, link: ClusterLink, key: str) -> tuple[Valkey, Valkey]:
    """Return the server that a key is on, and another one."""
    port = nodes_port(link.lane(key))
    source = next(node for node in cluster.nodes if node.port == port)
    return source, next(node for node in cluster.nodes if node is not source)
