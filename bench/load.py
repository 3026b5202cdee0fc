"""The load generator: one process, raw sockets, prebuilt masked frames, and a check of order, loss and repeats.

Prints one JSON object. Its own share of a core is in it: at 0.98 or more the figure is a lower bound.
"""

import argparse
import asyncio
import json
import os
import struct
import time
from urllib.parse import urlsplit

import uvloop
from scenarios import SCENARIOS, Scenario

PADDING = "x" * 60
WARM_UP_S = 1.0


class Client(asyncio.Protocol):
    """One WebSocket: sends text frames, hands every received payload to its room."""

    def __init__(self, room: "RoomLoad", number: int, path: str, host: str) -> None:
        self.room = room
        self.number = number
        self.buffer = b""
        self.open = asyncio.get_running_loop().create_future()
        self.joined = asyncio.get_running_loop().create_future()
        self.request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        self.closed = False
        self.sent = 0
        self.next_index = 0
        self.last_from: dict[int, int] = {}
        self.last_count = 0
        self.digest = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self.request)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed = True

    def send(self, payload: bytes) -> None:
        """Send one text frame, masked with zeros."""
        length = len(payload)
        head = b"\x81" + (bytes([0x80 | length]) if length < 126 else b"\xfe" + struct.pack(">H", length))
        self.transport.write(head + b"\0\0\0\0" + payload)

    def send_message(self) -> None:
        """Send the next numbered message of this client."""
        index = self.sent
        self.sent += 1
        self.room.started[self.number, index] = time.perf_counter_ns()
        self.send(b'{"c":%d,"i":%d,"p":"%b"}' % (self.number, index, PADDING.encode()))

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        if not self.open.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self.buffer = head
                return
            if b" 101 " not in head[:20]:
                self.open.set_exception(RuntimeError(head.decode()))
                return
            self.open.set_result(None)
        at, end = 0, len(data)
        while end - at >= 2:
            length, body = data[at + 1], at + 2
            if length == 126:
                if end - at < 4:
                    break
                length, body = (data[at + 2] << 8) | data[at + 3], at + 4
            elif length == 127:
                if end - at < 10:
                    break
                length, body = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if end < body + length:
                break
            if data[at] == 0x81:
                self.got(data[body : body + length])
            elif data[at] == 0x88:
                self.closed = True
            at = body + length
        self.buffer = data[at:]

    def got(self, payload: bytes) -> None:
        """Take one message: its sender and index stand at fixed places."""
        if payload.startswith(b'{"hello":'):
            if int(payload[9 : payload.index(b",")]) == self.number and not self.joined.done():
                self.joined.set_result(None)
            if b'"n":' in payload:
                self.last_count = int(payload[payload.index(b'"n":') + 4 : -1])
            return
        comma = payload.index(b",")
        sender = int(payload[5:comma])
        index = int(payload[comma + 5 : payload.index(b",", comma + 5)])
        room = self.room
        last = self.last_from.get(sender, -1)
        if index != last + 1:
            room.fault(index <= last)
        self.last_from[sender] = index
        self.digest = hash((self.digest, sender, index))
        if room.counted:
            count = int(payload[payload.index(b'"n":') + 4 : -1])
            if count != self.last_count + 1:
                room.wrong_steps += 1
            self.last_count = count
        room.delivered(sender, index)


class RoomLoad:
    """One room: when all its clients have a message, it counts, and its sender sends the next."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.counted = scenario.kind == "counter"
        self.clients: list[Client] = []
        self.started: dict[tuple[int, int], int] = {}
        self.missing: dict[tuple[int, int], int] = {}
        self.done_count = 0
        self.delivery_count = 0
        self.repeats = 0
        self.gaps = 0
        self.wrong_steps = 0
        self.latencies_ns: list[int] = []
        self.running = True

    def fault(self, repeat: bool) -> None:
        """Count a message out of its sender's order."""
        if repeat:
            self.repeats += 1
        else:
            self.gaps += 1

    def delivered(self, sender: int, index: int) -> None:
        """Count a delivery; the last one of a message opens the next."""
        self.delivery_count += 1
        key = (sender, index)
        left = self.missing.get(key, len(self.clients)) - 1
        if left:
            self.missing[key] = left
            return
        self.missing.pop(key, None)
        self.done_count += 1
        self.latencies_ns.append(time.perf_counter_ns() - self.started.pop(key))
        if self.running and self.scenario.in_flight:
            self.clients[sender].send_message()


async def connect(room: RoomLoad, name: str, number: int, url: str) -> Client:
    """Open one socket and return it once the handshake is done."""
    parts = urlsplit(url)
    path = f"/parties/{room.scenario.kind}/{name}"
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        lambda: Client(room, number, path, parts.netloc), parts.hostname, parts.port
    )
    await client.open
    room.clients.append(client)
    return client


