"""Sharded subscriptions to a real server: confirmed, kept, and loud about gaps; with both readers."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import pytest

from harness.house import until
from harness.valkey import Valkey
from innkeeper import channel
from innkeeper.redis_client import Link, connector
from innkeeper.subscriber import Subscriber


class Ears:
    """A subscriber that keeps what it was told."""

    def __init__(self, valkey: Valkey, *, silent_s: float = 1.5) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.fresh: list[bytes] = []
        self.subscriber = Subscriber(
            connector(valkey.url, timeout_s=0.5),
            on_message=lambda channel, body: self.messages.append((channel, body)),
            on_fresh=self.fresh.append,
            silent_s=silent_s,
        )


@pytest.fixture(params=["hiredis", "redis-py"], autouse=True)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with the own reader and with redis-py's."""
    if request.param == "redis-py":
        monkeypatch.setattr(channel, "hiredis", None)


@pytest.fixture
async def ears(own_valkey: Valkey) -> AsyncIterator[Ears]:
    """Subscriptions to a server of this test's own."""
    ears = Ears(own_valkey)
    yield ears
    await ears.subscriber.close()


@pytest.fixture
async def mouth(own_valkey: Valkey) -> AsyncIterator[Link]:
    """Commands to the same server."""
    link = Link(connector(own_valkey.url, timeout_s=2), timeout_s=2, name="mouth")
    yield link
    await link.close()


async def test_a_confirmed_subscription_gets_every_message_in_order(ears: Ears, mouth: Link) -> None:
    """From the return of subscribe on, all that is published to the channel comes, in order, bytes untouched."""
    await asyncio.gather(ears.subscriber.subscribe("a"), ears.subscriber.subscribe("b"))
    bodies = [b"%d \r\n\xff" % n for n in range(300)]
    receivers = await mouth.send([("SPUBLISH", "ab"[n % 2], body) for n, body in enumerate(bodies)])
    assert receivers == [1] * 300
    await until(lambda: len(ears.messages) == 300, "all messages", seen=ears.messages)
    assert ears.messages == [(b"ab"[n % 2 : n % 2 + 1], body) for n, body in enumerate(bodies)]
    assert ears.fresh == []


async def test_subscribing_twice_is_one_subscription(ears: Ears, mouth: Link) -> None:
    """Two callers that want one channel both return, and each message comes once."""
    await asyncio.gather(ears.subscriber.subscribe("a"), ears.subscriber.subscribe("a"))
    assert ears.subscriber.is_subscribed("a")
    await mouth.send((("SPUBLISH", "a", "1"), ("SPUBLISH", "a", "2")))
    await until(lambda: len(ears.messages) >= 2, "both messages")
    assert ears.messages == [(b"a", b"1"), (b"a", b"2")]


async def test_unsubscribe_ends_it(ears: Ears, mouth: Link) -> None:
    """After unsubscribe the server counts no subscriber any more, and a later subscription starts over."""
    await ears.subscriber.subscribe("a")
    ears.subscriber.unsubscribe("a")
    ears.subscriber.unsubscribe("never")
    assert not ears.subscriber.is_subscribed("a")

    async def nobody() -> bool:
        return bool(await mouth.call("SPUBLISH", "a", "x") == 0)

    await until(nobody, "the subscription is gone")
    await ears.subscriber.subscribe("a")
    assert await mouth.call("SPUBLISH", "a", "y") == 1
    await until(lambda: ears.messages and ears.messages[-1] == (b"a", b"y"), "the message")


async def test_a_quiet_subscription_is_kept(ears: Ears, mouth: Link) -> None:
    """Without messages the connection stays open beyond the socket's timeout: pings are answered, nothing is fresh."""
    await ears.subscriber.subscribe("a")
    first = await mouth.call("CLIENT", "LIST", "TYPE", "pubsub")
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 1.3
    await until(lambda: loop.time() > until_s, "time passes")
    later = await mouth.call("CLIENT", "LIST", "TYPE", "pubsub")
    assert first.split(b" ")[0] == later.split(b" ")[0]
    assert ears.fresh == []
    assert await mouth.call("SPUBLISH", "a", "1") == 1


