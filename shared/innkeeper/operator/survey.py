"""The rooms, workers and edges of a Redis, as rows.

Rooms are found by the indexes (of workers, edges, rooms awake, timers, outboxes, wake queues): a room at rest that has
no socket, no timer and owes nothing stands in none of them, and can be asked for by its name only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from innkeeper import keys
from innkeeper.address import Address, InvalidAddress, parse_address
from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisReplied
from innkeeper.functions import ROOM_SHARDS
from innkeeper.keys import room_keys
from innkeeper.load import Load, read_loads
from innkeeper.topology import Commands
from innkeeper.wire import parse_id

AT_ONCE: Final = 500
SILENT_S: Final = 1.5
"""A worker or edge whose last heartbeat is older than this is as good as gone."""


@dataclass(frozen=True, slots=True)
class RoomRow:
    """One room, as far as a list shows it.

    Attributes:
        room: ``kind/name``.
        owner: Incarnation of the worker that holds its lock; empty: none.
        lag: Events that are accepted and not committed.
        lag_s: Age of the oldest of them, seconds.
        members: How many are in.
        is_woken: Whether it stands in its kind's wake queue.
        error: Why it does not start; empty where it does.
        accepted: Events accepted since it was created; two readings make a rate.
        strikes: How many workers seem to have died of its next event.
    """

    room: str
    owner: str
    lag: int
    lag_s: float
    members: int
    is_woken: bool
    error: str
    accepted: int
    strikes: int = 0


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One worker or edge: its incarnation, the age of its last heartbeat (s), and how many rooms it has."""

    name: str
    silent_s: float
    rooms: int

    @property
    def is_silent(self) -> bool:
        """Whether it gives no sign of life."""
        return self.silent_s > SILENT_S


@dataclass(frozen=True, slots=True)
class Totals:
    """The whole, in numbers: of rooms that some index names."""

    rooms: int
    owned: int
    waiting: int
    workers: int
    edges: int
    kinds: tuple[str, ...]
    counters: dict[str, int]
    deaths: int


async def server_s(link: Commands) -> float:
    """Return the server's time, Unix seconds."""
    seconds, micros = await link.call("TIME")
    return int(seconds) + int(micros) / 1_000_000


async def ask(link: Commands, commands: Sequence[Command], *, spoiled: bool = False) -> list[Reply]:
    """Send many commands in bounded pieces; an error reply raises.

    Args:
        link: To Redis.
        commands: What to send.
        spoiled: Return the errors of keys that are of another type: somebody's hand has made them so.

    Raises:
        RedisReplied: The first error, such as a command that this user may not use.
    """
    replies: list[Reply] = []
    for at in range(0, len(commands), AT_ONCE):
        replies += await link.send(commands[at : at + AT_ONCE])
    for reply in replies:
        if isinstance(reply, RedisReplied) and not (spoiled and str(reply).startswith("WRONGTYPE")):
            raise reply
    return replies


async def processes(link: Commands, registry: str) -> list[ProcessRow]:
    """Return the workers or edges that are registered, by name."""
    now_ms = await server_s(link) * 1000
    flat = await link.call("ZRANGE", registry, 0, -1, "WITHSCORES")
    named = {name.decode(): float(beaten_ms) for name, beaten_ms in zip(flat[::2], flat[1::2], strict=True)}
    index = keys.worker_rooms if registry == keys.WORKERS else keys.edge_rooms
    counts = await ask(link, [("SCARD", index(name)) for name in sorted(named)])
    return [
        ProcessRow(name, max(0.0, (now_ms - named[name]) / 1000), count)
        for name, count in zip(sorted(named), counts, strict=True)
    ]


async def loads(link: Commands) -> dict[str, Load]:
    """Return what workers last told of what they have to do, by incarnation."""
    (flat,) = await ask(link, [("HGETALL", keys.LOAD)])
    return read_loads(dict(zip(flat[::2], flat[1::2], strict=True)))


async def kinds(link: Commands) -> list[str]:
    """Return the kinds that a worker ever served."""
    return sorted(name.decode() for name in await link.call("HKEYS", keys.KINDS))


async def waiting(link: Commands, also: Iterable[str] = ()) -> set[str]:
    """Return the rooms that stand in a wake queue: of the kinds that were ever served, and of others named."""
    wanted = sorted({*await kinds(link), *also})
    queues = await ask(link, [("ZRANGE", keys.wake_queue(kind), 0, -1) for kind in wanted], spoiled=True)
    return {name.decode(errors="replace") for queue in queues if _is_sound(queue) for name in queue}


