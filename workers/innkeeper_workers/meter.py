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
        busy: Share of a core that each owned room's turns took, of the last seconds.

    Args:
        fleet: Whose rooms.
    """

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self.cpu = self.loop_lag_ms = 0.0
        self.events_s: dict[Owner, float] = {}
        self.busy: dict[Owner, float] = {}
        self._iseqs: dict[Owner, float] = {}
        self._busy_s: dict[Owner, float] = {}
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
        owners = self._fleet.owners.values()
        iseqs: dict[Owner, float] = {owner: owner.read_iseq for owner in owners}
        busy_s = {owner: owner.busy_s for owner in owners}
        self.events_s = _smoothed(self.events_s, self._iseqs, iseqs, passed_s)
        self.busy = _smoothed(self.busy, self._busy_s, busy_s, passed_s)
        self._iseqs, self._busy_s = iseqs, busy_s

    def costs(self) -> "dict[Owner, float]":
        """Return what each room takes of the core: its turns, and of the rest its part by its events.

        Turns that took more than the process used, as where another had the core, count by their parts.
        """
        turns, events = sum(self.busy.values()), sum(self.events_s.values())
        scale = min(1.0, self.cpu / turns) if turns > 0 else 0.0
        of_event = max(0.0, self.cpu - turns) / events if events > 0 else 0.0
        return {owner: scale * self.busy.get(owner, 0.0) + of_event * rate for owner, rate in self.events_s.items()}

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


def _smoothed(
    rates: "dict[Owner, float]", before: "dict[Owner, float]", now: "dict[Owner, float]", passed_s: float
) -> "dict[Owner, float]":
    """Return how much of something each owner does a second, the seconds before counting too."""
    return {
        owner: (rate := rates.get(owner, 0.0)) + _SMOOTHED * ((value - before.get(owner, value)) / passed_s - rate)
        for owner, value in now.items()
    }
