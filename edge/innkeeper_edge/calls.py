"""Requests on their way through a room: pushed like a member's events, answered by an output with their id."""

import asyncio
import secrets
from typing import TYPE_CHECKING

from innkeeper.functions import PushEvent

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper.close_codes import CloseCode
    from innkeeper.request import Request
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.feed import Feed

_LINGER_S = 5.0


class Call:
    """One request that waits for its answer.

    Attributes:
        id: What its event and its answer are named by.
        pushed: As of a member; nothing asks for it here.
    """

    __slots__ = ("_answer", "id", "pushed")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.id = f"q-{secrets.token_hex(6)}"
        self.pushed = True
        self._answer: asyncio.Future[bytes | CloseCode] = loop.create_future()

    def answered(self, body: bytes) -> None:
        """Take the answer; a second one changes nothing."""
        if not self._answer.done():
            self._answer.set_result(body)

    def close_with(self, code: "CloseCode") -> None:
        """Give up: the room could not take it, or its answer may be lost."""
        if not self._answer.done():
            self._answer.set_result(code)

    def settled(self, size_bytes: int) -> None:
        """Nothing: a request is not slowed down, it is refused."""

    def leave_settled(self) -> None:
        """Nothing: it makes no member, so it does not leave."""

    async def wait(self) -> "bytes | CloseCode":
        """Return the answer, or why there is none."""
        return await self._answer


class Calls:
    """The requests of one edge, and the rooms it goes on listening to for a while after they were answered.

    Args:
        edge: Whose feeds and ingress they use.
    """

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge
        self._lingering: dict[Feed, asyncio.TimerHandle] = {}
        self._draining = False

    async def ask(self, address: "Address", request: "Request", *, timeout_s: float) -> "bytes | CloseCode | None":
        """Push a request and return its answer, or why there is none; None: not in time.

        Without an answer it may have been handled, or may still be. Cancelling it is like not in time.
        """
        edge = self._edge
        feed = edge.hold(address)
        call = Call(edge.loop)
        try:
            async with asyncio.timeout(timeout_s):
                await edge.registered()
                await feed.opened()
                feed.fanout.calls[call.id.encode()] = call
                edge.meters.requests += 1
                edge.ingress.add(feed, PushEvent("request", call.id, request.encode()), call)
                return await call.wait()
        except TimeoutError:
            return None
        finally:
            edge.ingress.withdraw(feed, call.id)
            feed.fanout.calls.pop(call.id.encode(), None)
            self._linger(feed)
            edge.release(feed)

    def _linger(self, feed: "Feed") -> None:
        """Listen for some seconds more, so that a burst of requests subscribes once."""
        if self._draining:
            return
        timer = self._lingering.pop(feed, None)
        if timer is None:
            feed.users += 1
        else:
            timer.cancel()
        self._lingering[feed] = self._edge.loop.call_later(_LINGER_S, self._let_go, feed)

    def _let_go(self, feed: "Feed") -> None:
        self._lingering.pop(feed).cancel()
        self._edge.release(feed)

    def drain(self) -> None:
        """Linger nowhere any more; requests under way are still answered."""
        self._draining = True
        for feed in list(self._lingering):
            self._let_go(feed)
