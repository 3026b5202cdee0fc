"""The load generator, a process of its own: drives one scenario and checks order, loss and repeats of every delivery.

With ``--json`` it prints JSON lines: ``{"window": "begin"}`` and ``{"window": "end"}`` around the measured seconds (so
that who started it can read the servers' CPU clocks), then the figures. In S4 it prints ``{"window": "idle"}`` once
all connections are open, holds them until a line or the end of its input, and checks that all are still served.
"""

import argparse
import asyncio
import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import uvloop
from bench.client import Client, Handshake, RoomLoad, Samples
from bench.scenarios import SCENARIOS, Scenario
from bench.verdict import check_rooms

WARM_UP_S = 1.0
JOIN_S = 30.0
PROBE_EVERY_S = 0.2
QUIET_S = 3.0
DRAIN_S = 20.0


class Load:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario, kind: str, urls: list[str], *, as_json: bool) -> None:
        self.scenario = scenario
        self.urls = urls
        self.samples = Samples()
        self.as_json = as_json
        tag = f"{scenario.name.lower()}-{os.getpid()}"
        self.rooms = [
            RoomLoad(f"/parties/{kind}/{tag}-{n}", self.samples, closed_loop=scenario.in_flight_count > 0)
            for n in range(scenario.room_count)
        ]

    def tell(self, **fact: Any) -> None:
        """Print one fact."""
        if self.as_json:
            print(json.dumps(fact), flush=True)

    async def connect(self) -> None:
        """Open all sockets, each room's spread evenly over the urls."""
        limit = asyncio.Semaphore(100)

        async def one(room: RoomLoad, number: int) -> Client:
            async with limit:
                return await _open(room, number, self.urls[number % len(self.urls)])

        for room in self.rooms:
            room.clients = await asyncio.gather(*(one(room, n) for n in range(self.scenario.client_count)))

    async def join(self) -> None:
        """Probe until every client hears its room, then once more, so that no probe is under way afterwards.

        A connection receives from its own join on and joins are not reversed, so who heard one probe has joined. All
        probes of a room come from one client, so the last one is behind all others.

        Raises:
            RuntimeError: Not all heard a probe within 30 s.
        """
        await asyncio.gather(*(self._join(room) for room in self.rooms))

    async def _join(self, room: RoomLoad) -> None:
        deadline_s = time.monotonic() + JOIN_S
        probe_at_s = 0.0
        all_joined = False
        while not all_joined or room.probe_heard() < room.probe_count:
            now_s = time.monotonic()
            if now_s > deadline_s:
                deaf_count = sum(client.heard_probe < room.probe_count for client in room.clients)
                raise RuntimeError(f"{room.path}: {deaf_count} clients did not hear a message within {JOIN_S:g} s")
            if not all_joined and now_s > probe_at_s:
                room.probe()
                probe_at_s = now_s + PROBE_EVERY_S
            await asyncio.sleep(0.01)
            all_joined = room.probe_heard() > 0

    async def drive(self, seconds: float) -> dict[str, Any]:
        """Send for the warm-up and the measured seconds; return the figures of the latter."""
        senders = [client for room in self.rooms for client in room.clients[: self.scenario.sender_count]]
        pacing: list[asyncio.Task[None]] = []
        if self.scenario.in_flight_count:
            for client in senders:
                for _ in range(self.scenario.in_flight_count):
                    client.queue_message()
                client.flush()
        else:
            period_s = 1 / self.scenario.rate_hz
            pacing = [
                asyncio.create_task(_pace(client, period_s, period_s * n / len(senders)))
                for n, client in enumerate(senders)
            ]
        await asyncio.sleep(WARM_UP_S)
        figures = await self._measure(seconds)
        for task in pacing:
            task.cancel()
        for room in self.rooms:
            room.refills = False
        await self._drain(senders)
        return figures

    async def _measure(self, seconds: float) -> dict[str, Any]:
        self.tell(window="begin")
        each_from, to_all_from = len(self.samples.each_ns), len(self.samples.to_all_ns)
        cpu_s, started_s = time.process_time(), time.perf_counter()
        await asyncio.sleep(seconds)
        ran_s = time.perf_counter() - started_s
        generator_cores = (time.process_time() - cpu_s) / ran_s
        each_ns, to_all_ns = self.samples.each_ns[each_from:], self.samples.to_all_ns[to_all_from:]
        self.tell(window="end")
        return {
            "ran_s": ran_s,
            "to_all_per_s": len(to_all_ns) / ran_s,
            "deliveries_per_s": len(each_ns) / ran_s,
            "deliveries": len(each_ns),
            **_percentiles("", each_ns),
            **_percentiles("to_all_", to_all_ns),
            "generator_cores": generator_cores,
        }

    async def _drain(self, senders: list[Client]) -> None:
        """Wait until all messages are with all clients, or nothing has come for 3 s."""
        expected = sum(client.sent_count for client in senders) * self.scenario.client_count
        deadline_s = time.monotonic() + DRAIN_S
        seen, seen_at_s = -1, 0.0
        while len(self.samples.each_ns) < expected and time.monotonic() < deadline_s:
            if len(self.samples.each_ns) != seen:
                seen, seen_at_s = len(self.samples.each_ns), time.monotonic()
            elif time.monotonic() > seen_at_s + QUIET_S:
                return
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)  # what comes now came twice

    async def run(self, seconds: float) -> dict[str, Any]:
        """Run a scenario with messages."""
        await self.connect()
        await self.join()
        figures = await self.drive(seconds)
        return {**figures, **dataclasses.asdict(check_rooms(self.rooms))}

    async def hold(self) -> dict[str, Any]:
        """Open idle connections, hold them until told, then see that they are still served."""
        started_s = time.perf_counter()
        await self.connect()
        connection_count = sum(len(room.clients) for room in self.rooms)
        connect_per_s = connection_count / (time.perf_counter() - started_s)
        self.tell(window="idle")
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
        await ended.wait()
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        await self.join()
        faults = check_rooms(self.rooms)
        return {"connections": connection_count, "connect_per_s": connect_per_s, **dataclasses.asdict(faults)}

    def end(self) -> None:
        """Cut all connections."""
        for room in self.rooms:
            for client in room.clients:
                client.transport.abort()


