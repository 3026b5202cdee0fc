"""The look-out for timers: fires those of rooms that nobody owns, or whose owner is gone, and wakes the rooms."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from innkeeper import keys
from innkeeper.address import Address
from innkeeper.errors import FunctionMissing, RedisReplied, RedisUnavailable
from innkeeper.functions import shard_of
from innkeeper.functions.timers import (
    Due,
    Fired,
    due,
    expect,
    fire,
    postpone,
    read_due,
    read_expected,
    read_fired,
)
from innkeeper.keys import room_keys
from innkeeper.topology import by_lane
from innkeeper_workers.sweep import indexed_room, own_shards

if TYPE_CHECKING:
    from innkeeper_workers.fleet import Fleet
    from innkeeper_workers.pulse import Pulse

log = logging.getLogger("innkeeper.worker")

_EVERY_S = 0.25  # nobody writes an entry less than two seconds ahead, but for rooms whose owner seems to be dead
_LEAST_S = 0.01  # many rooms may be due one after another: some ms late, but together
_SHARDS_EVERY_S = 0.5
_ROOMS_A_LOOK = 1_000
_ROOMS_A_WRITE = 200
_OWNED_MS = 2_000
_EMPTY_MS = 5_000


async def look_soon(fleet: "Fleet", rooms: Iterable[Address]) -> None:
    """Let rooms with timers be looked at now: their owner seems to be gone.

    Raises:
        RedisUnavailable: Some may not have been noted.
        RedisReplied: As above.
    """
    by_shard: dict[int, list[tuple[Address, int]]] = defaultdict(list)
    for room in rooms:
        by_shard[shard_of(room)].append((room, fleet.redis_time_ms))
    for reply in await fleet.link.send([expect(shard, pairs) for shard, pairs in sorted(by_shard.items())]):
        read_expected(reply)


class LookOut:
    """Looks at the rooms whose timers are due by the index, in this worker's shards, every 250 ms and when one is due.

    The index says when to look at a room, and nothing else: what is due is for the act ``fire`` to see. A room with an
    owner is looked at every 2 s once its entry has passed, in case the owner is gone. A room without timers is taken
    out at the second look, 5 s after the first: a commit that sets one may still be under way.
    """

    def __init__(self, fleet: "Fleet", pulse: "Pulse") -> None:
        self._fleet = fleet
        self._pulse = pulse
        self._shards: list[int] = []
        self._shards_at_s = -1.0
        self.fired_count = 0
        self._seen_empty: dict[str, int] = {}  # room → the score given to it when it had no timers

    async def look_forever(self) -> None:
        """Look again and again; an unreachable Redis only pauses it."""
        while True:
            wait_s = _EVERY_S
            try:
                # After Redis was away owners that live may be without lock and bell: give them time.
                if self._pulse.is_steady(self._fleet.times.heartbeat_dead_ms):
                    wait_s = await self.look()
            except FunctionMissing:
                await self._fleet.load_functions()
            except (RedisUnavailable, RedisReplied) as error:
                log.debug("look-out for timers: %s", error)
            await asyncio.sleep(wait_s)

    async def look(self) -> float:
        """Look once at what is due; return how many seconds later to look again."""
        shards = await self._own_shards()
        wait_s = _EVERY_S
        for lane in by_lane(self._fleet.link, shards, keys.timer_index):
            try:
                wait_s = min(wait_s, await self._look_in(lane, most=max(1, _ROOMS_A_LOOK // len(shards))))
            except RedisUnavailable as error:  # in a cluster the other shards' nodes may be there
                log.debug("look-out for timers: %s", error)
        return wait_s

    async def _look_in(self, shards: list[int], *, most: int) -> float:
        replies = await self._fleet.link.send([due(shard, most=most) for shard in shards])
        wait_s = _EVERY_S
        for shard, reply in zip(shards, replies, strict=True):
            found = read_due(reply)
            if found.next_ms:
                wait_s = min(wait_s, max((found.next_ms - found.server_ms) / 1000, _LEAST_S))
            if found.rooms:
                await self._look_at(shard, found)
                wait_s = 0.0 if len(found.rooms) == most else wait_s
        return wait_s

    async def _own_shards(self) -> list[int]:
        fleet = self._fleet
        if fleet.loop.time() - self._shards_at_s > _SHARDS_EVERY_S:
            self._shards = await own_shards(fleet)
            self._shards_at_s = fleet.loop.time()
        return self._shards

    async def _look_at(self, shard: int, found: Due) -> None:
        rooms: dict[Address, int] = {}
        outcomes: list[tuple[str, int, int | str]] = []
        for name, score in found.rooms:
            room = indexed_room(keys.timer_index(shard), name)
            if room is None:
                outcomes.append((name, score, "gone"))
            else:
                rooms[room] = score
        fired = await self._fire(list(rooms))
        wanting = [room for room, answer in fired.items() if answer.wants_owner]
        if wanting:
            log.info("%d room(s) with timers have no owner, waking them", len(wanting))
            await self._fleet.wake(wanting)
        for room, score in rooms.items():
            outcomes.append((str(room), score, self._again(str(room), score, fired.get(room), found.server_ms)))
        await self._fleet.link.call(*postpone(shard, outcomes))

    async def _fire(self, rooms: list[Address]) -> dict[Address, Fired]:
        """Fire what is due in rooms; those that could not be asked are left out."""
        answers: dict[Address, Fired] = {}
        for lane in by_lane(self._fleet.link, rooms, lambda room: room_keys(room).timers):
            for at in range(0, len(lane), _ROOMS_A_WRITE):
                piece = lane[at : at + _ROOMS_A_WRITE]
                try:
                    replies = await self._fleet.link.send([fire(room_keys(room)) for room in piece])
                except RedisUnavailable as error:
                    log.debug("timers of %d room(s) not fired: %s", len(piece), error)
                    continue
                for room, reply in zip(piece, replies, strict=True):
                    if isinstance(reply, FunctionMissing):
                        raise reply
                    if isinstance(reply, RedisReplied):
                        log.warning("room %s: timers not fired: %s", room, reply)
                    else:
                        answers[room] = read_fired(reply)
        fired_count = sum(answer.appended for answer in answers.values())
        self.fired_count += fired_count
        self._fleet.meters.timers_fired["lookout"] += fired_count
        return answers

    def _again(self, room: str, score: int, answer: Fired | None, now_ms: int) -> int | str:
        """Return the room's next score, or ``gone``."""
        was_empty = self._seen_empty.pop(room, 0) == score
        if answer is None or answer.lock:  # those that cannot be asked must not stand before those that can
            return now_ms + _OWNED_MS
        if answer.left or answer.backlog:
            return answer.next_ms if answer.next_ms > now_ms else now_ms + _OWNED_MS
        if was_empty:
            return "gone"
        self._seen_empty[room] = now_ms + _EMPTY_MS
        return now_ms + _EMPTY_MS
