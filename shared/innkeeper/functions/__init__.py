"""The atomic acts: one ``.lua`` file each, and one typed command builder plus reply reader each.

The builders return commands, so that many rooms travel in one write; :class:`Functions` knows the versioned names.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisReplied
from innkeeper.functions.library import HASH
from innkeeper.keys import RoomKeys, room_index, wake_queue
from innkeeper.lease import STALE_EDGE_MS
from innkeeper.turn import PRUNE_EVERY_COMMITS, Turn

PUSH = f"inn_push_{HASH}"
CLAIM = f"inn_claim_{HASH}"
COMMIT = f"inn_commit_{HASH}"
RENEW = f"inn_renew_{HASH}"
RELEASE = f"inn_release_{HASH}"
HEARTBEAT = f"inn_heartbeat_{HASH}"
REAP_EDGE = f"inn_reap_edge_{HASH}"
WAKE = f"inn_wake_{HASH}"
LOOK = f"inn_look_{HASH}"
ANNOUNCE = f"inn_announce_{HASH}"

ROOM_SHARDS = 16
_LOOK_AFTER_MS = 1_000
_ROOMS_A_COMMAND = 500


class PushEvent(NamedTuple):
    """One event on its way into an inbox; number and generation count in sessions only."""

    kind: str
    connection: str
    data: bytes
    session: str = ""
    number: int = 0
    generation: int = 0


class Pushed(NamedTuple):
    """The answer to a push: a letter an event, the iseq of the first accepted one, the lock, who heard the bell.

    ``previous_batch`` is the number of this edge's batch before; 0 where Redis knows none.
    """

    letters: str
    first_iseq: int
    lock: bytes
    receivers: int
    previous_batch: int = 0


def push(
    keys: RoomKeys, *, edge: str, batch: int, heartbeat_ms: int, backlog_count: int, events: Sequence[PushEvent]
) -> Command:
    """Build the push of a batch; equal batch numbers are resends and change nothing.

    ``heartbeat_ms`` is the server's time of the last answer to a heartbeat; five minutes later the push is refused.
    """
    command: list[str | bytes | int] = [
        "FCALL", PUSH, 4, keys.inbox, keys.sessions, keys.lock, keys.bell,
        f"{edge} {batch} {(heartbeat_ms + STALE_EDGE_MS) // 1000} {backlog_count}",
    ]  # fmt: skip
    for kind, connection, data, session, number, generation in events:
        words = f"{kind} {connection} {session} {number} {generation}" if session else f"{kind} {connection}"
        command += (words, data)
    return tuple(command)


def read_pushed(reply: Reply) -> Pushed:
    """Read the answer to a push.

    Raises:
        EdgeClosed: This incarnation was declared dead.
        RedisReplied: Any other error; nothing was written.
    """
    if isinstance(reply, RedisReplied):
        raise reply
    letters, first, receivers, previous, lock = reply.split(b" ")
    return tuple.__new__(Pushed, (letters.decode(), int(first), lock, int(receivers), int(previous)))


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a new owner starts from; hashes are pairs as Redis holds them.

    ``taken_from`` is the worker whose lock still stood there; empty for a room that was free.
    """

    token: str
    meta: dict[bytes, bytes]
    state: dict[bytes, bytes]
    members: dict[bytes, bytes]
    timers: dict[bytes, bytes]
    iseq: int
    server_us: int
    taken_from: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """The room has an owner: its lock, the ms left of its lease, and who else listens to the bell."""

    lock: bytes
    left_ms: int
    subscribers: int


def claim(keys: RoomKeys, *, worker: str, mark: int, lease_ms: int, seen: bytes, own_subscriptions: int) -> Command:
    """Build a claim; ``seen`` is the lock value to steal from, empty for a free room only."""
    return (
        "FCALL", CLAIM, 11, keys.meta, keys.lock, keys.inbox, keys.state, keys.members, keys.timers, keys.sessions,
        keys.outlog, keys.outbox, keys.dead, keys.bell, worker, mark, lease_ms, seen, own_subscriptions,
    )  # fmt: skip


