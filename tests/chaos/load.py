"""The clients of a run, a process of their own: send, come back after every close, and judge at the end.

Reads commands from its input, one a line: ``lossy`` (history may be cut now: every socket so far may lose things),
``stop`` (send no more; when all is quiet, print the verdict). Prints JSON lines: ``{"ready": …}``, ``{"verdict": …}``.
"""

import argparse
import asyncio
import functools
import gc
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import redis
import uvloop

from chaos.client import Figures, Log, Peer
from harness.chronicle import read_stored
from harness.history import Stored, Violation, check
from innkeeper.address import parse_address
from innkeeper.keys import room_keys

KIND = "chronicle"
_TICK_S = 0.01
_JOIN_S = 60.0
_SHOWN_VIOLATIONS = 40


class Load:
    """All clients of one run.

    Args:
        options: The command line's.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.random = random.Random(options.seed)
        self.figures = Figures()
        self.ports = [int(port) for port in options.edges.split(",")]
        self.logs = [Log(f"{KIND}/{options.tag}-{n}", self.figures) for n in range(options.rooms)]
        self.up: dict[tuple[int, int], Peer] = {}
        self.sending_s = 0.0
        self.stopped = False
        self.lossy = False
        self._redis = redis.Redis.from_url(options.redis, socket_timeout=30)

    async def run(self) -> None:
        """Connect, send until told to stop, wait for quiet, judge."""
        keepers = [
            asyncio.create_task(self._keep(room, client))
            for room in range(len(self.logs))
            for client in range(self.options.clients)
        ]
        await self._all_joined(_JOIN_S)
        _tell(ready={"sockets": len(self.up)})
        listening = asyncio.create_task(self._listen())
        await self._send()
        await listening
        settled_s = await self._quiet(self.options.quiet)
        open_peers = {id(peer.socket) for peer in self.up.values() if peer.is_up}
        for log in self.logs:
            for socket in log.sockets:
                socket.is_open = id(socket) in open_peers
        _tell(verdict=await asyncio.to_thread(self._judge, settled_s))
        for keeper in keepers:
            keeper.cancel()

    # --- sockets --------------------------------------------------------------------------------------------------
    async def _keep(self, room: int, client: int) -> None:
        """Keep one client of one room connected, each time under another name."""
        loop, log, lives = asyncio.get_running_loop(), self.logs[room], 0
        await asyncio.sleep(self.random.random() * 0.002 * len(self.logs) * self.options.clients)
        failures = 0
        while True:
            port = self.ports[(client + lives) % len(self.ports)]
            name = f"{client}.{lives}"
            lives += 1
            try:
                made = functools.partial(Peer, log, name, f"127.0.0.1:{port}")
                _, peer = await loop.create_connection(made, "127.0.0.1", port)
            except OSError:
                failures += 1
                await asyncio.sleep(min(0.05 * 2**failures, 1.0) * (0.5 + self.random.random()))
                continue
            peer.socket.lossy = self.lossy
            self.up[room, client] = peer
            began_s = loop.time()
            await peer.ended.wait()
            self.up.pop((room, client), None)
            failures = failures + 1 if loop.time() - began_s < 1 else 0
            await asyncio.sleep(min(0.05 * 2**failures, 1.0) * (0.5 + self.random.random()))

    async def _all_joined(self, within_s: float) -> None:
        wanted = len(self.logs) * self.options.clients
        deadline_s = time.monotonic() + within_s
        while sum(bool(peer.socket.received) for peer in self.up.values()) < wanted:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"only {len(self.up)} of {wanted} sockets joined; ended: {self.figures.ended}")
            await asyncio.sleep(0.05)

    async def _send(self) -> None:
        """Send at the asked rate over all sockets that are up, until stopped."""
        began_s, due = time.monotonic(), 0
        sent = 0
        while not self.stopped:
            await asyncio.sleep(_TICK_S)
            due = int((time.monotonic() - began_s) * self.options.rate)
            peers = [peer for peer in self.up.values() if peer.is_up]
            if not peers:
                sent = due
                continue
            for peer in self.random.choices(peers, k=due - sent):
                peer.say(0.02 if self.random.random() < self.options.slow else 0.0)
            sent = due
        self.sending_s = time.monotonic() - began_s

    async def _listen(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while not self.stopped:
            command = (await reader.readline()).decode().strip()
            if command == "lossy":
                self.lossy = True
                for log in self.logs:
                    for socket in log.sockets:
                        socket.lossy = True
            elif command == "whole":
                self.lossy = False
            else:
                self.stopped = True

    # --- the end --------------------------------------------------------------------------------------------------
    async def _quiet(self, within_s: float) -> float:
        """Wait until every client is in and has got everything; return after how many seconds, or the limit."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < within_s:
            if await asyncio.to_thread(self._is_settled):
                await asyncio.sleep(1.0)  # what comes now came twice
                return time.monotonic() - began_s - 1.0
            await asyncio.sleep(0.2)
        return within_s

    def _is_settled(self) -> bool:
        pipe = self._redis.pipeline(transaction=False)
        for log in self.logs:
            keys = room_keys(parse_address(log.room))
            pipe.hget(keys.state, "n")
            pipe.hlen(keys.members)
            pipe.hmget(keys.sessions, "#", "@")
        try:
            replies = pipe.execute()
        except redis.RedisError:
            return False
        for number in range(len(self.logs)):
            count, members, (hash_, cursor) = replies[3 * number : 3 * number + 3]
            peers = [self.up.get((number, client)) for client in range(self.options.clients)]
            last = [peer.socket.received[-1].place for peer in peers if peer is not None and peer.socket.received]
            if last != [int(count or 0)] * self.options.clients or members != len(peers) or hash_ != cursor:
                return False
        return True

    def _stored(self, log: Log) -> Stored:
        keys = room_keys(parse_address(log.room))
        pipe = self._redis.pipeline(transaction=False)
        pipe.hgetall(keys.state)
        pipe.hgetall(keys.members)
        pipe.hmget(keys.sessions, "#", "@")
        pipe.xrange(keys.dead)
        pipe.xrange(keys.outlog)
        state, members, counts, dead, outlog = pipe.execute()
        return read_stored(state, members, counts, _fields(dead), _fields(outlog))

    def _judge(self, settled_s: float) -> dict[str, Any]:
        found: list[Violation] = []
        applied = Counter[str]()
        for log in self.logs:
            stored = self._stored(log)
            applied.update(step.kind for step in stored.steps)
            found += check(log.room, log.sockets, stored)
        figures = self.figures
        return {
            "violations": Counter(str(violation.kind) for violation in found),
            "examples": [f"{v.kind}: {v.room}: {v.text}" for v in found[:_SHOWN_VIOLATIONS]],
            "settled_s": settled_s,
            "rooms": len(self.logs),
            "sockets": sum(len(log.sockets) for log in self.logs),
            "open": len(self.up),
            "sent": figures.sent_count,
            "sent_per_s": figures.sent_count / self.sending_s,
            "applied": applied["say"],
            "joins": applied["join"],
            "leaves": applied["leave"],
            "outputs": figures.got_count,
            "ended": figures.ended,
            "handovers": len(figures.handover_s),
            **_percentiles("echo", figures.echo_s),
            **_percentiles("handover", figures.handover_s),
        }


def _fields(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[dict[bytes, bytes]]:
    return [fields for _, fields in entries]


def _percentiles(name: str, samples_s: list[float]) -> dict[str, float]:
    ordered = sorted(samples_s) or [0.0]
    marks = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "max": len(ordered) - 1}
    return {f"{name}_{mark}_ms": round(ordered[at] * 1000, 1) for mark, at in marks.items()}


def _tell(**fact: Any) -> None:
    print(json.dumps(fact), flush=True)


def main() -> None:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--edges", required=True, help="ports, separated by commas")
    parser.add_argument("--redis", required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--rooms", type=int, required=True)
    parser.add_argument("--clients", type=int, required=True, help="clients of each room")
    parser.add_argument("--rate", type=float, required=True, help="messages a second, over all rooms")
    parser.add_argument("--slow", type=float, default=0.0, help="share of messages whose handler waits 20 ms")
    parser.add_argument("--quiet", type=float, default=30.0, help="seconds to wait for quiet at most")
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    gc.disable()  # nothing here makes cycles that matter within minutes; a pause would be measured as latency
    uvloop.run(Load(options).run())


if __name__ == "__main__":
    main()
