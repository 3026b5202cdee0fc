"""The same without ``await``: a thread with an event loop of its own does the work."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from innkeeper.options import DEFAULT_REDIS_URL
from innkeeper.outside.client import Innkeeper
from innkeeper.outside.ear import Output
from innkeeper.outside.room import Member, OutsideRoom, Tail
from innkeeper.request import Response

Value = TypeVar("Value")


class SyncInnkeeper:
    """The rooms of one Redis, for scripts and threads; any thread may use it.

    ::

        with Innkeeper.connect_sync("redis://127.0.0.1:6379/0") as inn:
            inn.room("chat/lobby").post({"text": "hello"})

    Args:
        url: As of :class:`Innkeeper`.
        timeout_s: Likewise.
    """

    def __init__(self, url: str = DEFAULT_REDIS_URL, *, timeout_s: float = 10.0) -> None:
        self._inn = Innkeeper(url, timeout_s=timeout_s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Connect; errors as of :meth:`Innkeeper.open`."""
        if self._loop is not None:
            return
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="innkeeper", daemon=True)
        self._thread.start()
        try:
            self.run(self._inn.open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect and end the thread."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            self.run(self._inn.close())
        finally:
            self._loop = self._thread = None
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def room(self, address: str) -> "SyncRoom":
        """Return a room by its address, ``kind/name``; InvalidAddress where it is none."""
        return SyncRoom(self, self._inn.room(address))

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine in the thread and return its result; an interruption here cancels it there."""
        if self._loop is None:
            work.close()
            raise RuntimeError("not connected: use `with Innkeeper.connect_sync(url) as inn`")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


class SyncRoom:
    """One room; every method is that of :class:`OutsideRoom`, with the same arguments and errors."""

    def __init__(self, inn: SyncInnkeeper, room: OutsideRoom) -> None:
        self._inn = inn
        self._room = room
        self.address = room.address

    def __repr__(self) -> str:
        return f"<SyncRoom {self.address}>"

    def post(self, value: Any, *, timeout_s: float | None = None) -> None:
        """Send a value to the room's ``on_post``; return when it is accepted."""
        self._inn.run(self._room.post(value, timeout_s=timeout_s))

    def request(
        self,
        method: str,
        path: str = "/",
        *,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Response:
        """Ask the room's ``on_request`` and return its answer."""
        return self._inn.run(self._room.request(method, path, body=body, headers=headers, timeout_s=timeout_s))

    def state(self) -> dict[str, Any]:
        """Return the room's state as last committed."""
        return self._inn.run(self._room.state())

    def members(self) -> list[Member]:
        """Return the room's members as last committed."""
        return self._inn.run(self._room.members())

    def tail(self) -> "SyncTail":
        """Return the room's outputs from now on: ``for output in room.tail()``, or by ``with``."""
        return SyncTail(self._inn, self._room.tail())

    def destroy(self, *, timeout_s: float | None = None) -> None:
        """End the room; return when that is committed."""
        self._inn.run(self._room.destroy(timeout_s=timeout_s))


class SyncTail:
    """The outputs of a room from the moment it is entered, or first asked, until it is closed."""

    def __init__(self, inn: SyncInnkeeper, tail: Tail) -> None:
        self._inn = inn
        self._tail = tail

    def __enter__(self) -> Self:
        self._inn.run(self._tail.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inn.run(self._tail.close())

    def __iter__(self) -> Iterator[Output]:
        return self

    def __next__(self) -> Output:
        """Return the next output; waits without end."""
        try:
            return self._inn.run(self._next())
        except EOFError:
            raise StopIteration from None

    def next(self, *, timeout_s: float) -> Output | None:
        """Return the next output, or None where none comes in time."""
        return self._inn.run(self._tail.next(timeout_s=timeout_s))

    async def _next(self) -> Output:
        try:
            return await self._tail.__anext__()
        except StopAsyncIteration:  # may not leave a coroutine
            raise EOFError from None
