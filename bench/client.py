"""A WebSocket client that costs little: masked frames made by one format, server frames compared with a room's log.

All clients of a room must get the same payloads in the same order. So the first client to get one appends it to the
room's log, and for all others a delivery is one comparison; what a client got is then its position in the log. A
client that gets anything else keeps a list of its own from there on, and verdict.py says afterwards what went wrong.
"""

import asyncio
import struct
import time
from array import array
from typing import cast

TEXT, CLOSE, PING = 0x81, 0x88, 0x89
NOWHERE = 1 << 60
"""The position of a client that left the log: none is known there, so each of its frames is looked at one by one."""

# Numbers have a fixed width, so that sender and time stand at fixed places; all are below 2**53, as JSON wants them.
FIRST_SENDER, FIRST_INDEX, FIRST_NS = 100_000, 1_000_000_000, 1_000_000_000_000
SHIFT_NS = FIRST_NS - time.monotonic_ns()
PAYLOAD = b'{"c":%d,"i":%%d,"t":%%d,"p":"' + b"x" * 48 + b'"}'
PAYLOAD_BYTES = 100
NO_MASK = b"\0\0\0\0"  # a mask of zeros: the server unmasks as ever, we need not


def masked(opcode: int, payload: bytes) -> bytes:
    """Return a client's frame."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + struct.pack(">H", length)
    return bytes([opcode]) + size + NO_MASK + payload


class Samples:
    """Latencies in ns in the order they were seen, so that a window is a slice."""

    def __init__(self) -> None:
        self.each_ns = array("q")
        self.to_all_ns = array("q")


class RoomLoad:
    """One room: its clients, its log, and who may send next."""

    def __init__(self, path: str, samples: Samples, *, closed_loop: bool) -> None:
        self.path = path
        self.samples = samples
        self.refills = closed_loop
        self.clients: list[Client] = []
        self.log: list[bytes] = []
        self.sent_ns: list[int] = []
        self.missing_counts: list[int] = []
        self.places: dict[bytes, int] | None = None
        self.ready_to_send: list[Client] = []
        self.probe_count = 0

    def append(self, payload: bytes) -> int:
        """Take a payload no client had yet; return its place. A counter's number stands in front of the sender."""
        place = len(self.log)
        at = payload.index(b'"t":') + 4
        self.log.append(payload)
        self.sent_ns.append(int(payload[at : at + 13]) - SHIFT_NS)
        self.missing_counts.append(len(self.clients))
        if self.places is not None:
            self.places.setdefault(payload, place)
        return place

    def place_of(self, payload: bytes) -> int:
        """Return where a payload stands in the log, appended if it does not."""
        if self.places is None:
            self.places = {}
            for place, known in enumerate(self.log):
                self.places.setdefault(known, place)
        found = self.places.get(payload)
        return self.append(payload) if found is None else found

    def completed(self, place: int, now_ns: int) -> None:
        """All clients have this one: its sender may send the next."""
        self.samples.to_all_ns.append(now_ns - self.sent_ns[place])
        if self.refills:
            payload = self.log[place]
            at = payload.index(b'"c":') + 4
            sender = self.clients[int(payload[at : at + 6]) - FIRST_SENDER]
            sender.queue_message()
            self.ready_to_send.append(sender)

    def flush(self) -> None:
        """Send what was queued, one write per sender."""
        for client in self.ready_to_send:
            client.flush()
        self.ready_to_send.clear()

    def probe(self) -> None:
        """Send a message outside the count; whoever hears one has joined."""
        self.probe_count += 1
        self.clients[0].write(masked(TEXT, b'{"hello":%d}' % self.probe_count))

    def probe_heard(self) -> int:
        """Return the latest probe that all clients have heard."""
        return min(client.heard_probe for client in self.clients)


