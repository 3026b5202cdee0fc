"""The acts around timers: one command builder and one reply reader each."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisReplied
from innkeeper.functions.library import HASH
from innkeeper.keys import RoomKeys, timer_index

FIRE: Final = f"inn_fire_{HASH}"
EXPECT: Final = f"inn_expect_{HASH}"
DUE: Final = f"inn_due_{HASH}"
POSTPONE: Final = f"inn_postpone_{HASH}"

FIRE_AT_ONCE: Final = 256


class Fired(NamedTuple):
    """The answer to a fire.

    Attributes:
        appended: Events written by this call.
        next_ms: When the next timer is due that is not fired, of those looked at; 0: none.
        left: How many timers there are, of those looked at, fired ones included.
        backlog: Events of the room that wait.
        receivers: Who heard the bell; it is rung where events wait and there is an owner.
        server_us: The server's time.
        lock: The room's lock; empty without an owner.
    """

    appended: int
    next_ms: int
    left: int
    backlog: int
    receivers: int
    server_us: int
    lock: bytes

    @property
    def wants_owner(self) -> bool:
        """Whether somebody must be woken: events wait, or fired timers whose events are lost, and nobody heard it."""
        return (self.backlog > 0 or (self.left > 0 and self.next_ms == 0)) and not (self.lock and self.receivers)


def fire(keys: RoomKeys, *, names: Sequence[str] = (), at_once: int = FIRE_AT_ONCE) -> Command:
    """Build the firing of a room's timers that are due: of all, or of those named (at most 1,000)."""
    return ("FCALL", FIRE, 5, keys.timers, keys.inbox, keys.sessions, keys.lock, keys.bell, at_once, *names)


def read_fired(reply: Reply) -> Fired:
    """Read the answer to a fire."""
    if isinstance(reply, RedisReplied):
        raise reply
    appended, next_ms, left, backlog, receivers, server_us, lock = reply
    return Fired(appended, int(next_ms), left, int(backlog), receivers, int(server_us), lock)


def expect(shard: int, rooms: Iterable[tuple[Address, int]]) -> Command:
    """Build the note in the index of timers that rooms have one that is due then (server ms)."""
    words: list[str | int] = []
    for room, due_ms in rooms:
        words += (str(room), due_ms)
    return ("FCALL", EXPECT, 1, timer_index(shard), *words)


def read_expected(reply: Reply) -> list[int]:
    """Read the answer to an expect: the scores that stand there now, one a room."""
    if isinstance(reply, RedisReplied):
        raise reply
    return [int(score) for score in reply]


class Due(NamedTuple):
    """What a shard of the index of timers has for now: rooms with their scores, and when the next is due (0: none)."""

    server_ms: int
    next_ms: int
    rooms: list[tuple[str, int]]


def due(shard: int, *, most: int) -> Command:
    """Build the reading of the rooms that are due in a shard of the index of timers."""
    return ("FCALL", DUE, 1, timer_index(shard), most)


def read_due(reply: Reply) -> Due:
    """Read the answer to a due."""
    if isinstance(reply, RedisReplied):
        raise reply
    names, scores = reply[2::2], reply[3::2]
    rooms = [(name.decode(), int(score)) for name, score in zip(names, scores, strict=True)]
    return Due(int(reply[0]), int(reply[1]), rooms)


def postpone(shard: int, rooms: Iterable[tuple[str, int, int | str]]) -> Command:
    """Build the outcome of looks: room, score as it was read, new score (ms) or ``gone``."""
    words: list[str | int] = []
    for room in rooms:
        words += room
    return ("FCALL", POSTPONE, 1, timer_index(shard), *words)