def read_claimed(reply: Reply) -> Claimed | Held:
    """Read the answer to a claim."""
    parts = _checked(reply)
    if parts[0] == 0:
        return Held(parts[1], parts[2], parts[3])
    return Claimed(
        parts[1].decode(), _pairs(parts[2]), _pairs(parts[3]), _pairs(parts[4]), _pairs(parts[5]),
        int(parts[6]), int(parts[7]),
    )  # fmt: skip


class Committed(NamedTuple):
    """A commit that counts: the room's version is one higher, and this is the id of its last output."""

    last_id: bytes


def commit(
    keys: RoomKeys,
    *,
    token: str,
    version: int,
    worker: str,
    lease_ms: int,
    keep_outputs: int,
    turn: Turn,
    shown_bytes: int = 0,
    created: bool = True,
    marked: bool = True,
    tries: bool = False,
    shown: bool = True,
) -> Command:
    """Build the commit of a turn.

    ``lease_ms`` 0 leaves the lock as it is; ``keep_outputs`` 0 trims nothing, else inbox and outlog are trimmed, but
    for that many of the newest outputs; ``shown_bytes`` are those of all outputs before this turn's; ``created``
    writes down that on_create has succeeded, False leaves that as it is; ``marked`` may be False for a room whose
    claim brought no suspicion, or whose last marked event was committed; ``tries`` says that the handler of the next
    event, a marked one, starts when this is committed; ``shown`` False publishes where nobody listens:
    :func:`announce` shows the outputs later.
    """
    changes, counts = ((), "") if turn.changes_nothing else _changes(turn)
    prunes = (version + 1) % PRUNE_EVERY_COMMITS == 0
    letters = "d" if turn.destroy else "c" if created else ""
    if marked:
        letters += "m"
    if tries and not turn.destroy:
        letters += "t"
    if prunes:
        letters += "p"
    before = 0 if turn.destroy else shown_bytes
    head = f"{token} {version} {version + 1} {len(turn.consumed)} {before} {before + turn.out_bytes} {letters or '-'}"
    if lease_ms or keep_outputs or counts:
        head = f"{head} {lease_ms} {worker} {keep_outputs} {counts}"
    out = keys.out if shown else keys.outlog
    command: list[str | bytes | int] = [
        "FCALL", COMMIT, 6, keys.meta, keys.lock, keys.inbox, keys.sessions, keys.outlog, out, head, *turn.consumed,
    ]  # fmt: skip
    if counts or prunes:
        command[2] = 11
        command[9:9] = (keys.state, keys.members, keys.timers, keys.outbox, keys.dead)
        command += changes
    for output in turn.outputs:
        command += output
    return tuple(command)


def _changes(turn: Turn) -> tuple[list[str | bytes], str]:
    """Return the nine sections of changes as one list, and the count of values in each."""
    sections: tuple[Iterable[str | bytes], ...] = (
        _flat(turn.state_set.items()),
        sorted(turn.state_del),
        _flat(turn.members_set.items()),
        sorted(turn.members_del),
        _flat(turn.timers_set.items()),
        sorted(turn.timers_del),
        turn.sessions_closed,
        _flat(turn.outbox),
        _flat(turn.dead),
    )
    values: list[str | bytes] = []
    counts = []
    for section in sections:
        before = len(values)
        values += section
        counts.append(str(len(values) - before))
    return values, " ".join(counts)


def read_committed(reply: Reply) -> Committed | str:
    """Read the answer to a commit: what it made true, or the reason of the refusal (one word)."""
    if isinstance(reply, RedisReplied):
        raise reply
    return Committed(reply) if b"-" in reply else reply.decode()


def announce(keys: RoomKeys, *, token: str, previous: bytes, last: bytes) -> Command:
    """Build the announcement of the outputs after ``previous`` up to ``last``; equal ids announce that id alone."""
    return ("FCALL", ANNOUNCE, 3, keys.meta, keys.outlog, keys.out, token, previous, last)


