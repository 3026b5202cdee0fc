"""Which rooms a worker gives away, and to whom: arithmetic over what all workers publish, without a clock or I/O.

Every worker decides for itself, once a second, from rows that are up to a second old. What keeps them from running
after each other:

- a worker gives only what it has above the mean, so all of them together give no more than others lack;
- whom it gives to is drawn by what each lacks, so not all of them choose the same one;
- it begins only when it has been clearly above the mean three times in a row (or above it, and another one clearly
  below), and ends when it is hardly above it;
- what is less than a room is drawn: one room by that chance;
- by CPU it gives seven tenths of what it has too much, then waits until the figures show it;
- no room moves that would leave the receiver with more than the giver keeps.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from innkeeper.load import FRESH_MS, Load

Item = TypeVar("Item")

BUSY_CPU: Final = 0.5
CALM_CPU: Final = 0.3
CALM_AFTER_S: Final = 30.0
HELD_UP_MS: Final = 100.0
"""Whose loop was held up for longer than this in the last second would let a room wait for as long."""

LOOKS_BEFORE: Final = 3
KNOWN_FOR_S: Final = 2.0
SETTLES_S: Final = 5.0
CPU_GAIN: Final = 0.7
MOST_A_SECOND: Final = 100
_LEAST_A_SECOND = 5
_SPREAD_OVER_S = 6
_LEAST_EXCESS = 0.01
_ON_ITS_WAY_MS = 700  # the rooms of a second go one by one, and the server's time is as of the last heartbeat


class Measure(Enum):
    """What is made even: the number of rooms, or the share of a core that the workers use."""

    ROOMS = "rooms"
    CPU = "cpu"


class Weighed(NamedTuple, Generic[Item]):
    """A room that may be given away.

    Attributes:
        item: The room.
        kind: Its kind.
        cost: The share of a core that it is thought to take.
        events_s: Its events a second.
    """

    item: Item
    kind: str
    cost: float
    events_s: float


class Move(NamedTuple, Generic[Item]):
    """A room, and the incarnation that is to have it."""

    item: Item
    target: str


@dataclass(slots=True)
class _Receiver:
    """A worker that has less than the mean, as it will be with what it is given."""

    name: str
    value: float
    places: float


@dataclass(slots=True)
class _Group:
    """The workers that serve a kind, from the giver's view."""

    kind: str
    mean: float
    excess: float
    lack: float
    others: dict[str, Load]


