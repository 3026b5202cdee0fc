"""The act by which operators give a dead event another try."""

from typing import NamedTuple

from innkeeper.address import Address
from innkeeper.channel import Command, Reply
from innkeeper.errors import RedisReplied
from innkeeper.functions import shard_of
from innkeeper.functions.library import HASH
from innkeeper.keys import RoomKeys, dead_index

RETRY = f"inn_retry_{HASH}"


def note_dead(address: Address, *, now_ms: int) -> Command:
    """Build the note that a room is about to put events aside: answered before the commit that does so."""
    return ("ZADD", dead_index(shard_of(address)), now_ms, str(address))


class Retried(NamedTuple):
    """What came of it: the event's iseq now, or 0 and why not (``gone``, or its type); and whether to wake the room."""

    iseq: int
    why_not: str
    wants_owner: bool


def retry(keys: RoomKeys, *, entry: str) -> Command:
    """Build another try of the event in an entry of the dead stream."""
    return ("FCALL", RETRY, 5, keys.inbox, keys.sessions, keys.lock, keys.bell, keys.dead, entry)


def read_retried(reply: Reply) -> Retried:
    """Read the answer to a retry.

    Raises:
        RedisReplied: Any error; nothing was written.
    """
    if isinstance(reply, RedisReplied):
        raise reply
    word, receivers, lock = reply.decode().split(" ")
    if not word.isdecimal():
        return Retried(0, word, wants_owner=False)
    return Retried(int(word), "", wants_owner=not lock or receivers == "0")
