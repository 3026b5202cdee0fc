"""The acts on one room, one awaitable call each, with the defaults that tests share; and looks into its keys."""

import random
from collections.abc import Sequence
from typing import Any

from harness.house import until
from innkeeper import functions
from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.functions import Claimed, Committed, Held, Pushed, PushEvent, Released
from innkeeper.keys import room_keys
from innkeeper.redis_client import Connect, Link
from innkeeper.subscriber import Subscriber
from innkeeper.turn import Turn
from innkeeper.wire import Batch, read_batch

LEASE_MS = 60_000
WINDOW_MS = 600_000


def text(connection: str = "c1", data: bytes = b"{}") -> PushEvent:
    """Return a raw text message."""
    return PushEvent("text", connection, data)


def join(connection: str = "c1") -> PushEvent:
    """Return a raw join."""
    return PushEvent("join", connection, b'{"user":["u","u"]}')


def leave(connection: str = "c1") -> PushEvent:
    """Return a raw leave."""
    return PushEvent("leave", connection, b"")


def session(
    kind: str, *, number: int = 0, generation: int = 1, name: str = "s1", data: bytes | None = None
) -> PushEvent:
    """Return an event of a session."""
    data = (b"" if kind == "leave" else b"{}") if data is None else data
    return PushEvent(kind, f"c-{name}", data, name, number, generation)


def new_mark() -> int:
    """Return a mark for a claim."""
    return random.randrange(1, 2**48)