async def test_a_cut_connection_is_reported_per_channel(ears: Ears, mouth: Link) -> None:
    """After CLIENT KILL every channel is subscribed again and reported fresh exactly once: messages may be missing."""
    for name in ("a", "b", "c"):
        await ears.subscriber.subscribe(name)
    ears.subscriber.unsubscribe("c")
    assert await mouth.call("CLIENT", "KILL", "TYPE", "pubsub") == 1
    await until(lambda: len(ears.fresh) == 2, "both channels are fresh", seen=ears.fresh)
    assert sorted(ears.fresh) == [b"a", b"b"]
    assert await mouth.call("PUBSUB", "SHARDNUMSUB", "a", "b", "c") == [b"a", 1, b"b", 1, b"c", 0]
    await mouth.call("SPUBLISH", "a", "1")
    await until(lambda: ears.messages == [(b"a", b"1")], "the message")


async def test_many_channels_come_back(ears: Ears, mouth: Link) -> None:
    """More channels than fit one piece are all subscribed again."""
    names = [f"n{n}" for n in range(1_200)]
    await asyncio.gather(*(ears.subscriber.subscribe(name) for name in names))
    await mouth.call("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: len(ears.fresh) == 1_200, "all are fresh", seen=len(ears.fresh))
    assert all(ears.subscriber.is_subscribed(name) for name in names)


async def test_a_restarted_server_is_subscribed_again(ears: Ears, mouth: Link, own_valkey: Valkey) -> None:
    """Over a restart old subscriptions come back as fresh; one begun meanwhile is confirmed, not fresh."""
    await ears.subscriber.subscribe("a")
    own_valkey.kill()
    await until(lambda: not ears.subscriber.is_subscribed("a"), "the loss is noticed")
    waiting = asyncio.create_task(ears.subscriber.subscribe("b"))
    await asyncio.to_thread(own_valkey.start)
    await waiting
    await until(lambda: ears.fresh, "a is fresh")
    assert ears.fresh == [b"a"]
    assert await mouth_says(mouth, "b") == 1


async def mouth_says(mouth: Link, channel: str) -> int:
    """Publish once the link is back; return who heard."""

    async def publish() -> list[int]:
        with contextlib.suppress(Exception):
            return [await mouth.call("SPUBLISH", channel, "x")]
        return []

    heard: list[int] = await until(publish, "the link is back")
    return heard[0]


async def test_a_frozen_server_is_noticed(own_valkey: Valkey) -> None:
    """A connection that answers no ping is given up, and fresh when the server goes on."""
    ears = Ears(own_valkey, silent_s=0.6)
    await ears.subscriber.subscribe("a")
    assert own_valkey.process is not None
    own_valkey.process.send_signal(signal.SIGSTOP)
    try:
        await until(lambda: not ears.subscriber.is_subscribed("a"), "the silence is noticed", timeout_s=5)
    finally:
        own_valkey.process.send_signal(signal.SIGCONT)
    await until(lambda: ears.fresh == [b"a"], "a is fresh", seen=ears.fresh)
    await ears.subscriber.close()


async def test_giving_up_and_asking_again(ears: Ears, own_valkey: Valkey) -> None:
    """A subscription that was given up while there was no connection can be asked for again later."""
    own_valkey.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await ears.subscriber.subscribe("a")
    ears.subscriber.unsubscribe("a")
    await asyncio.to_thread(own_valkey.start)
    await ears.subscriber.subscribe("a")
    assert ears.subscriber.is_subscribed("a")


async def test_close_before_open(own_valkey: Valkey) -> None:
    """A subscriber may be closed at any moment; who still waits is cancelled."""
    ears = Ears(own_valkey)
    waiting = asyncio.create_task(ears.subscriber.subscribe("a"))
    await ears.subscriber.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