class Client(asyncio.Protocol):
    """One socket of a room, after the handshake."""

    def __init__(self, room: RoomLoad, number: int, transport: asyncio.Transport) -> None:
        self.room = room
        self.number = number
        self.position = 0
        self.own: list[bytes] | None = None
        self.heard_probe = 0
        self.probe_n = 0
        self.sent_count = 0
        self.closed_with: int | None = None
        self.write = transport.write
        self.transport = transport
        self._each_ns = room.samples.each_ns
        self._frame = bytes([TEXT, 0x80 | PAYLOAD_BYTES]) + NO_MASK + PAYLOAD % (FIRST_SENDER + number)
        self._outbox: list[bytes] = []
        self._rest = b""

    def queue_message(self) -> None:
        """Make this client's next message; flush() sends it."""
        index = FIRST_INDEX + self.sent_count
        self._outbox.append(self._frame % (index, time.monotonic_ns() + SHIFT_NS))
        self.sent_count += 1

    def flush(self) -> None:
        """Send what was queued in one write."""
        if self._outbox:
            self.write(b"".join(self._outbox))
            self._outbox.clear()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Remember that the connection is gone."""
        if self.closed_with is None:
            self.closed_with = 1006

    def data_received(self, data: bytes) -> None:
        """Take whole frames; the loop runs once per delivery and is most of the generator's cost."""
        now_ns = time.monotonic_ns()
        if self._rest:
            data = self._rest + data
        room = self.room
        log, missing_counts, sent_ns = room.log, room.missing_counts, room.sent_ns
        known, position = len(log), self.position
        sample = self._each_ns.append
        at, end = 0, len(data)
        while end - at >= 2:
            length = data[at + 1]
            body = at + 2
            if length > 125:
                body, length = _long_frame(data, at)
            stop = body + length
            if stop > end:
                break
            payload = data[body:stop]
            if position < known and log[position] == payload:
                sample(now_ns - sent_ns[position])
                missing_counts[position] = missing = missing_counts[position] - 1
                if not missing:
                    room.completed(position, now_ns)
                position += 1
            else:
                self.position = position
                self._look_at(data[at], payload, now_ns)
                known, position = len(log), self.position
            at = stop
        self.position = position
        self._rest = data[at:]
        if room.ready_to_send:
            room.flush()

    def _look_at(self, opcode: int, payload: bytes, now_ns: int) -> None:
        """Take a frame that is not the next of the log."""
        if opcode != TEXT:
            self._control(opcode, payload)
            return
        at = payload.find(b'"hello":')
        if at >= 0:
            self.heard_probe = int(payload[at + 8 : -1])
            self.probe_n = counter_of(payload)
            return
        room = self.room
        if self.own is None and self.position == len(room.log):
            self.position += 1
            place = room.append(payload)
        else:
            if self.own is None:
                self.own = room.log[: self.position]
                self.position = NOWHERE
            self.own.append(payload)
            place = room.place_of(payload)
        self._each_ns.append(now_ns - room.sent_ns[place])
        room.missing_counts[place] -= 1
        if not room.missing_counts[place]:
            room.completed(place, now_ns)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.write(masked(0x8A, payload))
        elif opcode == CLOSE:
            self.closed_with = int.from_bytes(payload[:2], "big") if payload else 1005


class Handshake(asyncio.Protocol):
    """Asks for a WebSocket, then hands the connection to a Client."""

    def __init__(self, room: RoomLoad, number: int, host: str) -> None:
        self.client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._room, self._number, self._host = room, number, host
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(
            f"GET {self._room.path} HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take the answer; frames may follow in the same segment."""
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        if not head.startswith(b"HTTP/1.1 101 "):
            self.client.set_exception(RuntimeError(f"refused: {head[:200].decode(errors='replace')}"))
            self._transport.abort()
            return
        client = Client(self._room, self._number, self._transport)
        self._transport.set_protocol(client)
        self.client.set_result(client)
        if rest:
            client.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail if no answer came."""
        if not self.client.done():
            self.client.set_exception(ConnectionError(f"closed in the handshake: {exc}"))


def counter_of(payload: bytes) -> int:
    """Return the number the counter room put in front, 0 where there is none."""
    return int(payload[5 : payload.index(b",")]) if payload.startswith(b'{"n":') else 0


def _long_frame(data: bytes, at: int) -> tuple[int, int]:
    """Return where the payload of a frame of 126 bytes or more starts, and its length; past the end if unknown yet."""
    body = at + (4 if data[at + 1] == 126 else 10)
    if len(data) < body:
        return len(data), 1
    return body, int.from_bytes(data[at + 2 : body], "big")
