"""Why a room does not get on, in words, for every list and page alike."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from innkeeper import keys
from innkeeper.address import Address, parse_address
from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisReplied
from innkeeper.keys import RoomKeys, room_keys
from innkeeper.operator.survey import SPOILED, RoomRow, ask, loads, processes, server_s
from innkeeper.topology import Commands

BEHIND_S: Final = 2.0
"""An owned room whose oldest event waits for longer than this is stuck."""

_MOST_LOOKED_INTO: Final = 500
_TYPES: Final = {
    "inbox": "stream", "lock": "string", "meta": "hash", "state": "hash", "members": "hash", "sessions": "hash",
    "timers": "hash", "outlog": "stream", "outbox": "stream", "dead": "stream",
}  # fmt: skip
_META: Final = ("cursor", "version", "epoch", "last")
_SESSIONS: Final = ("#", "@")
_NUMBER: Final = re.compile(rb"\d+(-\d+)?")


@dataclass(frozen=True, slots=True)
class House:
    """Who is there to serve rooms.

    Attributes:
        alive: Incarnations of workers with a recent heartbeat.
        served: Kinds that they serve; None where that is not known yet.
        slow: What runs for long in which room, in words.
    """

    alive: frozenset[str]
    served: frozenset[str] | None
    slow: Mapping[str, str] = field(default_factory=dict)

    def serves(self, kind: str) -> bool:
        """Return whether some living worker serves a kind, as far as is known."""
        return bool(self.alive) and (self.served is None or kind in self.served)


async def house(link: Commands) -> House:
    """Return who is there."""
    alive = frozenset(worker.name for worker in await processes(link, keys.WORKERS) if not worker.is_silent)
    rows = await loads(link)
    told = [rows[name] for name in alive if name in rows]
    served = frozenset(kind for load in told for kind in load.kinds)
    now_ms = await server_s(link) * 1000
    slow = {
        room: f"event {iseq} ({kind}) for {max(0, now_ms - since_ms) / 1000:.1f} s so far"
        for load in told
        for room, (iseq, kind, since_ms) in load.slow.items()
    }
    return House(alive, served if len(told) == len(alive) else None, slow)


async def reasons(link: Commands, found: Sequence[RoomRow], there: House) -> list[str]:
    """Return for each room why it is stuck, empty where it is not; the keys of those that are, are looked into."""
    texts = [_why(row, there) for row in found]
    stuck = [n for n, text in enumerate(texts) if text and found[n].error in ("", SPOILED)][:_MOST_LOOKED_INTO]
    for n, why in zip(stuck, await spoiled(link, [parse_address(found[n].room) for n in stuck]), strict=True):
        if why:
            texts[n] = f"no worker can serve it: {why}. Put that right, or destroy the room"
    return texts


async def spoiled(link: Commands, rooms: Sequence[Address]) -> list[str]:
    """Return for each room what somebody has put under its keys that is none of Innkeeper's; empty: nothing."""
    commands: list[Command] = []
    for room in rooms:
        at = room_keys(room)
        commands += [("TYPE", getattr(at, part)) for part in _TYPES]
        commands += [("HMGET", at.meta, *_META), ("HMGET", at.sessions, *_SESSIONS)]
    replies = await ask(link, commands, spoiled=True)
    each = len(_TYPES) + 2
    return [_spoiled(room_keys(room), replies[each * n : each * (n + 1)]) for n, room in enumerate(rooms)]


def _spoiled(at: RoomKeys, replies: list[Reply]) -> str:
    for (part, wanted), reply in zip(_TYPES.items(), replies, strict=False):
        if (kind := reply.decode()) not in (wanted, "none"):
            return f"{getattr(at, part)} is a {kind}, not a {wanted}"
    for key, names, values in ((at.meta, _META, replies[-2]), (at.sessions, _SESSIONS, replies[-1])):
        for name, value in zip(names, [] if isinstance(values, RedisReplied) else values, strict=False):
            if value is not None and _NUMBER.fullmatch(value) is None:
                return f"{name} in {key} is {value.decode(errors='replace')!r}, no number"
    return ""


def _why(row: RoomRow, there: House) -> str:
    if row.error or not row.lag:
        return f"it does not start: {row.error}" if row.error else ""
    events = f"{row.lag} event(s), the oldest {row.lag_s:.1f} s old"
    kind = row.room.partition("/")[0]
    if not row.owner:
        return f"{events}, {_why_ownerless(row, kind, there)}"
    if row.owner not in there.alive:
        return f"{events}; its owner {row.owner} is silent: another takes over when the lease ends"
    if row.lag_s <= BEHIND_S:
        return ""
    if row.strikes:
        return f"{events}; {row.strikes} worker(s) died of the next one, it seems: it runs alone at {row.owner}"
    which = f": that of {there.slow[row.room]}" if row.room in there.slow else f", see `room {row.room}`"
    return f"{events}; its owner {row.owner} lives: a handler is slow or waits{which}"


def _why_ownerless(row: RoomRow, kind: str, there: House) -> str:
    if not there.alive:
        return "wait for an owner: no worker is alive"
    if not there.serves(kind):
        return f"wait for an owner: no living worker serves {kind!r}"
    if row.is_woken:
        return f"wait for an owner in inn:wake:{kind}: the workers that serve {kind!r} are full or busy, see `workers`"
    return "have no owner, and nobody was woken (the sweep does it within seconds; `wake` at once)"
