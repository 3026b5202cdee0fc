"""What is wrong with the rooms of a Redis, and the hand that mends it. Everything it does is what a sweep would do."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from innkeeper import functions, keys
from innkeeper.address import Address, InvalidAddress, parse_address
from innkeeper.errors import RedisReplied
from innkeeper.functions import ROOM_SHARDS
from innkeeper.functions.library import NAME
from innkeeper.keys import room_keys
from innkeeper.operator.buried import put_aside
from innkeeper.operator.reasons import House, house, reasons
from innkeeper.operator.survey import ProcessRow, RoomRow, addresses, ask, kinds, processes, rows
from innkeeper.server_settings import SETTINGS, warnings_about
from innkeeper.topology import Commands
from innkeeper.waking import wake

if TYPE_CHECKING:
    from innkeeper.channel import Command

_INDEXES: Final = (keys.room_index, keys.timer_index, keys.outbox_index, keys.dead_index)
_NEARLY_FULL: Final = 0.95
_LOOKS_AGAIN: Final = 6
NOT_MENDED: Final = "not mended"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        where: A room, a key, or ``redis``.
        what: In words.
        mend: Does something about it, and says what it did; None where only a person can.
        about: What of that place is wrong: the same, as long as it is not mended.
    """

    where: str
    what: str
    mend: Callable[[], Awaitable[str]] | None = None
    about: str = ""


async def examine(link: Commands) -> list[Finding]:
    """Return all that is wrong, the whole before single rooms; nothing is changed."""
    there = await house(link)
    workers, edges = await processes(link, keys.WORKERS), await processes(link, keys.EDGES)
    known = await kinds(link)
    rooms = await rows(link, await addresses(link))
    found = await _settings(link)
    if not there.alive:
        found.append(Finding("inn:workers", "no worker is alive: no room is served"))
    if all(edge.is_silent for edge in edges) and any(row.members for row in rooms):
        found.append(Finding("inn:edges", "no edge is alive: nobody reaches a room"))
    found += _silent("worker", "others take its rooms", workers, there)
    found += _silent("edge", "a worker will let its members leave", edges, there)
    found += [
        Finding(f"kind {kind}", "no living worker serves it; if it is gone for good: HDEL inn:kinds")
        for kind in known
        if there.alive and not there.serves(kind)
    ]
    found += await _indexes(link, workers, edges, known)
    found += await _rooms(link, rooms, there)
    found += await _ghosts(link, [row for row in rooms if row.members], {edge.name for edge in edges})
    found += await _owing(link, rooms)
    found += await _dead(link, rooms)
    return found


async def mended(link: Commands, found: list[Finding]) -> list[tuple[Finding, str]]:
    """Mend what can be mended; return what was done about each, beginning with NOT_MENDED where it did not help.

    It looks again until all is well, for three seconds.
    """
    done = [(finding, await finding.mend() if finding.mend is not None else "") for finding in found]
    places = {(finding.where, finding.about) for finding, what in done if what}
    for _ in range(_LOOKS_AGAIN):
        if not places:
            break
        await asyncio.sleep(0.5)
        places &= {(finding.where, finding.about) for finding in await examine(link)}
    return [
        (finding, f"{NOT_MENDED}: {what}" if what and (finding.where, finding.about) in places else what)
        for finding, what in done
    ]


def _silent(role: str, what: str, group: list[ProcessRow], there: House) -> list[Finding]:
    what = what if there.alive else "no worker is alive to see to it"
    return [
        Finding(f"{role} {each.name}", f"silent for {each.silent_s:.1f} s; {what}") for each in group if each.is_silent
    ]


async def _rooms(link: Commands, found: list[RoomRow], there: House) -> list[Finding]:
    """Find rooms that are stuck, and why; whom a worker would take is woken."""

    def waker(row: RoomRow) -> Callable[[], Awaitable[str]]:
        async def mend() -> str:
            await wake(link, [parse_address(row.room)])
            return "woken"

        return mend

    return [
        Finding(
            row.room,
            why,
            waker(row) if why.startswith(f"{row.lag} event") and _wants_waking(row, there) else None,
            about="stuck",
        )
        for row, why in zip(found, await reasons(link, found, there), strict=True)
        if why
    ]


def _wants_waking(row: RoomRow, there: House) -> bool:
    return not row.error and not row.owner and not row.is_woken and there.serves(row.room.partition("/")[0])


async def _indexes(
    link: Commands, workers: list[ProcessRow], edges: list[ProcessRow], known: list[str]
) -> list[Finding]:
    """Find names in the indexes that are no rooms, and rooms in a worker's set that another one owns."""
    found: list[Finding] = []
    names = [index(shard) for index in _INDEXES for shard in range(ROOM_SHARDS)]
    names += [keys.wake_queue(kind) for kind in known]
    sets = [keys.edge_rooms(edge.name) for edge in edges]
    commands: list[Command] = [("ZRANGE", name, 0, -1) for name in names] + [("SMEMBERS", name) for name in sets]
    for name, members in zip([*names, *sets], await ask(link, commands, spoiled=True), strict=True):
        if isinstance(members, RedisReplied):
            found.append(Finding(name, "somebody has put something else under this key (WRONGTYPE): delete it"))
            continue
        strange = [member for member in members if not _is_room(member.decode(errors="replace"))]
        found += [_stale(link, "SREM" if name in sets else "ZREM", name, member, "is no room") for member in strange]
    alive = {worker.name for worker in workers if not worker.is_silent}
    for worker in workers:
        name = keys.worker_rooms(worker.name)
        members = sorted(await link.call("SMEMBERS", name))
        good = [member for member in members if _is_room(member.decode(errors="replace"))]
        locks = await ask(link, [("GET", room_keys(parse_address(member.decode())).lock) for member in good])
        for member, lock in zip(good, locks, strict=True):
            owner = lock.decode(errors="replace").split(":")[0] if lock is not None else ""
            if owner != worker.name and owner in alive:  # else it may just be taking over
                found.append(_stale(link, "SREM", name, member, f"is owned by {owner}"))
        found += [_stale(link, "SREM", name, member, "is no room") for member in sorted(set(members) - set(good))]
    return found


