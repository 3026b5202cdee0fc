"""What this worker is told on its ear: give a room away, or take one that was given up for it.

Nothing here decides who owns a room. The room is released as ever, and whoever claims it first has it; an order only
makes the one it names likely to be first.
"""

import asyncio
import logging
from typing import TYPE_CHECKING

from innkeeper import keys
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.orders import CLAIM, Order, read_order, write_order

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper_workers.fleet import Fleet
    from innkeeper_workers.owner import Owner

log = logging.getLogger("innkeeper.worker")

_TAKEN_WITHIN_S = 0.1
_LOOK_S = 0.003
_CAME_KEPT_S = 60.0
_MISSED_S = 30.0


class Orders:
    """Takes orders, and passes on rooms that were asked for by name.

    Args:
        fleet: Whose rooms.
    """

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        # Rooms on their way to another worker, and whether this one was offered them meanwhile by its wake queue.
        self._passing: dict[Address, bool] = {}
        self._came_at_s: dict[Address, float] = {}
        self._missed_at_s: dict[str, float] = {}

    def hear(self, channel: bytes, body: bytes) -> None:
        """Take what came on a channel that is no bell of an owned room; what is no order to this worker is ignored."""
        fleet = self._fleet
        if channel != keys.worker_ear(fleet.incarnation).encode():
            return  # the bell of a room just given back, or an ear of the past
        try:
            order = read_order(body)
        except ValueError as error:
            log.warning("worker %s: %s, ignored", fleet.incarnation, error)
            return
        owner = fleet.owners.get(order.room)
        if order.verb == CLAIM:
            if owner is None:
                self._note_arrival(order.room)
                fleet.consider(str(order.room))
        elif owner is None:
            log.info("room %s: asked to hand it over, but it is not owned here", order.room)
        elif order.target != fleet.incarnation:
            log.info("room %s: handed over to %s, as ordered", order.room, order.target or "whoever comes")
            self.give(owner, order.target)

    def give(self, owner: "Owner", target: str = "") -> None:
        """Let an owner give its room back when the running event is over.

        Args:
            owner: Of the room.
            target: The incarnation that shall have it; empty: whoever comes.
        """
        owner.successor = target
        owner.leave("handover")

    async def pass_on(self, owner: "Owner") -> bool:
        """Tell its successor that a room was given back.

        Returns:
            Whether the successor, or somebody else, has claimed it within 100 ms. If not, it is to be woken as ever.
        """
        fleet, room = self._fleet, owner.address
        self._passing[room] = False
        try:
            heard = await fleet.link.call("SPUBLISH", keys.worker_ear(owner.successor), write_order(Order(CLAIM, room)))
            until_s = fleet.loop.time() + _TAKEN_WITHIN_S
            while heard and not await fleet.link.call("GET", owner.keys.lock):
                if fleet.loop.time() >= until_s:
                    heard = 0
                await asyncio.sleep(_LOOK_S)
        except (RedisUnavailable, RedisReplied) as error:
            log.debug("room %s: not passed on: %s", room, error)
            heard = 0
        finally:
            was_offered = self._passing.pop(room)
        if not heard:
            log.info("room %s: %s did not take it, waking it", room, owner.successor)
            self._note_miss(owner.successor)
        return bool(heard) and not was_offered

    def keeps_for_another(self, room: "Address") -> bool:
        """Return whether a room woken just now is on its way to another worker: :meth:`pass_on` sees to it."""
        if room not in self._passing:
            return False
        self._passing[room] = True
        return True

    def _note_miss(self, worker: str) -> None:
        now_s = self._fleet.loop.time()
        lately = {name: at_s for name, at_s in self._missed_at_s.items() if now_s - at_s < _MISSED_S}
        self._missed_at_s = {**lately, worker: now_s}

    def was_missed(self, worker: str) -> bool:
        """Return whether a worker did not take a room given to it within the last 30 s: it is gone, or held up."""
        missed_at_s = self._missed_at_s.get(worker)
        return missed_at_s is not None and self._fleet.loop.time() - missed_at_s < _MISSED_S

    def _note_arrival(self, room: "Address") -> None:
        now_s = self._fleet.loop.time()
        self._came_at_s[room] = now_s
        if len(self._came_at_s) > 2 * len(self._fleet.owners) + 100:
            self._came_at_s = {at: s for at, s in self._came_at_s.items() if now_s - s < _CAME_KEPT_S}

    def came_lately(self, room: "Address") -> bool:
        """Return whether somebody gave the room to this worker within the last minute."""
        came_at_s = self._came_at_s.get(room)
        return came_at_s is not None and self._fleet.loop.time() - came_at_s < _CAME_KEPT_S
