"""What edges must know of the kinds that a worker serves."""

from typing import TYPE_CHECKING

import orjson

from innkeeper import keys
from innkeeper.room import Room

if TYPE_CHECKING:
    from innkeeper_workers.fleet import Fleet


async def announce_kinds(fleet: "Fleet") -> None:
    """Write what edges must know of the kinds served here, and of no others: another pool may have its own say there.

    Raises:
        RedisUnavailable: No answer.
        RedisReplied: An error reply.
    """
    rows: list[str | bytes] = []
    for kind, room in fleet.rooms.items():
        limits: dict[str, str | float] = {
            "codec": room.codec,
            "message_bytes": room.message_bytes,
            "backlog_count": room.backlog_count,
            "grace_s": room.grace_s,
        }
        if room.on_request is not Room.on_request:
            limits["request_s"] = room.request_s
        rows += [kind, orjson.dumps(limits)]
    await fleet.link.call("HSET", keys.KINDS, *rows)
