"""Clients and their WebSockets: real frames over a simulated network, between a client and a member of a real edge."""

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import orjson
from aiohttp import WSMessage, WSMsgType

from harness.simulation.loop import NOBODY, Process, VirtualLoop
from harness.simulation.rooms import SURE
from innkeeper.address import Address
from innkeeper.connection import User
from innkeeper_edge.app import Site
from innkeeper_edge.auth import Grant, Patterns
from innkeeper_edge.guarded_socket import GuardedSocket
from innkeeper_edge.member import Member

if TYPE_CHECKING:
    from innkeeper_edge.guard import FrameReader

_TYPES = {1: WSMsgType.TEXT, 2: WSMsgType.BINARY, 8: WSMsgType.CLOSE, 9: WSMsgType.PING, 10: WSMsgType.PONG}
_CLOSE = 8
_PING = 9
_GONE = 1006


class Client:
    """One connection of a client, from its opening to its end; a client that comes back is another of these.

    Attributes:
        frames: What it received, in order.
        sent: The messages it sent, in order.
        close_code: Set once it is over; 1006 where the connection just broke.
        closed_at_s: When the edge closed it.
    """

    def __init__(self, name: str, room: Address, edge: Process, rng: random.Random) -> None:
        self.name = name
        self.room = room
        self.edge = edge
        self.member_id = ""
        self.frames: list[bytes] = []
        self.sent: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self.closed_at_s = 0.0
        self.is_leaving = False
        self.wire: SocketWire | None = None
        self.served: asyncio.Task[None] | None = None
        self.rng = rng
        self._buffer = b""

    @property
    def is_open(self) -> bool:
        """Whether it is connected and has not begun to leave."""
        return self.close_code is None and not self.is_leaving

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, numbered by its place among this connection's, and among those that cannot fail."""
        if self.is_open and self.wire is not None:
            message["m"] = len(self.sent) + 1
            if message["do"] in SURE:
                message["i"] = 1 + sum("i" in before for before in self.sent)
            self.sent.append(message)
            self.wire.put("up", _masked(0x81, orjson.dumps(message)))

    def leave(self) -> None:
        """Close as a browser does."""
        if self.is_open and self.wire is not None:
            self.is_leaving = True
            self.wire.put("up", _masked(0x88, (1000).to_bytes(2, "big")))

    def vanish(self) -> None:
        """Go without a word: the connection breaks."""
        if self.close_code is None and self.wire is not None:
            self.close_code = _GONE
            self.wire.put("up", None)

    def edge_is_gone(self) -> None:
        """Hear, a little later, that the edge's process has ended."""
        if self.wire is not None:
            self.wire.put("down", None)
        else:
            self.receive(None)

    def receive(self, data: bytes | None) -> None:
        """Take bytes from the edge; None: the connection is gone."""
        if self.close_code is not None:
            return
        if data is None:
            self.close_code = _GONE
            return
        self._buffer += data
        while self.close_code is None and (frame := self._next()) is not None:
            opcode, payload = frame
            if opcode == _CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big")
                self.closed_at_s = asyncio.get_running_loop().time()
                if self.wire is not None and not self.is_leaving:
                    self.wire.put("up", _masked(0x88, payload[:2]))
            elif opcode == _PING:
                if self.wire is not None:
                    self.wire.put("up", _masked(0x8A, payload))
            else:
                self.frames.append(payload)

    def _next(self) -> tuple[int, bytes] | None:
        data = self._buffer
        if len(data) < 2:
            return None
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        if len(data) < at + size:
            return None
        self._buffer = data[at + size :]
        return data[0] & 0x0F, data[at : at + size]


def _note(code: object) -> None:
    raise AssertionError(f"a simulated client broke the protocol: {code}")


def _masked(first: int, payload: bytes) -> bytes:
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((first,)) + length + b"\0\0\0\0" + payload