def _stale(link: Commands, command: str, key: str, member: bytes, why: str) -> Finding:
    async def mend() -> str:
        await link.call(command, key, member)
        return "entry removed"

    shown = repr(member.decode(errors="replace"))
    return Finding(key, f"its entry {shown} {why}", mend, about=shown)


def _is_room(text: str) -> bool:
    try:
        parse_address(text)
    except InvalidAddress:
        return False
    return True


async def _ghosts(link: Commands, with_members: list[RoomRow], edges: set[str]) -> list[Finding]:
    """Find members whose edge is gone and never was reaped: they would stay for ever."""
    found = []
    hashes = await ask(link, [("HGETALL", room_keys(parse_address(row.room)).members) for row in with_members])
    for row, flat in zip(with_members, hashes, strict=True):
        room = parse_address(row.room)
        gone: dict[str, int] = {}
        for name, text in zip(flat[::2], flat[1::2], strict=True):
            try:
                member = orjson.loads(text)
                edge, is_up = str(member["edge"]), member.get("up", True)
            except (ValueError, LookupError, TypeError, AttributeError):
                what = f"its member {name.decode(errors='replace')!r} is no row of Innkeeper's: somebody has changed it"
                found.append(Finding(row.room, what))
                continue
            if edge not in edges and is_up:
                gone[edge] = gone.get(edge, 0) + 1
        found += [
            Finding(
                row.room,
                f"{count} member(s) of edge {edge}, which is not there any more",
                _reaper(link, room, edge),
                about=f"ghosts of {edge}",
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


async def _owing(link: Commands, found: list[RoomRow]) -> list[Finding]:
    """Find rooms that owe something to others, and that nobody owns."""
    ownerless = [row for row in found if not row.owner and not row.error]
    counts = await ask(link, [("XLEN", room_keys(parse_address(row.room)).outbox) for row in ownerless], spoiled=True)
    what = "post(s), jobs or moves are not delivered: it has no owner"
    return [
        Finding(row.room, f"{count} {what}")
        for row, count in zip(ownerless, counts, strict=True)
        if count and not isinstance(count, RedisReplied)
    ]


async def _dead(link: Commands, found: list[RoomRow]) -> list[Finding]:
    """Find rooms with events put aside, also those at rest, and rooms whose keys somebody changed."""
    # Those of a version without that index are found where their rooms stand in another one.
    lengths = await ask(link, [("XLEN", room_keys(parse_address(row.room)).dead) for row in found], spoiled=True)
    counts = {row.room: count for row, count in zip(found, lengths, strict=True) if isinstance(count, int)}
    findings = [
        Finding(room, f"{count} event(s) put aside: innkeeper dead list {room}")
        for room, count in sorted((counts | await put_aside(link)).items())
        if count
    ]
    metas = await ask(
        link, [("HGET", room_keys(parse_address(row.room)).meta, "contradictions") for row in found], spoiled=True
    )
    findings += [
        Finding(row.room, f"{meta.decode(errors='replace')} contradiction(s): somebody has deleted or changed its keys")
        for row, meta in zip(found, metas, strict=True)
        if meta is not None and not isinstance(meta, RedisReplied)
    ]
    return findings


async def _settings(link: Commands) -> list[Finding]:
    found = []
    for primary in link.primaries():
        info, memory, flat, libraries = await primary.send(
            (
                ("INFO", "persistence"), ("INFO", "memory"), ("CONFIG", "GET", *SETTINGS, "maxmemory-policy"),
                ("FUNCTION", "LIST", "LIBRARYNAME", "inn_*"),
            )
        )  # fmt: skip
        config = {}
        if not isinstance(flat, RedisReplied):
            config = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
        text = "" if isinstance(info, RedisReplied) else info.decode()
        found += [Finding("redis", warning) for warning in warnings_about(text, config)]
        if isinstance(memory, bytes) and (full := _fullness(memory.decode())):
            found.append(Finding("redis", full))
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


def _fullness(memory: str) -> str:
    """Return in words that the memory section of INFO shows a server that is nearly full; empty where it is not."""
    facts = dict(re.findall(r"^(used_memory|maxmemory):(\d+)", memory, re.MULTILINE))
    used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if not most or used < _NEARLY_FULL * most:
        return ""
    mib = 1 << 20
    return (
        f"{used / mib:.0f} of {most / mib:.0f} MiB are used (maxmemory): when it is full nobody joins and nothing is "
        "accepted. Raise it, or delete something"
    )
