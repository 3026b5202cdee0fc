"""Pushes of a real edge over a line that loses answers: each event is accepted once."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from harness.house import until
from harness.valkey import Valkey
from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisUnavailable, from_reply
from innkeeper.functions import PushEvent
from innkeeper.functions.library import load_library
from innkeeper.redis_client import connector
from innkeeper_edge import ingress
from innkeeper_edge.edge import Edge
from innkeeper_edge.feed import Feed

ROOM = Address("ledger", "x")
Send = Callable[[Sequence[Command]], Any]


@pytest.fixture
async def edge(own_valkey: Valkey) -> AsyncIterator[Edge]:
    """An edge that is registered at a server of this test's own."""
    edge = Edge(connector(own_valkey.url, timeout_s=5))
    await load_library(edge.link)
    await edge.ready.wait()
    yield edge
    await edge.close()


class BadLine:
    """In place of a link's send: carries pushes out but loses the first answer, then gives an error as the second."""

    def __init__(self, send: Send, error: str) -> None:
        self.pushes = 0
        self._send = send
        self._error = error

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """Send, with its faults on pushes alone."""
        if "push" not in str(commands[0][1]):
            return list(await self._send(commands))
        self.pushes += 1
        if self.pushes == 1:
            await self._send(commands)
            raise RedisUnavailable("the answer is lost")
        if self.pushes == 2:
            return [from_reply(self._error) for _ in commands]
        return list(await self._send(commands))


@pytest.mark.parametrize("error", ["LOADING Redis is loading", "OOM command not allowed", "ERR Function not found"])
async def test_an_error_after_a_lost_answer_doubles_nothing(
    edge: Edge, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch goes again under its own number, and what came meanwhile goes after it."""
    line = BadLine(edge.link.send, error)
    monkeypatch.setattr(edge.link, "send", line.send)
    feed = Feed(edge, ROOM)
    edge.ingress.add(feed, PushEvent("text", "c1", b"1"), None)
    await until(lambda: line.pushes == 2, "the second answer was an error")
    edge.ingress.add(feed, PushEvent("text", "c1", b"2"), None)
    await edge.ingress.flushed()
    entries = await edge.link.call("XRANGE", feed.keys.inbox, "-", "+")
    assert [fields[-1] for _, fields in entries] == [b"1", b"2"]


async def test_what_waits_unsettled_is_forgotten_with_its_incarnation(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that was refused with an error does not go out under the name of a later life."""

    async def refuse(commands: Sequence[Command]) -> list[Reply]:
        return [from_reply("LOADING Redis is loading") for _ in commands]

    send = edge.link.send
    monkeypatch.setattr(edge.link, "send", refuse)
    feed = Feed(edge, ROOM)
    edge.ingress.add(feed, PushEvent("text", "c1", b"1"), None)
    await until(lambda: edge.ingress._inlets[feed].unsettled is not None, "the push was refused")
    edge.ingress.forget()
    monkeypatch.setattr(edge.link, "send", send)
    await edge.ingress.flushed()
    assert await edge.link.call("EXISTS", feed.keys.inbox) == 0


class Sender:
    """A socket that says what it hears of its messages."""

    def __init__(self) -> None:
        self.told = 0
        self.settled_count = 0

    def overloaded(self) -> None:
        """Hear that the room is full."""
        self.told += 1

    def settled(self, size_bytes: int) -> None:
        """Hear that a message is accepted."""
        self.settled_count += size_bytes


async def test_senders_to_a_room_that_stays_full_are_told(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait first; where nothing at all is taken for long they hear of it, again and again; what waits gets in."""
    monkeypatch.setattr(ingress, "OVERLOADED_S", 0.4)
    monkeypatch.setattr(ingress, "Member", Sender)
    most = {"ledger": 3}
    monkeypatch.setattr(edge, "backlog_count", most.__getitem__)
    feed, sender = Feed(edge, ROOM), Sender()
    began_s = edge.loop.time()
    for number in range(5):
        edge.ingress.add(feed, PushEvent("text", "c1", b"%d" % number), sender)  # type: ignore[arg-type]
    await until(lambda: sender.settled_count == 3, "what the backlog takes")
    assert sender.told == 0
    await until(lambda: sender.told, "it is told")
    assert edge.loop.time() - began_s >= 0.4
    await until(lambda: sender.told > 1, "it is told again")
    most["ledger"] = 10
    await edge.ingress.flushed()
    assert sender.settled_count == 5
    entries = await edge.link.call("XRANGE", feed.keys.inbox, "-", "+")
    assert [fields[-1] for _, fields in entries] == [b"0", b"1", b"2", b"3", b"4"]
