"""What is wrong with the rooms of a Redis, and the hand that mends it. Everything it does is what a sweep would do."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import orjson

from innkeeper import functions, keys
from innkeeper.address import Address, InvalidAddress, parse_address
from innkeeper.errors import RedisReplied
from innkeeper.functions import ROOM_SHARDS
from innkeeper.functions.library import NAME
from innkeeper.keys import room_keys
from innkeeper.operator.survey import RoomRow, addresses, ask, processes, rows, trouble
from innkeeper.server_settings import warnings_about
from innkeeper.topology import Commands
from innkeeper.waking import wake

_SETTINGS: Final = ("save", "appendfsync", "client-output-buffer-limit", "maxmemory-policy")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        where: A room, a key, or ``redis``.
        what: In words.
        mend: Does something about it, and says what it did; None where only a person can.
    """

    where: str
    what: str
    mend: Callable[[], Awaitable[str]] | None = None


async def examine(link: Commands) -> list[Finding]:
    """Return all that is wrong; nothing is changed."""
    workers = await processes(link, keys.WORKERS)
    alive = {worker.name for worker in workers if not worker.is_silent}
    edges = {edge.name for edge in await processes(link, keys.EDGES)}
    rooms = await rows(link, await addresses(link))
    found = await _settings(link)
    if not alive:
        found.append(Finding("inn:workers", "no worker is alive: no room is served"))
    for worker in workers:
        if worker.is_silent:
            found.append(Finding(f"worker {worker.name}", f"silent for {worker.silent_s:.1f} s; others take its rooms"))
    found += await _indexes(link)
    found += [finding for row in rooms for finding in _room(link, row, alive)]
    found += await _ghosts(link, [row for row in rooms if row.members], edges)
    found += await _dead(link, rooms)
    return found


def _room(link: Commands, row: RoomRow, alive: set[str]) -> list[Finding]:
    why = trouble(row, alive)
    if not why:
        return []
    needs_waking = not row.error and not row.owner

    async def mend() -> str:
        await wake(link, [parse_address(row.room)])
        return "woken"

    return [Finding(row.room, why, mend if needs_waking else None)]


async def _indexes(link: Commands) -> list[Finding]:
    """Find names in the indexes that are no rooms, and rooms in a worker's set that it does not own."""
    found: list[Finding] = []
    names = [
        index(shard) for index in (keys.room_index, keys.timer_index, keys.outbox_index) for shard in range(ROOM_SHARDS)
    ]
    for name, members in zip(names, await ask(link, [("ZRANGE", name, 0, -1) for name in names]), strict=True):
        strange = [member for member in members if not _is_room(member.decode(errors="replace"))]
        found += [_stale(link, "ZREM", name, member, "is no room") for member in strange]
    for worker in await processes(link, keys.WORKERS):
        name = keys.worker_rooms(worker.name)
        members = sorted(await link.call("SMEMBERS", name))
        good = [member for member in members if _is_room(member.decode(errors="replace"))]
        locks = await ask(link, [("GET", room_keys(parse_address(member.decode())).lock) for member in good])
        for member, lock in zip(good, locks, strict=True):
            if lock is not None and lock.decode().split(":")[0] != worker.name:
                found.append(_stale(link, "SREM", name, member, f"is owned by {lock.decode().split(':')[0]}"))
        found += [_stale(link, "SREM", name, member, "is no room") for member in sorted(set(members) - set(good))]
    return found


def _stale(link: Commands, command: str, key: str, member: bytes, why: str) -> Finding:
    async def mend() -> str:
        await link.call(command, key, member)
        return "entry removed"

    return Finding(key, f"its entry {member.decode(errors='replace')!r} {why}", mend)


def _is_room(text: str) -> bool:
    try:
        parse_address(text)
    except InvalidAddress:
        return False
    return True


async def _ghosts(link: Commands, with_members: list[RoomRow], edges: set[str]) -> list[Finding]:
    """Find members whose edge is gone and never was reaped: they would stay for ever."""
    found = []
    hashes = await ask(link, [("HVALS", room_keys(parse_address(row.room)).members) for row in with_members])
    for row, members in zip(with_members, hashes, strict=True):
        room = parse_address(row.room)
        gone: dict[str, int] = {}
        for text in members:
            member = orjson.loads(text)
            if member["edge"] not in edges and member.get("up", True):
                gone[member["edge"]] = gone.get(member["edge"], 0) + 1
        found += [
            Finding(
                row.room, f"{count} member(s) of edge {edge}, which is not there any more", _reaper(link, room, edge)
            )
            for edge, count in sorted(gone.items())
        ]
    return found


def _reaper(link: Commands, room: Address, edge: str) -> Callable[[], Awaitable[str]]:
    async def mend() -> str:
        (reply,) = await ask(link, [functions.reap_edge(room_keys(room), edge=edge)])
        _, lock, receivers = functions.read_reaped(reply)
        if not lock or not receivers:
            await wake(link, [room])
        return "their leaves are on the way"

    return mend


async def _dead(link: Commands, rooms: list[RoomRow]) -> list[Finding]:
    """Find rooms with events put aside, and rooms whose keys somebody changed."""
    commands = []
    for row in rooms:
        at = room_keys(parse_address(row.room))
        commands += [("XLEN", at.dead), ("HGET", at.meta, "contradictions")]
    replies = await ask(link, commands)
    found = []
    for row, count, contradictions in zip(rooms, replies[::2], replies[1::2], strict=True):
        if count:
            found.append(Finding(row.room, f"{count} event(s) put aside: innkeeper dead list {row.room}"))
        if contradictions:
            what = f"{int(contradictions)} contradiction(s): somebody has deleted or changed its keys"
            found.append(Finding(row.room, what))
    return found


async def _settings(link: Commands) -> list[Finding]:
    found = []
    for primary in link.primaries():
        info, flat, libraries = await primary.send(
            (("INFO", "persistence"), ("CONFIG", "GET", *_SETTINGS), ("FUNCTION", "LIST", "LIBRARYNAME", "inn_*"))
        )
        config = {}
        if not isinstance(flat, RedisReplied):
            config = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
        text = "" if isinstance(info, RedisReplied) else info.decode()
        found += [Finding("redis", warning) for warning in warnings_about(text, config)]
        if config.get("maxmemory-policy", "noeviction") != "noeviction":
            found.append(
                Finding("redis", f"maxmemory-policy {config['maxmemory-policy']}: an evicted key is a lost room")
            )
        if not isinstance(libraries, RedisReplied):
            names = {library[1].decode() for library in libraries}
            if names and NAME not in names:
                found.append(Finding("redis", f"has the functions of other versions only ({', '.join(sorted(names))})"))
            if not names:
                found.append(Finding("redis", "no functions are loaded: no worker of any version has started here"))
    return found