class SocketWire:
    """The connection between a client and its edge: two streams in order, each piece a little late."""

    def __init__(self, loop: VirtualLoop, client: Client, socket: "Socket") -> None:
        self._loop = loop
        self._client = client
        self._socket = socket
        self._last_at = {"up": 0.0, "down": 0.0}

    def put(self, way: str, data: bytes | None) -> None:
        """Send bytes; None is the end of the connection."""
        at_s = max(self._last_at[way] + 1e-7, self._loop.now_s + self._client.rng.uniform(0.0001, 0.003))
        self._last_at[way] = at_s
        self._loop.call_at(at_s, self._arrive, way, data, context=NOBODY)

    def _arrive(self, way: str, data: bytes | None) -> None:
        if way == "down":
            self._client.receive(data)
        else:
            self._loop.call_soon(self._socket.receive_bytes, data, context=self._client.edge.context)


class Socket:
    """An edge's end of a WebSocket: transport, frame reader and receive queue, as aiohttp gives them to the edge."""

    def __init__(self, loop: VirtualLoop, client: Client) -> None:
        self.is_closing_ = False
        self.wire = SocketWire(loop, client, self)
        self.guarded = GuardedSocket(cast("asyncio.Transport", self), _note, linger_s=2.0)
        self._guard = self.guarded.guard(cast("FrameReader", self), max_message_bytes=65_536)
        self._messages: deque[WSMessage] = deque()
        self._news = asyncio.Event()

    # --- the transport --------------------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        """Send frames to the client."""
        if not self.is_closing_:
            self.wire.put("down", bytes(data))

    def get_write_buffer_size(self) -> int:
        """Return 0: this client reads all."""
        return 0

    def is_closing(self) -> bool:
        """Return whether the connection is closed or gone."""
        return self.is_closing_

    def is_reading(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close as abort does: nothing is buffered here."""
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        if not self.is_closing_:
            self.is_closing_ = True
            self.wire.put("down", None)
            asyncio.get_running_loop().call_soon(self._guard.feed_eof)

    # --- what comes -----------------------------------------------------------------------------------------------
    def receive_bytes(self, data: bytes | None) -> None:
        """Take bytes from the client, through the guard."""
        if self.is_closing_:
            return
        if data is None:
            self.is_closing_ = True
            self._guard.feed_eof()
        else:
            self._guard.feed_data(data)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take one frame that passed the guard."""
        at = 8 if data[1] == 0xFE else 6
        self._add(WSMessage(_TYPES[data[0] & 0x0F], data[at:], None))
        return False, b""

    def feed_eof(self) -> None:
        """Take the end of the connection."""
        self._add(WSMessage(WSMsgType.CLOSED, None, None))

    def _add(self, message: WSMessage) -> None:
        self._messages.append(message)
        self._news.set()

    # --- the WebSocketResponse ------------------------------------------------------------------------------------
    async def receive(self) -> WSMessage:
        """Return the next message of the client."""
        while not self._messages:
            self._news.clear()
            await self._news.wait()
        message = self._messages.popleft()
        if message.type is WSMsgType.CLOSE and self.guarded.closing_code is None:
            self.write(b"\x88\x02" + message.data[:2])
            self.abort()
        return message

    async def pong(self, data: bytes) -> None:
        """Answer a ping."""
        self.write(b"\x8a" + bytes((len(data),)) + data)


async def serve_socket(site: Site, loop: VirtualLoop, client: Client) -> None:
    """Do what ``Site.room`` does with an accepted request, in the edge's process."""
    socket = Socket(loop, client)
    client.wire = socket.wire
    member = Member(socket.guarded, cast("asyncio.WriteTransport", socket), loop.time())
    member.grant = Grant(User("", client.name), Patterns.everything())
    client.member_id = member.id
    response = cast("Any", socket)
    await site._live(client.room, member, response, socket.guarded)
    if socket.guarded.closing_code is not None:
        await socket.guarded.wait_closed()
    socket.abort()
