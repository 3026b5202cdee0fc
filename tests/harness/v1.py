"""A client of ``innkeeper.v1`` for tests: keeps what it must, comes back by itself, and notes everything."""

import asyncio
import contextlib
import secrets
from typing import Any, Self

import orjson
import websockets

from harness.house import House, until

SUBPROTOCOL = websockets.Subprotocol("innkeeper.v1")


class V1Socket:
    """One connection attempt of a session: frames as they came, nothing done about them.

    Attributes:
        outputs: (oseq, payload) of each numbered frame, JSON decoded where it is.
        controls: The controls.
    """

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.outputs: list[tuple[int, Any]] = []
        self.controls: list[dict[str, Any]] = []
        self.frames: list[Any] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self.on_frame: Any = None
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect without saying anything."""
        socket = await websockets.connect(url, subprotocols=[SUBPROTOCOL], max_size=None, ping_interval=None)
        assert socket.subprotocol == SUBPROTOCOL
        return cls(socket)

    async def hello(self, secret: str, generation: int, last: str | None = None) -> None:
        """Say who this is."""
        await self.say(hello={"secret": secret, "generation": generation, "last": last})

    async def say(self, **control: Any) -> None:
        """Send a control."""
        await self.socket.send("!" + orjson.dumps(control).decode())

    async def send(self, number: int, value: Any) -> None:
        """Send a numbered message: bytes as binary, all else as JSON text."""
        if isinstance(value, bytes):
            await self.socket.send(number.to_bytes(8, "big") + value)
        else:
            await self.socket.send(f"{number} {orjson.dumps(value).decode()}")

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for frame in self.socket:
                self._take(frame)
        self.close_code, self.close_reason = self.socket.close_code, self.socket.close_reason or ""

    def _take(self, frame: str | bytes) -> None:
        self.frames.append(frame)
        if isinstance(frame, bytes):
            self.outputs.append((int.from_bytes(frame[:8], "big"), frame[8:]))
        elif frame.startswith("!"):
            self.controls.append(orjson.loads(frame[1:]))
        else:
            number, _, payload = frame.partition(" ")
            self.outputs.append((int(number), orjson.loads(payload) if payload[:1] in "{[" else payload))
        if self.on_frame is not None:
            self.on_frame(frame)

    async def control(self, word: str, *, timeout_s: float = 15) -> Any:
        """Return the value of the first control with that word, waiting for it."""
        found = await until(
            lambda: [c for c in self.controls if word in c], f"control {word}", timeout_s=timeout_s, seen=self.frames
        )
        return found[0][word]

    async def output(self, payload: Any, *, timeout_s: float = 15) -> int:
        """Return the number of the first output with that payload, waiting for it."""
        found = await until(
            lambda: [n for n, p in self.outputs if p == payload], f"{payload}", timeout_s=timeout_s, seen=self.frames
        )
        return int(found[0])

    async def closed(self, timeout_s: float = 15) -> int | None:
        """Wait for the close and return its code."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._reader)
        return self.close_code

    async def close(self, code: int = 1000) -> None:
        """Close with a code."""
        await self.socket.close(code)
        await self._reader

    async def abort(self) -> None:
        """Cut the connection without a close frame."""
        self.socket.transport.abort()
        await asyncio.gather(self._reader, return_exceptions=True)


class V1Client:
    """A whole session: numbers its messages, keeps them, resumes wherever there is an edge.

    Attributes:
        outputs: (oseq, payload) of all that came, over all sockets.
        resyncs: How often its history was cut.
    """

    def __init__(self, house: House, room: str, name: str, *, edge: int = 0) -> None:
        self.house, self.room, self.name = house, room, name
        self.secret = secrets.token_hex(16)
        self.generation = 0
        self.last: str | None = None
        self.outputs: list[tuple[int, Any]] = []
        self.resyncs = self.resumes = 0
        self.sent = self.acked = self.applied = 0
        self.final_code: int | None = None
        self.socket: V1Socket | None = None
        self._era = ""
        self._kept: dict[int, Any] = {}
        self._edge = edge
        self._is_open = False
        self._task = asyncio.create_task(self._stay())

    async def _stay(self) -> None:
        """Be connected, again and again, until a final code."""
        while self.final_code is None:
            edges = [n for n, role in enumerate(self.house.edges) if role.process.poll() is None]
            if not edges:
                await asyncio.sleep(0.05)
                continue
            try:
                url = self.house.url(self.room, edge=edges[self._edge % len(edges)], name=self.name)
                self._edge += 1
                self.socket = await V1Socket.open(url)
            except (OSError, websockets.WebSocketException):
                await asyncio.sleep(0.05)
                continue
            self.socket.on_frame = self._take
            self.generation += 1
            try:
                await self.socket.hello(self.secret, self.generation, self.last)
                code = await self.socket.closed(3600)
            except websockets.ConnectionClosed:
                code = await self.socket.closed()
            self._is_open = False
            if code is not None and 4000 <= code < 4500:
                self.final_code = code
            await asyncio.sleep(0.02)

    def _take(self, frame: str | bytes) -> None:
        assert self.socket is not None
        if isinstance(frame, bytes) or not frame.startswith("!"):
            number, payload = self.socket.outputs[-1]
            self.outputs.append((number, payload))
            self.last = f"{number}-{self._era}"
            return
        control = orjson.loads(frame[1:])
        for word in ("hello", "resumed", "resync"):
            if word in control:
                self._answered(word, control[word])
        if "era" in control:
            self._era = control["era"]
        if "at" in control:
            self._stand_at(control["at"])
        self.acked = max(self.acked, control.get("ack", 0))
        if "applied" in control:
            self.applied = max(self.applied, control["applied"])
            for number in [n for n in self._kept if n <= self.applied - 256]:
                del self._kept[number]

    def _stand_at(self, place: str) -> None:
        self.last, self._era = place, place.partition("-")[2]

    def _answered(self, word: str, facts: dict[str, Any]) -> None:
        self._stand_at(facts["at"])
        self.resumes += word == "resumed"
        self.resyncs += word == "resync"
        self.acked = facts["accepted"]
        self._is_open = True
        for number in range(facts["accepted"] + 1, self.sent + 1):
            self._send(number)

    def _send(self, number: int) -> None:
        assert self.socket is not None
        socket, value = self.socket, self._kept[number]

        async def write() -> None:
            with contextlib.suppress(websockets.ConnectionClosed):
                await socket.send(number, value)

        self._writing = asyncio.create_task(write())

    def send(self, value: Any) -> int:
        """Send a message now, or when there is a socket; return its number."""
        self.sent += 1
        self._kept[self.sent] = value
        if self._is_open:
            self._send(self.sent)
        return self.sent

    async def all_applied(self, *, timeout_s: float = 30) -> None:
        """Wait until everything sent is committed."""
        await until(
            lambda: self.applied >= self.sent and self.acked >= self.sent,
            f"{self.name}: all {self.sent} applied",
            timeout_s=timeout_s,
            seen=(self.acked, self.applied, self.final_code, self.socket and self.socket.frames[-5:]),
        )

    async def end(self, code: int = 1000) -> None:
        """Leave, or just close."""
        self._task.cancel()
        if self.socket is not None:
            await self.socket.close(code)