class RoomActs:
    """One room as edges and workers act on it."""

    def __init__(self, link: Link, address: Address) -> None:
        self.link = link
        self.address = address
        self.keys = room_keys(address)
        self.batch = 0

    async def ask(self, command: Command) -> Reply:
        """Send one command; an error reply is returned, not raised."""
        return (await self.link.send((command,)))[0]

    async def server_ms(self) -> int:
        """Return the server's time."""
        seconds, micros = await self.link.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    # --- the acts -------------------------------------------------------------------------------------------------
    async def push(
        self,
        *events: PushEvent,
        edge: str = "e1",
        batch: int | None = None,
        age_ms: int = 0,
        backlog_count: int = 10_000,
    ) -> Pushed:
        """Push a batch; each call without ``batch`` is a new one."""
        if batch is None:
            self.batch += 1
            batch = self.batch
        heartbeat_ms = await self.server_ms() - age_ms
        command = functions.push(
            self.keys, edge=edge, batch=batch, heartbeat_ms=heartbeat_ms, backlog_count=backlog_count, events=events
        )
        return functions.read_pushed(await self.ask(command))

    async def claim(
        self, *, worker: str = "w1", mark: int | None = None, lease_ms: int = LEASE_MS, seen: bytes = b"", own: int = 0
    ) -> Claimed | Held:
        """Claim the room."""
        command = functions.claim(
            self.keys,
            worker=worker,
            mark=new_mark() if mark is None else mark,
            lease_ms=lease_ms,
            seen=seen,
            own_subscriptions=own,
        )
        return functions.read_claimed(await self.ask(command))

    async def own(self, worker: str = "w1", mark: int | None = None, seen: bytes = b"") -> Claimed:
        """Claim the room, which must succeed."""
        claimed = await self.claim(worker=worker, mark=mark, seen=seen)
        assert isinstance(claimed, Claimed)
        return claimed

    async def commit(
        self,
        claimed: Claimed | str,
        version: int,
        turn: Turn,
        *,
        worker: str = "w1",
        lease_ms: int = 0,
        keep: int = 0,
        created: bool = True,
        tries: bool = False,
    ) -> Committed | str:
        """Commit a turn."""
        token = claimed if isinstance(claimed, str) else claimed.token
        shown_bytes = int(await self.link.call("HGET", self.keys.meta, "bytes") or 0)
        command = functions.commit(
            self.keys,
            token=token,
            version=version,
            worker=worker,
            lease_ms=lease_ms,
            keep_outputs=keep,
            turn=turn,
            shown_bytes=shown_bytes,
            created=created,
            tries=tries,
        )
        return functions.read_committed(await self.ask(command))

    async def done(
        self,
        claimed: Claimed,
        version: int,
        turn: Turn,
        *,
        keep: int = 0,
        created: bool = True,
        tries: bool = False,
    ) -> Committed:
        """Commit a turn, which must succeed."""
        committed = await self.commit(claimed, version, turn, keep=keep, created=created, tries=tries)
        assert isinstance(committed, Committed), committed
        return committed

    async def release(self, claimed: Claimed, *, worker: str = "w1", force: bool = False) -> Released:
        """Release the room."""
        command = functions.release(self.keys, token=claimed.token, worker=worker, force=force, window_ms=WINDOW_MS)
        return functions.read_released(await self.ask(command))

    async def renew(self, claimed: Claimed, *, worker: str = "w1", lease_ms: int = LEASE_MS) -> int | None:
        """Renew the lease."""
        command = functions.renew(self.keys, token=claimed.token, worker=worker, lease_ms=lease_ms)
        return functions.read_renewed(await self.ask(command))

    async def reap(self, edge: str) -> bool:
        """Reap an edge in this room; say whether an event was appended."""
        return functions.read_reaped(await self.ask(functions.reap_edge(self.keys, edge=edge)))[0]

    # --- looks ----------------------------------------------------------------------------------------------------
    async def hash(self, part: str) -> dict[str, str]:
        """Return a hash of the room, ``part`` being a field of RoomKeys."""
        flat = await self.link.call("HGETALL", getattr(self.keys, part))
        return {k.decode(): v.decode() for k, v in zip(flat[::2], flat[1::2], strict=True)}

    async def stream(self, part: str) -> list[tuple[str, dict[str, bytes]]]:
        """Return a stream of the room as (id, fields)."""
        entries = await self.link.call("XRANGE", getattr(self.keys, part), "-", "+")
        return [
            (entry_id.decode(), {k.decode(): v for k, v in zip(fields[::2], fields[1::2], strict=True)})
            for entry_id, fields in entries
        ]

    async def ids(self) -> list[bytes]:
        """Return the ids that stand in the inbox."""
        return [entry_id.encode() for entry_id, _ in await self.stream("inbox")]

    async def exist(self) -> set[str]:
        """Return the parts of the room that exist."""
        parts = self.keys._fields
        replies = await self.link.send([("EXISTS", getattr(self.keys, part)) for part in parts])
        return {part for part, found in zip(parts, replies, strict=True) if found}

    async def ttl_ms(self, part: str) -> int:
        """Return the ms a key has left (-1: no expiry, -2: no key)."""
        left: int = await self.link.call("PTTL", getattr(self.keys, part))
        return left

    async def snapshot(self) -> dict[str, Any]:
        """Return all that the room's keys hold, to compare with later."""
        return {
            **{part: await self.hash(part) for part in ("meta", "state", "members", "timers", "sessions")},
            **{part: await self.stream(part) for part in ("inbox", "outlog", "outbox", "dead")},
            "lock": await self.link.call("GET", self.keys.lock),
        }

    def delete(self, *parts: str) -> Command:
        """Return the command that deletes parts of the room, as a careless operator would."""
        return ("DEL", *(getattr(self.keys, part) for part in parts))


class Listener:
    """Sharded subscriptions that keep what they heard."""

    def __init__(self, connect: Connect) -> None:
        self.heard: list[bytes] = []
        self.subscriber = Subscriber(
            connect, on_message=lambda _, body: self.heard.append(body), on_fresh=lambda _: None
        )

    async def subscribe(self, channel: str) -> None:
        """Subscribe, confirmed."""
        await self.subscriber.subscribe(channel)

    async def next(self) -> bytes:
        """Return the next message."""
        await until(lambda: self.heard, "a message comes", timeout_s=5)
        return self.heard.pop(0)

    async def batches(self, last: int) -> list[Batch]:
        """Return the batches heard so far, waiting for the one that ends with output ``last``."""
        await until(lambda: self.heard and read_batch(self.heard[-1]).last >= last, f"output {last} comes", timeout_s=5)
        assert all(len(body) < 16_384 for body in self.heard), (
            "Valkey does not count larger messages (DESIGN section 7)"
        )
        found, self.heard[:] = [read_batch(body) for body in self.heard], []
        return found


def turn_of(ids: Sequence[bytes] = (), *, outputs: Sequence[tuple[bytes, bytes]] = (), **parts: Any) -> Turn:
    """Return a turn that consumes ``ids`` and changes ``parts``."""
    turn = Turn(consumed=list(ids), **parts)
    turn.show(list(outputs))
    return turn
