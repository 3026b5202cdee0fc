"""What each role does in Redis, command by command: checked at boot, and what deploy/redis/users.acl.in allows."""

from typing import Final, Literal

from innkeeper import keys
from innkeeper.address import Address
from innkeeper.channel import Command
from innkeeper.errors import RedisReplied, RedisUnusable
from innkeeper.functions import CLAIM, HEARTBEAT, PUSH, WAKE
from innkeeper.keys import room_keys
from innkeeper.redis_client import Link

Role = Literal["edge", "worker", "jobs"]

_ROOM: Final = room_keys(Address("any", "room"))
_WAKE: Final = keys.wake_queue("any")
_INDEX: Final = keys.room_index(0)

# Appending to an inbox and waking its room: what the functions do, they do with the rights of their caller.
_PUSHES: Final[tuple[Command, ...]] = (
    ("FCALL", PUSH, 4, _ROOM.inbox, _ROOM.sessions, _ROOM.lock, _ROOM.bell),
    ("XADD", _ROOM.inbox, "*", "t", "text"),
    ("XINFO", "STREAM", _ROOM.inbox),
    ("EXISTS", _ROOM.inbox),
    ("PERSIST", _ROOM.inbox),
    ("PERSIST", _ROOM.sessions),
    ("HSET", _ROOM.sessions, "#", 1),
    ("HGET", _ROOM.sessions, "#"),
    ("HMGET", _ROOM.sessions, "#", "@"),
    ("GET", _ROOM.lock),
    ("SPUBLISH", _ROOM.bell, ""),
    ("TIME",),
    ("FCALL", WAKE, 1, _WAKE, "NX", 0),
    ("FCALL", WAKE, 1, _INDEX, "NX", 0),
    ("ZADD", _WAKE, 1, "any/room"),
    ("ZADD", _INDEX, 1, "any/room"),
)
_EDGE: Final[tuple[Command, ...]] = (
    *_PUSHES,
    ("FCALL", HEARTBEAT, 1, keys.EDGES, "e-0", 0),
    ("ZADD", keys.EDGES, 1, "e-0"),
    ("ZSCORE", keys.EDGES, "e-0"),
    ("ZREM", keys.EDGES, "e-0"),
    ("SADD", keys.edge_rooms("e-0"), "any/room"),
    ("SREM", keys.edge_rooms("e-0"), "any/room"),
    ("DEL", keys.edge_rooms("e-0")),
    ("HGETALL", keys.KINDS),
    ("HGETALL", _ROOM.members),
    ("HGET", _ROOM.meta, "last"),
    ("HMGET", _ROOM.meta, "last", "cursor"),
    ("XRANGE", _ROOM.outlog, "-", "+"),
    ("HINCRBY", keys.COUNTERS, "resyncs", 1),
    ("SSUBSCRIBE", _ROOM.out),
    ("SUNSUBSCRIBE", _ROOM.out),
    ("PING",),
)
_WORKER: Final[tuple[Command, ...]] = (
    ("FCALL", CLAIM, len(_ROOM) - 1, *(name for name in _ROOM if name != _ROOM.out)),
    ("FCALL", HEARTBEAT, 1, keys.WORKERS, "w-0", 0),
    *_PUSHES,
    *(("SET", _ROOM.lock, ""), ("DEL", _ROOM.lock), ("PTTL", _ROOM.lock), ("PUBSUB", "SHARDNUMSUB", _ROOM.bell)),
    *(("XRANGE", _ROOM.inbox, "-", "+"), ("XDEL", _ROOM.inbox, "1-1"), ("XLEN", _ROOM.inbox)),
    *(("XTRIM", _ROOM.inbox, "MAXLEN", 1), ("XADD", _ROOM.outlog, "*", "h", ""), ("XADD", _ROOM.dead, "*", "id", "")),
    *(("HSET", _ROOM.meta, "token", ""), ("HGETALL", _ROOM.state), ("HDEL", _ROOM.state, "key")),
    *(("HVALS", _ROOM.members), ("HINCRBY", _ROOM.meta, "contradictions", 1), ("PEXPIREAT", _ROOM.meta, 1)),
    *(("SPUBLISH", _ROOM.out, ""), ("SSUBSCRIBE", _ROOM.bell), ("SUNSUBSCRIBE", _ROOM.bell)),
    *(("SPUBLISH", keys.worker_ear("w-0"), ""), ("SSUBSCRIBE", keys.worker_ear("w-0")), ("PING",)),
    *(("HSET", keys.LOAD, "w-0", ""), ("HGETALL", keys.LOAD), ("HDEL", keys.LOAD, "w-0")),
    *(("HSET", keys.KINDS, "any", ""), ("HKEYS", keys.KINDS), ("ZCARD", _WAKE), ("ZPOPMIN", _WAKE)),
    *(
        ("BZPOPMIN", _WAKE, 1),
        ("ZRANGE", keys.WORKERS, 0, -1),
        ("ZSCORE", keys.EDGES, "e-0"),
        ("ZREM", keys.EDGES, "e"),
    ),
    *(("SADD", keys.worker_rooms("w-0"), "r"), ("SREM", keys.worker_rooms("w-0"), "r")),
    *(("SMEMBERS", keys.edge_rooms("e-0")), ("ZRANGEBYSCORE", keys.timer_index(0), 0, 1)),
    *(("ZADD", keys.timer_index(0), 1, "r"), ("ZADD", keys.outbox_index(0), 1, "r")),
    *(("ZADD", keys.DEATHS, 1, "w-0"), ("ZREMRANGEBYSCORE", keys.DEATHS, 0, 1), ("PEXPIRE", keys.DEATHS, 1)),
    *(("FUNCTION", "LIST"), ("FUNCTION", "LOAD", ""), ("FUNCTION", "DELETE", "inn_0")),
)
RIGHTS: Final[dict[Role, tuple[Command, ...]]] = {"edge": _EDGE, "worker": _WORKER, "jobs": _PUSHES}


async def check_rights(link: Link, role: Role, shown: str) -> None:
    """Have a server judge every command of a role, without carrying any out: they are queued, then discarded.

    Nothing is checked where the login may not queue commands (MULTI).

    Args:
        link: To the server, used by nobody else meanwhile.
        role: Whose commands.
        shown: The server's URL without the password.

    Raises:
        RedisUnavailable: No answer.
        RedisUnusable: The login may not use some of them; the text names each.
    """
    if isinstance((await link.send((("MULTI",),)))[0], RedisReplied):
        return
    commands = RIGHTS[role]
    *replies, _ = await link.send((*commands, ("DISCARD",)))
    refused = [
        name_of(command)
        for command, reply in zip(commands, replies, strict=True)
        if isinstance(reply, RedisReplied) and str(reply).startswith("NOPERM")
    ]
    if refused:
        raise RedisUnusable(
            f"the login at {shown} may not do what innkeeper {role} does (NOPERM): "
            f"{', '.join(dict.fromkeys(refused))}. Give it what deploy/redis/users.acl.in gives to {role!r}"
        )


def name_of(command: Command) -> str:
    """Return a command as users of Redis name it, with the key or channel that it is for."""
    words = [str(word) for word in command]
    if words[0] == "FCALL":
        return f"FCALL on {' '.join(words[3 : 3 + int(words[2])])}"
    return " ".join(words[:3] if words[0] in ("XINFO", "PUBSUB", "FUNCTION") else words[:2]).strip()
