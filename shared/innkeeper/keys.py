"""Every key and channel of Innkeeper, in one place; docs/data-model.md describes them, a test compares the two.

All keys of a room carry the room's address as hash tag, so they share a slot in a cluster. The address is checked
(:mod:`innkeeper.address`) before it gets here: it holds no braces, spaces or control characters.
"""

from typing import Final, NamedTuple

from innkeeper.address import Address

PREFIX: Final = "inn:"

KINDS: Final = "inn:kinds"
WORKERS: Final = "inn:workers"
EDGES: Final = "inn:edges"
COUNTERS: Final = "inn:counters"
DEATHS: Final = "inn:deaths"
LOAD: Final = "inn:load"


class RoomKeys(NamedTuple):
    """The keys and channels of one room, made once per room by :func:`room_keys`."""

    inbox: str
    lock: str
    meta: str
    state: str
    members: str
    sessions: str
    timers: str
    outlog: str
    outbox: str
    dead: str
    bell: str
    out: str


def room_keys(address: Address) -> RoomKeys:
    """Return the keys of a room, ``inn:{kind/name}:<part>``."""
    return RoomKeys(*(f"{PREFIX}{{{address.kind}/{address.name}}}:{part}" for part in RoomKeys._fields))


def worker_rooms(incarnation: str) -> str:
    """Return the set of rooms that a worker's incarnation owns: added before the claim, removed after the release."""
    return f"inn:worker:{incarnation}"


def worker_ear(incarnation: str) -> str:
    """Return the channel that a living worker listens to, for orders; without a listener, it is gone."""
    return f"inn:worker:{incarnation}:ear"


def edge_rooms(incarnation: str) -> str:
    """Return the set of rooms that an edge's incarnation has sockets in: added before the join, removed after."""
    return f"inn:edge:{incarnation}"


def wake_queue(kind: str) -> str:
    """Return the queue of rooms of a kind that want an owner."""
    return f"inn:wake:{kind}"


def room_index(shard: int | str) -> str:
    """Return one shard of the index of rooms awake: written before a room is woken, taken out when it is at rest."""
    return f"inn:rooms:{shard}"


def timer_index(shard: int | str) -> str:
    """Return one shard of the index of timers: a room stands in it before the commit that gives it its first timer."""
    return f"inn:timers:{shard}"


def dead_index(shard: int | str) -> str:
    """Return one shard of the index of rooms that have put events aside: written before the commit that does so."""
    return f"inn:dead:{shard}"


def outbox_index(shard: int | str) -> str:
    """Return one shard of the index of rooms that owe something to others: written before the commit that owes it."""
    return f"inn:outboxes:{shard}"
