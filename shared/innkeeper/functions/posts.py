"""The act that rooms and other programs send by, and the index of rooms that still owe something to others."""

from collections.abc import Sequence
from typing import NamedTuple

from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisReplied
from innkeeper.functions import WAKE, shard_of
from innkeeper.functions.library import HASH
from innkeeper.keys import RoomKeys, outbox_index, room_index

POST = f"inn_post_{HASH}"

# A room noted as owing is looked at for the first time after this long; so long it cannot fall out of the index.
OUTBOX_LOOK_MS = 10_000
_AWAKE_LOOK_MS = 1_000


class PostEvent(NamedTuple):
    """One event that a source sends; ``number`` grows from each to the next under one mark, holes are allowed."""

    number: int
    kind: str
    data: bytes
    connection: str = "-"


class Posted(NamedTuple):
    """The answer to a post: a letter an event (accepted, duplicate, busy), who heard the bell, the lock."""

    letters: str
    receivers: int
    lock: bytes

    @property
    def taken_count(self) -> int:
        """How many of the events, from the first on, the room has now: accepted or duplicates."""
        return len(self.letters) - self.letters.count("b")

    @property
    def wants_owner(self) -> bool:
        """Whether the room must be woken."""
        return not self.lock or not self.receivers


def post(keys: RoomKeys, *, source: str, mark: int, backlog_count: int, events: Sequence[PostEvent]) -> Command:
    """Build the post of events of one source and mark; what was accepted before is a duplicate and changes nothing."""
    command: list[str | bytes | int] = [
        "FCALL", POST, 4, keys.inbox, keys.sessions, keys.lock, keys.bell, f"{source} {mark} {backlog_count}",
    ]  # fmt: skip
    for number, kind, data, connection in events:
        command += (f"{number} {kind} {connection}", data)
    return tuple(command)


def read_posted(reply: Reply) -> Posted:
    """Read the answer to a post.

    Raises:
        RedisReplied: Any error; nothing was written.
    """
    if isinstance(reply, RedisReplied):
        raise reply
    letters, receivers, lock = reply.split(b" ")
    return Posted(letters.decode(), int(receivers), lock)


def note_outbox(address: Address) -> Command:
    """Build the note that a room is about to owe something: answered before the commit that makes it true."""
    return ("FCALL", WAKE, 1, outbox_index(shard_of(address)), "", OUTBOX_LOOK_MS, str(address))


def note_awake(address: Address) -> Command:
    """Build the note that a room may soon want an owner, so that a sweep looks even if its waker dies."""
    return ("FCALL", WAKE, 1, room_index(shard_of(address)), "NX", _AWAKE_LOOK_MS, str(address))