def renew(keys: RoomKeys, *, token: str, worker: str, lease_ms: int) -> Command:
    """Build a renewal of the lease."""
    return ("FCALL", RENEW, 3, keys.meta, keys.lock, keys.sessions, token, worker, lease_ms)


def read_renewed(reply: Reply) -> int | None:
    """Read the answer to a renewal: the iseq of the room's last event, or None where the lease is lost."""
    parts = _checked(reply)
    return int(parts[1]) if parts[0] == 1 else None


def release(keys: RoomKeys, *, token: str, worker: str, force: bool, window_ms: int) -> Command:
    """Build a release; without ``force`` it is refused while there is backlog."""
    return (
        "FCALL", RELEASE, 10, keys.meta, keys.lock, keys.inbox, keys.state, keys.members, keys.timers, keys.sessions,
        keys.outlog, keys.outbox, keys.dead, token, worker, int(force), window_ms,
    )  # fmt: skip


class Released(NamedTuple):
    """The answer to a release: is the room given back, is it still ours (refused), and its backlog."""

    released: bool
    ours: bool
    backlog: int


def read_released(reply: Reply) -> Released:
    """Read the answer to a release."""
    parts = _checked(reply)
    if parts[0] == 0:
        return Released(released=False, ours=False, backlog=0)
    return Released(released=parts[0] == 1, ours=parts[0] == 2, backlog=parts[1])  # noqa: PLR2004 - the act's answer


def heartbeat(key: str, *, incarnation: str, first: bool) -> Command:
    """Build a heartbeat into ``inn:workers`` or ``inn:edges``."""
    return ("FCALL", HEARTBEAT, 1, key, incarnation, int(first))


def read_heartbeat(reply: Reply) -> tuple[bool, int]:
    """Read the answer to a heartbeat: still counted as alive, and the server's time in ms."""
    parts = _checked(reply)
    return parts[0] == 1, int(parts[1])


def reap_edge(keys: RoomKeys, *, edge: str) -> Command:
    """Build the reaping of a dead edge in one room."""
    return ("FCALL", REAP_EDGE, 4, keys.inbox, keys.sessions, keys.lock, keys.bell, edge)


def read_reaped(reply: Reply) -> tuple[bool, bytes, int]:
    """Read the answer to a reaping: was an event appended, the lock, who heard the bell."""
    parts = _checked(reply)
    return parts[0] == 1, parts[1], parts[2]


def wake(addresses: Iterable[Address]) -> list[Command]:
    """Build the waking of rooms: first into the index of rooms awake, then into the wake queues.

    Whoever pops a room from its queue may die of it; the index still names the room. A room appears once in each.
    """
    rows: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for address in addresses:
        rows[room_index(shard_of(address)), "", _LOOK_AFTER_MS].append(str(address))
        rows[wake_queue(address.kind), "NX", 0].append(str(address))
    return [
        ("FCALL", WAKE, 1, key, how, add_ms, *rooms[at : at + _ROOMS_A_COMMAND])
        for (key, how, add_ms), rooms in sorted(rows.items())  # inn:rooms… sorts before inn:wake…
        for at in range(0, len(rooms), _ROOMS_A_COMMAND)
    ]


def look(
    shard: int,
    *,
    due_ms: int,
    rooms: Iterable[tuple[Address, int | str]],
    index: Callable[[int], str] = room_index,
) -> Command:
    """Build the outcome of a look at rooms that were due then: ms until the next look, or ``rest``."""
    pairs = chain.from_iterable((str(address), again) for address, again in rooms)
    return ("FCALL", LOOK, 1, index(shard), due_ms, *pairs)


def shard_of(address: Address) -> int:
    """Return the shard of the index of rooms awake that a room stands in."""
    return zlib.crc32(str(address).encode()) % ROOM_SHARDS


def _checked(reply: Reply) -> list[Reply]:
    if isinstance(reply, RedisReplied):
        raise reply
    assert isinstance(reply, list)  # noqa: S101 - the acts answer lists only
    return reply


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _flat(rows: Iterable[tuple[str | bytes, ...]]) -> Iterable[str | bytes]:
    return chain.from_iterable(rows)
