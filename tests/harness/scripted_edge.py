"""An edge whose every word the test says: real sockets for clients of innkeeper.v1, and no room behind them."""

import asyncio
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import WSMsgType, web

from innkeeper.client.session import SUBPROTOCOL


class EdgeSocket:
    """The edge's end of one client's socket."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self.socket = socket
        self.request = request
        self.ended = asyncio.Event()
        self._got: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def read(self) -> None:
        """Read to the end."""
        async for message in self.socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self._got.put_nowait(message.data)
        self.ended.set()

    async def get(self) -> str | bytes:
        """Return the client's next frame."""
        async with asyncio.timeout(5):
            return await self._got.get()

    @property
    def got_nothing(self) -> bool:
        """Whether no frame waits to be taken."""
        return self._got.empty()

    async def hello(self) -> dict[str, Any]:
        """Return the words of the client's hello."""
        frame = await self.get()
        assert isinstance(frame, str), frame
        words: dict[str, Any] = orjson.loads(frame.removeprefix("!"))["hello"]
        return words

    async def say(self, *frames: str | bytes | dict[str, Any]) -> None:
        """Send frames; a dict is a control frame."""
        for frame in frames:
            if isinstance(frame, bytes):
                await self.socket.send_bytes(frame)
            else:
                await self.socket.send_str(frame if isinstance(frame, str) else f"!{orjson.dumps(frame).decode()}")

    async def close(self, code: int, reason: str = "") -> None:
        """Close it as an edge does."""
        await self.socket.close(code=code, message=reason.encode())

    def cut(self) -> None:
        """End the connection without a word."""
        assert self.request.transport is not None
        self.request.transport.abort()

    async def closed_with(self) -> int | None:
        """Wait for the client's end of it; return its close code."""
        async with asyncio.timeout(5):
            await self.ended.wait()
        return self.socket.close_code


class ScriptedEdge:
    """Use it as an async context manager.

    Attributes:
        url: A room's address here.
        statuses: HTTP statuses that answer the next handshakes, before one is taken.
        retry_after: Sent with those statuses, unless empty.
        protocols: What the edge says that it speaks.
    """

    def __init__(self) -> None:
        self.url = ""
        self.statuses: list[int] = []
        self.retry_after = ""
        self.protocols: tuple[str, ...] = (SUBPROTOCOL,)
        self._arrived: asyncio.Queue[EdgeSocket] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/parties/{kind}/{name}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"ws://127.0.0.1:{port}/parties/chat/lobby"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.StreamResponse:
        if self.statuses:
            headers = {"Retry-After": self.retry_after} if self.retry_after else None
            return web.Response(status=self.statuses.pop(0), headers=headers)
        socket = web.WebSocketResponse(protocols=self.protocols)
        await socket.prepare(request)
        arrived = EdgeSocket(socket, request)
        self._arrived.put_nowait(arrived)
        await arrived.read()
        return socket

    @property
    def is_calm(self) -> bool:
        """Whether no client has come that was not taken."""
        return self._arrived.empty()

    async def arrival(self) -> EdgeSocket:
        """Return the next client's socket."""
        async with asyncio.timeout(5):
            return await self._arrived.get()

    async def answered(self, **answer: Any) -> EdgeSocket:
        """Take the next client's hello and answer it: with ``hello``, unless told another word."""
        arrived = await self.arrival()
        await arrived.hello()
        await arrived.say(answer or {"hello": {"conn": "c-1", "at": "10-77", "accepted": 0, "beat": 20}})
        return arrived
