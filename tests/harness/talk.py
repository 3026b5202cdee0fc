"""Clients that talk without pause through whatever happens to Redis, and the check of what they saw."""

import asyncio
import itertools
import time
from typing import NamedTuple

import orjson
import websockets

from harness.house import Client, House, until

RESYNC = 4512


class Talker:
    """Sends numbered messages into a ledger until stopped or closed."""

    def __init__(self, room: str, client: Client, pause_s: float) -> None:
        self.room = room
        self.client = client
        self.sent_count = 0
        self._pause_s = pause_s
        self._task = asyncio.create_task(self._talk())

    async def _talk(self) -> None:
        for i in itertools.count():
            if self.client.close_code is not None:
                return
            try:
                await self.client.send({"i": i})
            except websockets.ConnectionClosed:
                return
            self.sent_count = i + 1
            await asyncio.sleep(self._pause_s)

    async def stop(self) -> None:
        """Send nothing more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def last_n(self) -> int:
        """The last number of the ledger that came here."""
        numbered = self.client.numbered()
        return numbered[-1][0] if numbered else 0


async def crowd(
    house: House, rooms: list[str], *, each: int = 2, pause_s: float = 0.02, tag: str = "t"
) -> list[Talker]:
    """Put talkers into rooms, spread over the edges."""
    talkers = []
    for number, room in enumerate(rooms):
        for place in range(each):
            name = f"{tag}{number}.{place}"
            client = await house.join(room, edge=place % len(house.edges), name=name)
            await client.expect(lambda f: "welcome" in f, "its welcome")
            talkers.append(Talker(room, client, pause_s))
    return talkers


async def regain(house: House, room: str, tag: str, since_s: float) -> tuple[float, Client]:
    """Join a room and get a message through; return how long that took since a moment, and the client."""
    name = f"{tag}-{room.rpartition('/')[2]}"
    deadline_s = time.monotonic() + 30
    while True:
        try:
            client = await house.join(room, edge=0, name=name)
            await client.send({"i": 0})
            await _sees(client, name, 0)
            if client.close_code is None:
                return time.monotonic() - since_s, client
        except (websockets.WebSocketException, OSError):
            pass
        assert time.monotonic() < deadline_s, f"{room} stays away"
        await asyncio.sleep(0.02)


async def settle(talkers: list[Talker], witnesses: dict[str, Client]) -> None:
    """Stop all talk and wait until everybody who is still connected has seen the same end."""
    await asyncio.gather(*(talker.stop() for talker in talkers))
    for room, witness in witnesses.items():
        quiet = [t for t in talkers if t.room == room and t.client.close_code is None]
        for talker in quiet:
            # The witness may have joined after the last one.
            await _sees(talker.client, talker.client.name, talker.sent_count - 1)
        await witness.send({"i": 1})
        await _sees(witness, witness.name, 1)
        end = witness.numbered()[-1][0]
        for talker in quiet:
            if talker.client.close_code is None:
                await talker.client.numbers(end)


async def _sees(client: Client, name: str, i: int) -> None:
    wanted = (name, i)
    await until(
        lambda: i < 0 or client.close_code is not None or any(entry[1:] == wanted for entry in client.numbered()),
        f"{client.name} sees {wanted}",
        seen=client.got[-3:],
        timeout_s=30,
    )


History = dict[int, tuple[str, int]]


def history_of(outlog: list[tuple[str, dict[str, str]]]) -> History:
    """Return what a room's outlog, as redis-py reads it, says: number of the ledger → (from, i)."""
    frames = [orjson.loads(fields["d"]) for _, fields in outlog if fields["h"].startswith("text *")]
    return {frame["n"]: (frame["from"], frame["i"]) for frame in frames if "n" in frame}


class Verdict(NamedTuple):
    """Sockets that stayed, sockets told to resync, and numbers that somebody had seen and no history holds now."""

    stayed: int
    resynced: int
    revoked: int


def check_one_history(talkers: list[Talker], witnesses: dict[str, Client], stored: dict[str, History]) -> Verdict:
    """Check that every room has one history: what is stored, what all open sockets saw, and no closed one in doubt."""
    stayed = resynced = revoked = 0
    for room, witness in witnesses.items():
        assert witness.close_code is None
        history, here = stored[room], [t for t in talkers if t.room == room]
        for client in (witness, *(t.client for t in here if t.client.close_code is None)):
            numbered = client.numbered()
            numbers = [n for n, _, _ in numbered]
            assert numbers == list(range(numbers[0], numbers[-1] + 1)), f"{room}: {client.name} has a hole"
            assert numbers[-1] == max(history), f"{room}: {client.name} has not seen the end"
            for n, name, i in numbered:
                assert history.get(n, (name, i)) == (name, i), f"{room}: two histories at number {n}"
        for talker in here:
            name = talker.client.name
            kept = [i for _, (sender, i) in sorted(history.items()) if sender == name]
            assert kept == sorted(set(kept)), f"{room}: messages of {name} twice or out of order"
            if talker.client.close_code is None:
                stayed += 1
                heard = [i for _, sender, i in talker.client.numbered() if sender == name]
                assert heard == list(range(talker.sent_count)), f"{room}: {name} lost messages in silence"
            else:
                resynced += 1
                assert talker.client.close_code == RESYNC, f"{room}: {name} closed with {talker.client.close_code}"
                seen = {n: (sender, i) for n, sender, i in talker.client.numbered() if n >= min(history)}
                revoked += sum(history.get(n) != entry for n, entry in seen.items())
    return Verdict(stayed, resynced, revoked)