async def addresses(link: Commands) -> list[Address]:
    """Return every room that an index names, in order."""
    workers = await link.call("ZRANGE", keys.WORKERS, 0, -1)
    edges = await link.call("ZRANGE", keys.EDGES, 0, -1)
    commands: list[Command] = [("SMEMBERS", keys.worker_rooms(name.decode())) for name in workers]
    commands += [("SMEMBERS", keys.edge_rooms(name.decode())) for name in edges]
    for index in (keys.room_index, keys.timer_index, keys.outbox_index):
        commands += [("ZRANGE", index(shard), 0, -1) for shard in range(ROOM_SHARDS)]
    replies = await ask(link, commands, spoiled=True)
    found = read_rooms({name.decode(errors="replace") for reply in replies if _is_sound(reply) for name in reply})
    return sorted({*found, *read_rooms(await waiting(link, {room.kind for room in found}))})


def read_rooms(names: Iterable[str]) -> list[Address]:
    """Return the rooms among names out of an index."""
    found = []
    for name in names:
        try:
            found.append(parse_address(name))
        except InvalidAddress:
            continue  # somebody else's hand; doctor tells of it
    return found


async def rows(link: Commands, rooms: Sequence[Address]) -> list[RoomRow]:
    """Return what a list shows of rooms, in the order given."""
    now_s, woken = await server_s(link), await waiting(link, {room.kind for room in rooms})
    commands: list[Command] = []
    for room in rooms:
        at = room_keys(room)
        commands += (
            ("GET", at.lock),
            ("HMGET", at.sessions, "#", "@"),
            ("HMGET", at.meta, "error", "cursor", "strikes"),
            ("HLEN", at.members),
        )
    replies = await ask(link, commands, spoiled=True)
    found = [
        _Read(room, *replies[4 * n : 4 * n + 4]) if all(map(_is_sound, replies[4 * n : 4 * n + 4])) else None
        for n, room in enumerate(rooms)
    ]
    behind = [read for read in found if read is not None and read.lag]
    heads = await ask(
        link,
        [
            ("XRANGE", room_keys(room).inbox, f"{_int(meta[1]) + 1}-0", "+", "COUNT", 1)
            for room, _, _, meta, _ in behind
        ],
        spoiled=True,
    )
    since_s = {
        read.room: now_s - parse_id(head[0][0])[1] / 1_000_000
        for read, head in zip(behind, heads, strict=True)
        if head and _is_sound(head)
    }
    return [
        RoomRow(str(room), "", 0, 0.0, 0, is_woken=str(room) in woken, error=SPOILED, accepted=0)
        if read is None
        else RoomRow(
            room=str(room),
            owner=read.lock.decode(errors="replace").split(":")[0] if read.lock else "",
            lag=read.lag,
            lag_s=max(0.0, since_s.get(room, 0.0)),
            members=read.members,
            is_woken=str(room) in woken,
            error=(read.meta[0] or b"").decode(errors="replace"),
            accepted=_int(read.counts[0]),
            strikes=_int(read.meta[2]),
        )
        for room, read in zip(rooms, found, strict=True)
    ]


SPOILED: Final = "somebody has put something else under its keys (WRONGTYPE)"


class _Read(NamedTuple):
    """What was read of a room: lock, '#' and '@' of sessions, error, cursor and strikes of meta, how many are in."""

    room: Address
    lock: bytes | None
    counts: list[bytes | None]
    meta: list[bytes | None]
    members: int

    @property
    def lag(self) -> int:
        return max(0, _int(self.counts[0]) - _int(self.counts[1]))


def _is_sound(reply: Reply) -> bool:
    return not isinstance(reply, RedisReplied)


def _int(value: bytes | None) -> int:
    """Return a number of Redis'; 0 where there is none, or something that somebody wrote by hand."""
    return int(value) if value is not None and value.isdigit() else 0


async def counters(link: Commands) -> dict[str, int]:
    """Return what went wrong, by name, since the counters were made."""
    flat = await link.call("HGETALL", keys.COUNTERS)
    return {name.decode(errors="replace"): _int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}


async def totals(link: Commands) -> Totals:
    """Return the whole in numbers."""
    workers = await processes(link, keys.WORKERS)
    known = await addresses(link)
    return Totals(
        rooms=len(known),
        owned=sum(worker.rooms for worker in workers),
        waiting=len(await waiting(link, {room.kind for room in known})),
        workers=len(workers),
        edges=await link.call("ZCARD", keys.EDGES),
        kinds=tuple(await kinds(link)),
        counters=await counters(link),
        deaths=sum(not name.startswith(b"~") for name in await link.call("ZRANGE", keys.DEATHS, 0, -1)),
    )