async def _open(room: RoomLoad, number: int, url: str) -> Client:
    parts = urlsplit(url)
    _, handshake = await asyncio.get_running_loop().create_connection(
        lambda: Handshake(room, number, parts.netloc), parts.hostname or "127.0.0.1", parts.port or 80
    )
    async with asyncio.timeout(JOIN_S):
        return await handshake.client


async def _pace(client: Client, period_s: float, first_after_s: float) -> None:
    """Send at a steady rate; a late message does not delay the ones after it."""
    loop = asyncio.get_running_loop()
    next_s = loop.time() + first_after_s
    while True:
        await asyncio.sleep(next_s - loop.time())
        client.queue_message()
        client.flush()
        next_s += period_s


def _percentiles(prefix: str, samples_ns: Iterable[int]) -> dict[str, float]:
    ordered = sorted(samples_ns) or [0]
    return {f"{prefix}p{part}_ms": ordered[len(ordered) * part // 100] / 1e6 for part in (50, 99)}


async def _main(options: argparse.Namespace) -> dict[str, Any]:
    scenario = SCENARIOS[options.scenario]
    load = Load(scenario, options.kind or scenario.kind, options.urls.split(","), as_json=options.json)
    try:
        return await (load.run(options.seconds) if scenario.sender_count else load.hold())
    finally:
        load.end()


def main() -> None:
    """Parse arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--scenario", required=True, choices=SCENARIOS)
    parser.add_argument("--urls", required=True, help="ws://host:port,... - each room's clients are spread over them")
    parser.add_argument("--seconds", type=float, default=4.0, help="measured seconds, after 1 s of warm-up")
    parser.add_argument("--kind", default="", help="room kind, where not the scenario's own")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    options = parser.parse_args()
    gc.disable()  # nothing here makes cycles that matter within seconds; a pause would be measured as latency
    try:
        figures = uvloop.run(_main(options))
    except (RuntimeError, OSError) as error:
        sys.exit(f"{options.scenario}: {error}")
    if options.json:
        print(json.dumps(figures), flush=True)
    else:
        for name, figure in figures.items():
            print(f"{name:20} {figure:,.2f}" if isinstance(figure, float) else f"{name:20} {figure:,}")


if __name__ == "__main__":
    main()
