"""One room, with everything that its keys say."""

import time
from dataclasses import dataclass
from typing import Any, Final

import orjson

from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisReplied
from innkeeper.keys import room_keys
from innkeeper.operator.survey import RoomRow, ask, rows
from innkeeper.topology import Commands
from innkeeper.wire import parse_id

_SHOWN: Final = 10
_TEXT_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class RoomDetail:
    """One room.

    Attributes:
        row: As in a list.
        lock: ``worker:token`` with what is left of the lease in ms; empty and 0 without an owner.
        meta: The hash ``meta`` as it stands.
        state: Key to value; values larger than 200 characters are cut in the middle.
        state_bytes: Of all keys and values.
        members: By connection: join, user, edge, session, state, tags, up.
        timers: By name: due (Unix s), fired, payload.
        outputs: The newest ten of the outlog: id, header, body.
        inbox: The first ten events not yet committed: id, type, connection, data.
        outbox: How much it owes to others.
        dead: The newest ten events put aside: entry, id, type, connection, error.
    """

    row: RoomRow
    lock: str
    lease_ms: int
    meta: dict[str, str]
    state: dict[str, Any]
    state_bytes: int
    members: dict[str, dict[str, Any]]
    timers: dict[str, dict[str, Any]]
    outputs: list[dict[str, str]]
    inbox: list[dict[str, str]]
    outbox: int
    dead: list[dict[str, str]]

    @property
    def last_error(self) -> str:
        """Why it does not start, or the error of the newest event that still lies put aside; empty: neither."""
        if "error" in self.meta or not self.dead:
            return self.meta.get("error", "")
        at = time.strftime("%F %T", time.localtime(float(self.dead[0]["at_s"])))
        return f"{self.dead[0].get('error', '')} ({at})"

    @property
    def exists(self) -> bool:
        """Whether there is such a room at all."""
        return bool(self.meta or self.row.lag or self.inbox or self.state)


async def detail(link: Commands, room: Address) -> RoomDetail:
    """Return what a room's keys say, each read for itself: commits may come in between."""
    at = room_keys(room)
    (row,) = await rows(link, [room])
    lock, left_ms, meta, state, members, timers, outputs, outbox, dead = await _sound(
        link,
        [
            ("GET", at.lock),
            ("PTTL", at.lock),
            ("HGETALL", at.meta),
            ("HGETALL", at.state),
            ("HGETALL", at.members),
            ("HGETALL", at.timers),
            ("XREVRANGE", at.outlog, "+", "-", "COUNT", _SHOWN),
            ("XLEN", at.outbox),
            ("XREVRANGE", at.dead, "+", "-", "COUNT", _SHOWN),
        ],
    )
    facts = {name: value.decode(errors="replace") for name, value in _pairs(meta).items()}
    (inbox,) = await _sound(link, [("XRANGE", at.inbox, f"{_cursor(facts) + 1}-0", "+", "COUNT", _SHOWN)])
    return RoomDetail(
        row=row,
        lock=lock.decode() if lock else "",
        lease_ms=max(0, left_ms),
        meta=facts,
        state={name: _shown(value) for name, value in _pairs(state).items()},
        state_bytes=sum(map(len, state)),
        members={name: _member(value) for name, value in sorted(_pairs(members).items())},
        timers={name: _timer(value) for name, value in sorted(_pairs(timers).items())},
        outputs=[{"id": entry.decode(), **_entry(fields, {"h": "header", "d": "body"})} for entry, fields in outputs],
        inbox=[
            {"id": entry.decode(), **_entry(fields, {"t": "type", "c": "connection", "d": "data"})}
            for entry, fields in inbox
        ],
        outbox=outbox,
        dead=[dead_row(entry, fields) for entry, fields in dead],
    )


async def _sound(link: Commands, commands: list[Command]) -> list[Reply]:
    """Send commands; what somebody has put something else under looks empty, and the room's row says so."""
    empty: dict[str, Reply] = {"GET": None, "PTTL": 0, "XLEN": 0}
    replies = await ask(link, commands, spoiled=True)
    return [
        empty.get(str(command[0]), []) if isinstance(reply, RedisReplied) else reply
        for command, reply in zip(commands, replies, strict=True)
    ]


def _cursor(meta: dict[str, str]) -> int:
    cursor = meta.get("cursor", "0")
    return int(cursor) if cursor.isdecimal() and cursor.isascii() else 0


def dead_row(entry: bytes, fields: list[bytes]) -> dict[str, str]:
    """Return one dead event: ``entry`` is its id in the dead stream, ``id`` the one it had in the inbox."""
    return {"entry": entry.decode(), "at_s": f"{parse_id(entry)[0] / 1000:.0f}", **_entry(fields, {})}


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _entry(flat: list[bytes], names: dict[str, str]) -> dict[str, str]:
    found = _pairs(flat)
    wanted = names or {name: name for name in found}
    return {shown: found[name].decode(errors="replace") for name, shown in wanted.items() if name in found}


def _member(value: bytes) -> dict[str, Any]:
    row = _object(value)
    return {"join": 0, "user": ["", ""], "edge": "", "session": "", "state": None} | row


def _timer(value: bytes) -> dict[str, Any]:
    row = _object(value)
    return {"due": row.get("due", 0) / 1000, "fired": row.get("fired", False), "payload": row.get("payload")}


def _object(value: bytes) -> dict[str, Any]:
    """Return a row; one that somebody has spoiled by hand is shown, too."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"state": cut(value), "payload": cut(value)}


def cut(value: bytes, characters: int = _TEXT_CHARACTERS) -> str:
    """Return a value as text, without its middle where it is long."""
    text = value.decode(errors="replace")
    if len(text) <= characters:
        return text
    half = characters // 2
    return f"{text[:half]} … {text[-half:]} ({len(value)} bytes)"


def _shown(value: bytes) -> Any:
    text = cut(value)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
