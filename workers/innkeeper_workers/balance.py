"""The worker's part in spreading rooms: publishes its load, gives rooms away, and says when there is no place left."""

import asyncio
import logging
import random
from collections import Counter
from typing import TYPE_CHECKING

from innkeeper import keys
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.load import FORGOTTEN_MS, FRESH_MS, Load, read_loads, write_load
from innkeeper_workers.meter import Meter
from innkeeper_workers.shedding import Move, Shedder, Weighed

if TYPE_CHECKING:
    from innkeeper_workers.fleet import Fleet
    from innkeeper_workers.owner import Owner

log = logging.getLogger("innkeeper.worker")

_SLEEPS_SOON_S = 5.0
_WITHIN_S = 0.8
_LONGEST_S = 0.15
_CALM_S = 10.0


class Balance:
    """Looks once a second at all workers' loads; an unreachable Redis only pauses it.

    Attributes:
        given_count: Rooms given away so far.

    Args:
        fleet: Whose rooms.
        rebalance: Whether to give rooms away, and to be given any.
    """

    def __init__(self, fleet: "Fleet", *, rebalance: bool) -> None:
        self._fleet = fleet
        self._rebalance = rebalance
        self._meter = Meter(fleet)
        self._shedder: Shedder[Owner] = Shedder(fleet.incarnation, random.Random(fleet.incarnation))  # noqa: S311 - no secret
        self._giving: asyncio.Task[None] | None = None
        self._crowded_at_s: float | None = None
        self.given_count = 0

    async def balance_forever(self) -> None:
        """Measure, publish, read, decide, second by second."""
        try:
            while True:
                await self._meter.second()
                try:
                    await self.look()
                except (RedisUnavailable, RedisReplied) as error:
                    log.debug("load: %s", error)
        finally:
            if self._giving is not None:
                self._giving.cancel()

    async def look(self) -> None:
        """Publish this worker's row, and act on those of all."""
        fleet = self._fleet
        if not fleet.is_registered:
            return
        row = write_load(self._meter.load(rebalance=self._rebalance))
        queues = [keys.wake_queue(kind) for kind in fleet.rooms] if fleet.places <= 0 else []
        replies = await fleet.link.send(
            (
                ("HSET", keys.LOAD, fleet.incarnation, row),
                ("HGETALL", keys.LOAD),
                *(("ZCARD", queue) for queue in queues),
            )
        )
        for reply in replies:
            if isinstance(reply, RedisReplied):
                raise reply
        self._tell_of_waiting(sum(replies[2:]))
        loads = await self._usable(read_loads(dict(zip(replies[1][::2], replies[1][1::2], strict=True))))
        if self._giving is None or self._giving.done():
            self._shedder.name = fleet.incarnation
            now_s = fleet.loop.time()
            moves = self._shedder.decide(loads, self._movable(now_s), now_s=now_s, now_ms=fleet.redis_time_ms)
            if moves:
                self._giving = asyncio.create_task(self._give(moves))

    async def _usable(self, loads: dict[str, Load]) -> dict[str, Load]:
        """Return the rows that still count, but for those of workers that did not take what they were given lately.

        Take those out that nobody has, a worker without others to see it end.
        """
        now_ms = self._fleet.redis_time_ms
        if forgotten := [name for name, load in loads.items() if now_ms - load.at_ms > FORGOTTEN_MS]:
            await self._fleet.link.call("HDEL", keys.LOAD, *forgotten)
        return {
            name: load
            for name, load in loads.items()
            if abs(now_ms - load.at_ms) <= FRESH_MS and not self._fleet.orders.was_missed(name)
        }

    def _movable(self, now_s: float) -> "list[Weighed[Owner]]":
        """Return the rooms that may move: at work, not suspected, not come here lately, not about to sleep anyway."""
        fleet, rates, costs = self._fleet, self._meter.events_s, self._meter.costs()
        return [
            Weighed(owner, room.kind, costs.get(owner, 0.0), rates.get(owner, 0.0))
            for room, owner in fleet.owners.items()
            if not owner.leaving
            and owner.inside is None
            and not owner.suspicion.marked_iseq
            and owner.used_at_s + owner.room_class.idle_s - now_s > min(_SLEEPS_SOON_S, owner.room_class.idle_s / 2)
            and not fleet.orders.came_lately(room)
        ]

    async def _give(self, moves: "list[Move[Owner]]") -> None:
        """Give rooms away one by one, evenly over most of a second; a hook that waits holds up only its own room."""
        fleet, given = self._fleet, Counter[str]()
        pace_s, started_s = _WITHIN_S / len(moves), fleet.loop.time()
        for n, (owner, target) in enumerate(moves):
            await asyncio.sleep(started_s + n * pace_s - fleet.loop.time())
            if fleet.draining or fleet.owners.get(owner.address) is not owner or owner.leaving or owner.task is None:
                continue
            if fleet.orders.was_missed(target):
                continue
            given[target] += 1
            fleet.orders.give(owner, target)
            await asyncio.wait([owner.task], timeout=_LONGEST_S)
        self.given_count += given.total()
        for target, count in given.items():
            log.info(
                "worker %s gives %d room(s) to %s, by %s", fleet.incarnation, count, target, self._shedder.measure.value
            )

    def _tell_of_waiting(self, waiting_count: int) -> None:
        """Say once that this worker is full and rooms wait, and once that none does any more."""
        fleet, now_s = self._fleet, self._fleet.loop.time()
        if waiting_count:
            if self._crowded_at_s is None:
                log.warning(
                    "worker %s is full (--max-rooms %d), and %d room(s) wait for an owner: start more workers",
                    fleet.incarnation, fleet.max_rooms, waiting_count,
                )  # fmt: skip
            self._crowded_at_s = now_s
        elif self._crowded_at_s is not None and now_s - self._crowded_at_s > _CALM_S:
            self._crowded_at_s = None
            log.info("worker %s: no room waits for an owner any more", fleet.incarnation)
