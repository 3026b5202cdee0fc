"""What a worker has to do, measured without touching what does it: CPU, lag of the loop, events of each room."""

import asyncio
import time
from typing import TYPE_CHECKING

from innkeeper.load import Load

if TYPE_CHECKING:
    from innkeeper_workers.fleet import Fleet
    from innkeeper_workers.owner import Owner

_SAMPLES_A_SECOND = 10
_SLOW_S = 1.0
_MOST_SLOW = 20
_SMOOTHED = 0.3  # how much of each second's figure goes into the published one


class Meter:
    """Measures second by second.

    Attributes:
        cpu: Share of a core that this process used in the last seconds.
        loop_lag_ms: The latest that the loop came to a sample of the last second.
        events_s: Events a second of each owned room, of the last seconds.

    Args:
        fleet: Whose rooms.
    """

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self.cpu = self.loop_lag_ms = 0.0
        self.events_s: dict[Owner, float] = {}
        self._iseqs: dict[Owner, int] = {}
        self._used_s, self._at_s = time.process_time(), fleet.loop.time()

    async def second(self) -> None:
        """Let a second pass, and measure it."""
        loop, latest_s = self._fleet.loop, 0.0
        for _ in range(_SAMPLES_A_SECOND):
            due_s = loop.time() + 1 / _SAMPLES_A_SECOND
            await asyncio.sleep(1 / _SAMPLES_A_SECOND)
            latest_s = max(latest_s, loop.time() - due_s)
        self.loop_lag_ms = latest_s * 1000
        used_s, at_s = time.process_time(), loop.time()
        passed_s = at_s - self._at_s
        self.cpu += _SMOOTHED * ((used_s - self._used_s) / passed_s - self.cpu)
        self._used_s, self._at_s = used_s, at_s
        iseqs = {owner: owner.read_iseq for owner in self._fleet.owners.values()}
        rates = {}
        for owner, iseq in iseqs.items():
            before = self.events_s.get(owner, 0.0)
            rates[owner] = before + _SMOOTHED * ((iseq - self._iseqs.get(owner, iseq)) / passed_s - before)
        self._iseqs, self.events_s = iseqs, rates

    def load(self, *, rebalance: bool) -> Load:
        """Return what to publish."""
        fleet = self._fleet
        return Load(
            at_ms=fleet.redis_time_ms,
            rooms=fleet.room_count,
            cpu=round(self.cpu, 4),
            loop_lag_ms=round(self.loop_lag_ms, 1),
            events_s=round(sum(self.events_s.values()), 1),
            kinds=tuple(sorted(fleet.rooms)),
            max_rooms=fleet.max_rooms,
            rebalance=rebalance,
            draining=fleet.draining,
            slow=self._slow(),
        )

    def _slow(self) -> dict[str, tuple[int, str, int]]:
        """Return the events whose hooks wait for long."""
        fleet, now_s = self._fleet, self._fleet.loop.time()
        waiting = [
            (owner.limit.began_s, str(owner.address), owner.inside)
            for owner in fleet.owners.values()
            if owner.inside is not None and owner.limit.began_s is not None and now_s - owner.limit.began_s > _SLOW_S
        ]
        return {
            room: (event.iseq, event.kind.decode(), fleet.redis_time_ms - round((now_s - began_s) * 1000))
            for began_s, room, event in sorted(waiting)[:_MOST_SLOW]
        }