async def fill(scenario: Scenario, urls: list[str], tag: str, *, joined: bool) -> list[RoomLoad]:
    """Open all sockets, each room's spread over the urls, and wait until each hears itself."""
    rooms = [RoomLoad(scenario) for _ in range(scenario.rooms)]
    limit = asyncio.Semaphore(100)

    async def one(r: int, c: int) -> None:
        async with limit:
            await connect(rooms[r], f"{tag}-{r}", c, urls[c % len(urls)])

    await asyncio.gather(*(one(r, c) for r in range(scenario.rooms) for c in range(scenario.clients)))
    for room in rooms:
        room.clients.sort(key=lambda client: client.number)
    if joined:
        for room in rooms:
            for client in room.clients:
                client.send(b'{"hello":%d,"p":0}' % client.number)
        await asyncio.gather(*(client.joined for room in rooms for client in room.clients))
        await asyncio.sleep(0.2)
    return rooms


async def pace(client: Client, rate_hz: float, until_s: float, offset: float) -> None:
    """Send at a steady rate."""
    await asyncio.sleep(offset / rate_hz)
    while time.perf_counter() < until_s:
        client.send_message()
        await asyncio.sleep(1 / rate_hz)


async def drive(scenario: Scenario, rooms: list[RoomLoad], seconds: float) -> float:
    """Run the load and return how long it ran."""
    started_s = time.perf_counter()
    if scenario.in_flight:
        for room in rooms:
            for client in room.clients[: scenario.senders]:
                for _ in range(scenario.in_flight):
                    client.send_message()
        await asyncio.sleep(WARM_UP_S)
        for room in rooms:
            room.done_count = room.delivery_count = 0
            room.latencies_ns.clear()
        started_s = time.perf_counter()
        await asyncio.sleep(seconds)
    else:
        until_s = started_s + seconds
        senders = [client for room in rooms for client in room.clients[: scenario.senders]]
        await asyncio.gather(
            *(pace(client, scenario.rate_hz, until_s, n / len(senders)) for n, client in enumerate(senders))
        )
    return time.perf_counter() - started_s


async def run(scenario: Scenario, urls: list[str], seconds: float, tag: str) -> dict[str, object]:
    """Run one scenario and return its figures."""
    rooms = await fill(scenario, urls, tag, joined=True)
    cpu_s = time.process_time()
    ran_s = await drive(scenario, rooms, seconds)
    cpu_share = (time.process_time() - cpu_s) / (ran_s + (WARM_UP_S if scenario.in_flight else 0))
    done = sum(room.done_count for room in rooms)
    deliveries = sum(room.delivery_count for room in rooms)
    for room in rooms:
        room.running = False
    deadline = time.perf_counter() + 5
    while any(room.started for room in rooms) and time.perf_counter() < deadline:
        await asyncio.sleep(0.02)
    latencies = sorted(ns for room in rooms for ns in room.latencies_ns) or [0]
    result: dict[str, object] = {
        "to_all_per_s": done / ran_s,
        "deliveries_per_s": deliveries / ran_s,
        "p50_ms": latencies[len(latencies) // 2] / 1e6,
        "p99_ms": latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)] / 1e6,
        "generator_cores": cpu_share,
        "ran_s": ran_s,
        "lost": sum(len(room.started) for room in rooms) + sum(room.gaps for room in rooms),
        "repeats": sum(room.repeats for room in rooms),
        "other_order": sum(len({client.digest for client in room.clients}) > 1 for room in rooms),
        "wrong_steps": sum(room.wrong_steps for room in rooms),
        "closed": sum(client.closed for room in rooms for client in room.clients),
    }
    for room in rooms:
        for client in room.clients:
            client.transport.abort()
    return result


async def hold(scenario: Scenario, urls: list[str], tag: str) -> None:
    """Open idle connections and hold them until the parent closes our input."""
    started_s = time.perf_counter()
    rooms = await fill(scenario, urls, tag, joined=False)
    count = sum(len(room.clients) for room in rooms)
    print(json.dumps({"connections": count, "connect_per_s": count / (time.perf_counter() - started_s)}), flush=True)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(0, ended.set)
    await ended.wait()


def main() -> None:
    """Parse arguments, run, print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenario", required=True, choices=SCENARIOS)
    parser.add_argument("--urls", required=True)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--kind", default="")
    options = parser.parse_args()
    scenario = SCENARIOS[options.scenario]
    if options.kind:
        scenario = scenario._replace(kind=options.kind)
    urls, tag = options.urls.split(","), f"{options.scenario.lower()}-{os.getpid()}"
    if scenario.name == "S4":
        uvloop.run(hold(scenario, urls, tag))
    else:
        print(json.dumps(uvloop.run(run(scenario, urls, options.seconds, tag))))


if __name__ == "__main__":
    main()
