"""One room, as another program sees it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import orjson

from innkeeper.connection import User
from innkeeper.errors import KindUnknown, NoAnswer
from innkeeper.keys import room_keys
from innkeeper.outside.ear import Ear, Output, Tap
from innkeeper.posting import encode_post
from innkeeper.request import HEAD_BYTES, Response, failure, new_request

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper.outside.client import Innkeeper


class Member(NamedTuple):
    """One member of a room, as stored."""

    id: str
    user: User
    join: int
    state: Any
    tags: frozenset[str]


class OutsideRoom:
    """One room; make it with :meth:`Innkeeper.room`. Nothing is looked up before a method is called.

    Attributes:
        address: ``kind/name``.
    """

    def __init__(self, client: "Innkeeper", address: "Address") -> None:
        self._client = client
        self.address = address
        self._keys = room_keys(address)

    def __repr__(self) -> str:
        return f"<OutsideRoom {self.address}>"

    async def post(self, value: Any, *, timeout_s: float | None = None) -> None:
        """Send a value to the room's ``on_post``, whose ``sender`` is ``""``; return when it is accepted.

        From then on it is applied exactly once, in order with this program's other posts to the room. The room need
        not exist, nor be served now: what waits for a kind that nobody serves is kept until somebody does.

        Args:
            value: JSON, at most 1 MiB.
            timeout_s: How long to try; of the client without it.

        Raises:
            OutputInvalid: The value is not JSON, or too large.
            RoomBusy: The room's backlog was full all the time; it was not accepted.
            RedisUnavailable: No answer; it may have been accepted.
        """
        await self._client.send(self.address, "post", encode_post("", value), timeout_s=timeout_s)

    async def request(
        self,
        method: str,
        path: str = "/",
        *,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """Ask the room's ``on_request`` and return its answer.

        What the edges answer by themselves is returned likewise: 404 ``unknown_kind`` or ``no_requests``, 413, 431; and
        500 ``handler_failed`` or ``handler_timeout``.

        Args:
            method: ``GET``, ``POST`` …
            path: From a slash on, perhaps with a query.
            body: bytes, str, or a JSON value.
            headers: Given to the handler with names in lower case.
            timeout_s: How long to wait for the answer; the class's ``request_s`` without it.

        Raises:
            ValueError: The method or path is none; OutputInvalid for the body.
            RoomBusy: The room's backlog was full all the time; nothing was handled.
            NoAnswer: Not in time, or history was cut: it may have been handled, or may still be.
            RedisUnavailable: No answer from Redis; likewise.
        """
        request = new_request(method, path, body=body, headers=headers)
        kind = await self._client.kind(self.address.kind)
        if kind is None:
            return failure(404, "unknown_kind")
        if kind.request_s is None:
            return failure(404, "no_requests")
        if len(request.body) > kind.message_bytes:
            return failure(413, "body_too_large")
        asked = request.encode()
        if len(asked) - len(request.body) > HEAD_BYTES:
            return failure(431, "headers_too_large")
        wait_s = kind.request_s if timeout_s is None else timeout_s
        return Response.decode(await self._client.ask(self.address, "request", asked, timeout_s=wait_s))

    async def state(self) -> dict[str, Any]:
        """Return the room's state as last committed; empty where there is no such room."""
        return {key: orjson.loads(value) for key, value in (await self._hash(self._keys.state)).items()}

    async def members(self) -> list[Member]:
        """Return the room's members as last committed, in the order they joined."""
        found = []
        for name, row in (await self._hash(self._keys.members)).items():
            fields = orjson.loads(row)
            tags = frozenset(fields.get("tags", ()))
            found.append(Member(name, User(*fields["user"]), fields["join"], fields["state"], tags))
        return sorted(found, key=lambda member: member.join)

    async def _hash(self, key: str) -> dict[str, bytes]:
        flat = await self._client.read("HGETALL", key)
        return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}

    def tail(self) -> "Tail":
        """Return the room's outputs from now on: ``async for output in room.tail()``.

        They come in commit order, without holes; where that cannot be, an output ``resync`` says so. ``async with
        room.tail() as outputs`` begins listening before the first is asked for.
        """
        return Tail(self._client, self.address)

    async def destroy(self, *, timeout_s: float | None = None) -> None:
        """End the room, as its own ``destroy()`` does; return when that is committed.

        Raises:
            KindUnknown: No worker has ever served its kind; nothing was sent.
            NoAnswer: Nobody serves the room now, or its members' ``on_leave`` did not end; it may happen still.
            RedisUnavailable: No answer from Redis; likewise.
        """
        if await self._client.kind(self.address.kind) is None:
            raise KindUnknown(f"room {self.address}: no worker has ever served the kind {self.address.kind!r}")
        wait_s = self._client.timeout_s if timeout_s is None else timeout_s
        response = Response.decode(await self._client.ask(self.address, "destroy", b"", timeout_s=wait_s))
        if response.status != 204:  # noqa: PLR2004 - what the owner answers
            raise NoAnswer(f"room {self.address}: not destroyed, its hooks did not end")


class Tail:
    """The outputs of a room from the moment it is entered, or first asked, until it is closed."""

    def __init__(self, client: "Innkeeper", address: "Address") -> None:
        self._client = client
        self._address = address
        self._tap = Tap()
        self._ear: Ear | None = None

    async def open(self) -> None:
        """Begin to listen; every output committed after this returns comes."""
        if self._ear is None:
            ear = self._ear = self._client.hold(self._address)
            await ear.opened()
            ear.tails.add(self._tap.put)

    async def close(self) -> None:
        """Stop listening."""
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.tails.discard(self._tap.put)
            self._client.release(ear)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[Output]:
        return self

    async def __anext__(self) -> Output:
        """Return the next output; waits without end."""
        await self.open()
        come = self._tap.take()
        return come if come is not None else await self._client.unless_closed(self._tap.get())

    async def next(self, *, timeout_s: float) -> Output | None:
        """Return the next output, or None where none comes in time, or the connection was closed."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.__anext__()
        except (TimeoutError, StopAsyncIteration):
            return None
