"""Thousands of sessions in a process of their own: ``python -m harness.storm COUNT ROOMS URL URL...`` (host:port).

They join at the first address, say on stdout when all are in, and when they lose it come back at the others, each room
at one of them, as behind a proxy that hashes on the path, and with a growing, jittered wait, as Innkeeper's clients do.
Then they say how long that took.
"""

import asyncio
import json
import os
import random
import sys
import time
from typing import cast

import uvloop

from harness.rawsocket import TEXT, frame, request_head
from innkeeper.supervise.role import die_with_parent

FIRST_S, FACTOR, MOST_S, JITTER = 0.25, 2.0, 15.0, 0.5  # as in innkeeper.client.Backoff
GIVE_UP_S = 60.0
_CONNECTING = 200


class Session(asyncio.Protocol):
    """One session: joins, and resumes wherever it can until it is in again."""

    def __init__(self, storm: "Storm", number: int) -> None:
        self._storm = storm
        self.room_number = number % storm.room_count
        self._room = f"/parties/rawecho/storm{self.room_number}"
        self._secret = f"{random.getrandbits(128):032x}"
        self._generation = 0
        self._last: str | None = None
        self._got = b""
        self._is_upgraded = self.is_in = False
        self.lost_at_s = 0.0
        self.back_at_s = 0.0
        self.attempts = 0
        self.resyncs = 0
        self.refusals = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the socket."""
        self._transport = transport = cast("asyncio.Transport", transport)
        self._got, self._is_upgraded = b"", False
        transport.write(request_head(self._room, {"Sec-WebSocket-Protocol": "innkeeper.v1"}))

    def data_received(self, data: bytes) -> None:
        """Read the answer, then the frames."""
        self._got += data
        assert self._transport is not None
        if not self._is_upgraded:
            head, end, rest = self._got.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head:
                self.refusals += 1
                self._transport.abort()
                return
            self._is_upgraded, self._got = True, rest
            self._generation += 1
            hello = {"secret": self._secret, "generation": self._generation, "last": self._last}
            self._transport.write(frame(TEXT, b"!" + json.dumps({"hello": hello}).encode()))
        while len(self._got) >= 2:
            size, head_bytes = self._got[1], 2
            if size == 126:
                size, head_bytes = int.from_bytes(self._got[2:4], "big"), 4
            if len(self._got) < head_bytes + size:
                return
            opcode, payload = self._got[0] & 15, self._got[head_bytes : head_bytes + size]
            self._got = self._got[head_bytes + size :]
            if opcode == 9:
                self._transport.write(frame(10, payload))
            elif opcode == 1 and payload[:1] == b"!":
                self._heard(json.loads(payload[1:]))

    def _heard(self, words: dict[str, dict[str, str]]) -> None:
        answer = words.get("hello") or words.get("resumed") or words.get("resync")
        if answer:
            self._last = answer["at"]
            self.resyncs += "resync" in words
            self.is_in = True
            self.attempts = 0
            self.back_at_s = time.monotonic()
            self._storm.entered()

    def connection_lost(self, exc: Exception | None) -> None:
        """Come back."""
        del exc
        if self.is_in:
            self.is_in = False
            self.lost_at_s = time.monotonic()
            self._storm.lost()
        self.again()

    def again(self) -> None:
        """Try to connect after a wait."""
        wait_s = min(MOST_S, FIRST_S * FACTOR**self.attempts) * (1 - JITTER * random.random())
        self.attempts += 1
        asyncio.get_running_loop().call_later(wait_s, self._storm.connect, self)


class Storm:
    """All sessions."""

    def __init__(self, count: int, room_count: int, addresses: list[str]) -> None:
        self.room_count = room_count
        self._addresses = [(host, int(port)) for host, _, port in (each.rpartition(":") for each in addresses)]
        self._count = count
        self._in = 0
        self._was_full = False
        self._turns = asyncio.Semaphore(_CONNECTING)
        self._tasks: set[asyncio.Task[None]] = set()
        self.sessions = [Session(self, number) for number in range(count)]
        self.full = asyncio.Event()
        self.hurt = asyncio.Event()

    def connect(self, session: Session) -> None:
        """Connect a session: to the first address until all were in, then to the one that its room's path chooses."""
        task = asyncio.create_task(self._connect(session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, session: Session) -> None:
        async with self._turns:
            others = self._addresses[1:]
            host, port = others[session.room_number % len(others)] if self._was_full else self._addresses[0]
            try:
                await asyncio.get_running_loop().create_connection(lambda: session, host, port)
            except OSError:
                session.again()

    def entered(self) -> None:
        """Count one that is in."""
        self._in += 1
        if self._in == self._count:
            self._was_full = True
            self.full.set()

    def lost(self) -> None:
        """Count one that is out."""
        self._in -= 1
        self.full.clear()
        self.hurt.set()


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def main(count: int, room_count: int, addresses: list[str]) -> None:
    """Join, be lost, come back, and tell."""
    storm = Storm(count, room_count, addresses)
    began_s = time.monotonic()
    for number, session in enumerate(storm.sessions):
        storm.connect(session)
        if number % 20 == 19:
            await asyncio.sleep(0.02)
    await storm.full.wait()
    _say(joined=count, took_s=time.monotonic() - began_s)
    await storm.hurt.wait()
    try:
        async with asyncio.timeout(GIVE_UP_S):
            await storm.full.wait()
    except TimeoutError:
        pass
    back = sorted(s.back_at_s - s.lost_at_s for s in storm.sessions if s.lost_at_s and s.is_in)
    began_s = min(s.lost_at_s for s in storm.sessions if s.lost_at_s)
    _say(
        lost=sum(s.lost_at_s > 0 for s in storm.sessions),
        back=len(back),
        all_back_s=max(s.back_at_s for s in storm.sessions) - began_s,
        p50_s=back[len(back) // 2],
        p99_s=back[len(back) * 99 // 100],
        resyncs=sum(s.resyncs for s in storm.sessions),
        refusals=sum(s.refusals for s in storm.sessions),
    )
    await asyncio.Event().wait()


if __name__ == "__main__":
    die_with_parent(os.getppid())
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
