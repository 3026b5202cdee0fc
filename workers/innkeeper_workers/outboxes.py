"""The sweep over the index of rooms that owe something to others: finds those that nobody owns."""

from typing import TYPE_CHECKING

from innkeeper import keys
from innkeeper.errors import RedisReplied
from innkeeper.keys import room_keys
from innkeeper_workers.sweep import LATER_MS, SOON_MS, Sweep

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper.channel import Command, Reply


class OutboxSweep(Sweep):
    """Looks every 500 ms at what is due in this worker's shards of the index ``inn:outboxes:N``.

    A room with an outbox and without an owner is woken: the claim starts its courier. One with an empty outbox is taken
    out: its owner notes it anew before a commit that fills it, and counts on that note for half the time it stands.
    """

    index = staticmethod(keys.outbox_index)
    what = "an outbox"

    def _ask(self, room: "Address") -> "tuple[Command, Command]":
        at = room_keys(room)
        return ("XLEN", at.outbox), ("GET", at.lock)

    def _again(self, facts: "Reply", lock: "Reply") -> int | str:
        if isinstance(facts, RedisReplied) or isinstance(lock, RedisReplied):
            return LATER_MS
        if not facts:
            return "rest"
        return SOON_MS if lock is None else LATER_MS