class Shedder(Generic[Item]):
    """One worker's decisions.

    Attributes:
        measure: What is made even now.
        is_shedding: Whether this worker is giving rooms away.

    Args:
        name: Its incarnation; may change.
        chance: Draws among the receivers.
    """

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self.measure = Measure.ROOMS
        self.is_shedding = False
        self._chance = chance
        self._known_since_s: dict[str, float] = {}
        self._busy_at_s = -math.inf
        self._is_new = True
        self._looks_over = 0
        self._budget = 0.0
        self._settles_until_s = -math.inf
        self._given: list[tuple[int, str]] = []  # when (server ms) and to whom, as long as rows may not show it

    def decide(
        self, loads: Mapping[str, Load], rooms: Sequence[Weighed[Item]], *, now_s: float, now_ms: int
    ) -> list[Move[Item]]:
        """Return what to give away within the next second; to be asked once a second.

        Args:
            loads: The fresh rows of all workers, this one's included.
            rooms: The rooms of this worker that may move.
            now_s: By any steady clock.
            now_ms: The server's time, as in the rows.
        """
        moves = self._decide(self._as_they_are(loads, now_ms), rooms, now_s)
        self._given += [(now_ms, move.target) for move in moves]
        return moves

    def _as_they_are(self, loads: Mapping[str, Load], now_ms: int) -> dict[str, Load]:
        """Return the rows with the rooms that were given to their workers after they had been written."""
        self._given = [(at_ms, name) for at_ms, name in self._given if now_ms - at_ms < FRESH_MS]
        come = Counter(
            name for at_ms, name in self._given if name in loads and at_ms + _ON_ITS_WAY_MS > loads[name].at_ms
        )
        return {
            name: msgspec.structs.replace(load, rooms=load.rooms + come[name]) if come[name] else load
            for name, load in loads.items()
        }

    def _decide(self, loads: Mapping[str, Load], rooms: Sequence[Weighed[Item]], now_s: float) -> list[Move[Item]]:
        self._known_since_s = {name: self._known_since_s.get(name, now_s) for name in loads}
        mine = loads.get(self.name)
        if mine is None or not mine.rebalance or mine.draining:
            return self._rest()
        others = {
            name: load
            for name, load in loads.items()
            if name != self.name
            and load.rebalance
            and not load.draining
            and now_s - self._known_since_s[name] >= KNOWN_FOR_S
            and not set(load.kinds).isdisjoint(mine.kinds)
        }
        self._choose_measure([mine, *others.values()], now_s)
        group = self._furthest_above(mine, others, {room.kind for room in rooms})
        if group is None or not self._is_above(group):
            return self._rest()
        self._looks_over += 1
        if self._looks_over < LOOKS_BEFORE or now_s < self._settles_until_s:
            return []
        self.is_shedding = True
        candidates = [room for room in rooms if room.kind == group.kind]
        if self.measure is Measure.ROOMS:
            return self._even_rooms(mine, group, candidates, now_s)
        hottest = max(rooms, key=lambda room: room.cost)
        return self._even_cpu(mine, group, [room for room in candidates if room is not hottest], now_s)

    def _rest(self) -> list[Move[Item]]:
        self.is_shedding = False
        self._looks_over, self._budget = 0, 0.0
        return []

    def _choose_measure(self, loads: Sequence[Load], now_s: float) -> None:
        """CPU as soon as anybody is busy, until nobody was for half a minute."""
        highest = max(load.cpu for load in loads)
        goes_by_cpu = self.measure is Measure.CPU or (self._is_new and len(loads) > 1)  # who joins may find it so
        self._is_new = self._is_new and len(loads) == 1
        if highest >= BUSY_CPU or (goes_by_cpu and highest >= CALM_CPU):
            self._busy_at_s = now_s
        measure = Measure.CPU if now_s - self._busy_at_s < CALM_AFTER_S else Measure.ROOMS
        if measure is not self.measure:
            self.measure, self._settles_until_s = measure, -math.inf
            self._rest()

    def _value(self, load: Load) -> float:
        return load.cpu if self.measure is Measure.CPU else load.rooms

    def _furthest_above(self, mine: Load, others: Mapping[str, Load], kinds: set[str]) -> _Group | None:
        """Return those with whom this worker shares a kind of its rooms and is furthest above the mean; None: nobody.

        Who is full can take nothing, and so does not say what the mean should be.
        """
        groups = []
        for kind in sorted(kinds):
            peers = {name: load for name, load in others.items() if kind in load.kinds and load.places > 0}
            if peers:
                values = [self._value(mine), *map(self._value, peers.values())]
                mean = sum(values) / len(values)
                groups.append(_Group(kind, mean, values[0] - mean, mean - min(values), peers))
        return max(groups, key=lambda group: group.excess, default=None)

    def _is_above(self, group: _Group) -> bool:
        """Return whether to give: clearly above the mean, or hardly above it and somebody is clearly below."""
        by_cpu, goes_on = self.measure is Measure.CPU, self.is_shedding
        if goes_on:
            margin = 0.02 + 0.03 * group.mean if by_cpu else 0.99
        else:
            margin = 0.05 + 0.1 * group.mean if by_cpu else 0.5 + 0.1 * group.mean
        lack = (0.1 if by_cpu else 0.5) + (0.1 if goes_on else 0.25) * group.mean
        return group.excess > margin or (group.excess > (_LEAST_EXCESS if by_cpu else 0) and group.lack > lack)

    def _even_rooms(self, mine: Load, group: _Group, rooms: list[Weighed[Item]], now_s: float) -> list[Move[Item]]:
        """Give the quietest rooms away until the number is the mean."""
        count = math.floor(group.excess)
        if count == 0:
            self._settles_until_s = now_s + SETTLES_S
            count = 1 if self._chance.random() < group.excess / 2 else 0  # others draw as well
        receivers = self._receivers(group)
        moves: list[Move[Item]] = []
        for room in sorted(rooms, key=lambda room: room.events_s)[: self._at_once(count, mine, group)]:
            receiver = self._draw(receivers, group.mean)
            if receiver is None or receiver.value + 1 > mine.rooms - len(moves) - 1:
                break
            receiver.value += 1
            receiver.places -= 1
            moves.append(Move(room.item, receiver.name))
        return moves

    def _even_cpu(self, mine: Load, group: _Group, rooms: list[Weighed[Item]], now_s: float) -> list[Move[Item]]:
        """Give the busiest rooms away that fit into what is too much; the very hottest stays where it is."""
        if is_first := self._budget <= 0:
            self._budget = CPU_GAIN * group.excess
        receivers, own = self._receivers(group), mine.cpu
        moves: list[Move[Item]] = []
        at_once = self._at_once(len(rooms) * self._budget / max(own, 0.01), mine, group)
        rooms = sorted((room for room in rooms if room.cost > 0), key=lambda room: -room.cost)
        if is_first and rooms and rooms[-1].cost > self._budget:
            smallest = rooms[-1]
            rooms, at_once = [smallest] if self._chance.random() < self._budget / smallest.cost else [], 1
            self._budget = smallest.cost
        for room in rooms:
            if self._budget <= 0 or len(moves) >= at_once:
                break
            receiver = self._draw(receivers, group.mean)
            if receiver is None:
                break
            if room.cost > min(self._budget, (own - receiver.value) / 2):
                continue
            own -= room.cost
            self._budget -= room.cost
            receiver.value += room.cost
            receiver.places -= 1
            moves.append(Move(room.item, receiver.name))
        if len(moves) < at_once or self._budget <= 0:
            self._budget, self._settles_until_s = 0.0, now_s + SETTLES_S
        return moves

    def _at_once(self, count: float, mine: Load, group: _Group) -> int:
        """Return how many rooms may move within a second, of ``count`` in all.

        So many that it takes some ten seconds, and the others who give do not add up to more than the receivers bear.
        """
        if not count:
            return 0
        excesses = [max(0.0, self._value(load) - group.mean) for load in (mine, *group.others.values())]
        part = excesses[0] / sum(excesses)
        least = max(1, round(2 * _LEAST_A_SECOND * part))
        most = max(1, round(MOST_A_SECOND * len(self._receivers(group)) * part))
        return min(MOST_A_SECOND, most, max(least, math.ceil(count / _SPREAD_OVER_S)), math.ceil(count))

    def _receivers(self, group: _Group) -> list[_Receiver]:
        return [
            _Receiver(name, self._value(load), load.places)
            for name, load in sorted(group.others.items())
            if self._value(load) < group.mean and load.loop_lag_ms < HELD_UP_MS
        ]

    def _draw(self, receivers: Sequence[_Receiver], mean: float) -> _Receiver | None:
        able = [receiver for receiver in receivers if receiver.places > 0 and receiver.value < mean]
        if not able:
            return None
        return self._chance.choices(able, weights=[mean - receiver.value for receiver in able])[0]
