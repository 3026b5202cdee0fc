"""One room as the inspector shows it: cut to what fits on a page and is worth sending every second."""

from typing import Any, Final

from innkeeper.address import Address
from innkeeper.inspector.board import Board
from innkeeper.inspector.deeds import Refused
from innkeeper.keys import room_keys
from innkeeper.operator.detail import cut, detail
from innkeeper.topology import Commands

_SHOWN: Final = 200
_TEXT_CHARACTERS: Final = 4_000


async def room_pieces(link: Commands, board: Board, room: Address, *, member: str, key: str) -> dict[str, Any]:
    """Return one room.

    Args:
        link: To Redis.
        board: For the room's events a second, and why it is stuck.
        room: Which.
        member: Only members whose connection or user holds this text.
        key: Only keys of the state that hold this text.

    Returns:
        Of members, state and timers the first 200, and how many there are.
    """
    found = await detail(link, room)
    (seen,) = await board.look_at([room])
    members = {
        name: {"user": row["user"], "edge": row["edge"], "is_session": bool(row["session"]),
               "is_up": row.get("up", True), "state": row["state"], "tags": row.get("tags", [])}
        for name, row in found.members.items()
        if not member or member in name or any(member in part for part in row["user"])
    }  # fmt: skip
    state = {name: value for name, value in found.state.items() if not key or key in name}
    return {
        "row": seen.row,
        "trouble": seen.trouble,
        "events_s": seen.events_s,
        "exists": found.exists,
        "lock": found.lock,
        "lease_ms": found.lease_ms,
        "meta": found.meta,
        "state_bytes": found.state_bytes,
        "outbox": found.outbox,
        "state": _first(state),
        "state_count": len(state),
        "members": _first(members),
        "member_count": len(members),
        "timers": _first(found.timers),
        "timer_count": len(found.timers),
        "inbox": _short(found.inbox),
        "outputs": _short(found.outputs),
        "dead": _short(found.dead),
    }


async def value_text(link: Commands, room: Address, key: str) -> str:
    """Return one key of a room's state, as it stands there.

    Raises:
        Refused: There is none.
    """
    value = await link.call("HGET", room_keys(room).state, key)
    if value is None:
        raise Refused(f"{room} has no key {key!r:.100} in its state (any more)", status=404)
    text: str = value.decode(errors="replace")
    return text


def _first(rows: dict[str, Any]) -> dict[str, Any]:
    return dict(list(rows.items())[:_SHOWN])


def _short(entries: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: cut(text.encode(), _TEXT_CHARACTERS) for name, text in entry.items()} for entry in entries]
