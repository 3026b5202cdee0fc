"""WebSocket clients that cost little and remember everything: what each sent, got, and how it ended.

All members of a room are shown the same bytes, so a frame is parsed once per room and every socket's record points to
that one value.
"""

import asyncio
import json
import time
from collections import Counter
from typing import cast

from harness.chronicle import read_output
from harness.history import Output, Socket

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
CUT = 1006
NO_MASK = b"\0\0\0\0"  # a mask of zeros: the server unmasks as ever, we need not


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame of at most 125 bytes."""
    return bytes([opcode, 0x80 | len(payload)]) + NO_MASK + payload


class Figures:
    """What all clients of a run count together."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.echo_s: list[float] = []
        self.handover_s: list[float] = []
        self.sent_count = 0
        self.got_count = 0


class Log:
    """One room as its clients see it.

    Attributes:
        sockets: All sockets that ever were.
        peers: The same ones' connections, by name.
    """

    def __init__(self, room: str, figures: Figures) -> None:
        self.room = room
        self.figures = figures
        self.sockets: list[Socket] = []
        self.peers: dict[str, Peer] = {}
        self.last_place = 0
        self._seen: dict[bytes, Output] = {}
        self._process = 0

    def output(self, payload: bytes) -> Output:
        """Return what a frame shows; the first look at it also measures."""
        output = self._seen.get(payload)
        if output is None:
            output = self._seen[payload] = read_output(payload)
            self._first(payload, output)
        return output

    def _first(self, payload: bytes, output: Output) -> None:
        self.last_place = max(self.last_place, output.place)
        process = int(payload[payload.rindex(b":") + 1 : -1])
        changed = process != self._process
        self._process = process
        peer = self.peers.get(output.step.sender)
        if output.step.kind == "say" and peer is not None:
            took_s = time.monotonic() - peer.sent_at_s.pop(output.step.number, float("inf"))
            if took_s > 0:
                self.figures.echo_s.append(took_s)
                if changed:
                    self.figures.handover_s.append(took_s)


class Peer(asyncio.Protocol):
    """One connection: asks for the room, then records. ``ended`` is set once it is gone."""

    def __init__(self, log: Log, name: str, host: str) -> None:
        self.socket = Socket(name)
        self.log = log
        self.is_up = False
        self.ended = asyncio.Event()
        self.code = CUT
        self.sent_at_s: dict[int, float] = {}
        self._host = host
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the WebSocket."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(
            f"GET /parties/{self.log.room}?name={self.socket.sender} HTTP/1.1\r\nHost: {self._host}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        # From the request on its join may be accepted, so from here on it must be accounted for.
        self.log.sockets.append(self.socket)
        self.log.peers[self.socket.sender] = self

    def say(self, wait_s: float = 0.0) -> None:
        """Send the next message."""
        socket = self.socket
        socket.sent += 1
        self.sent_at_s[socket.sent] = time.monotonic()
        self.log.figures.sent_count += 1
        wait = b',"wait":%.3f' % wait_s if wait_s else b""
        self.transport.write(masked(TEXT, b'{"i":%d%b}' % (socket.sent, wait)))

    def data_received(self, data: bytes) -> None:
        """Take the answer to the request, then whole frames."""
        data = self._rest + data if self._rest else data
        if not self.is_up:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.code = int(head[9:12])
                self.transport.abort()
                return
            self.is_up = True
        at, end = 0, len(data)
        while end - at >= 2:
            length, body = data[at + 1], at + 2
            if length > 125:
                if end - at < 4:
                    break
                length, body = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            stop = body + length
            if stop > end:
                break
            self._take(data[at], data[body:stop])
            at = stop
        self._rest = data[at:]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self.log.figures.got_count += 1
            if payload.startswith(b'{"error"'):
                self.log.figures.ended[f"frame {json.loads(payload)['error']}"] += 1
                return
            self.socket.received.append(self.log.output(payload))
        elif opcode == PING:
            self.transport.write(masked(PONG, payload))
        elif opcode == CLOSE:
            self.code = int.from_bytes(payload[:2], "big") if payload else 1005
            self.transport.write(masked(CLOSE, payload[:2]))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Note how it ended."""
        self.is_up = False
        self.log.figures.ended[str(self.code)] += 1
        self.ended.set()
