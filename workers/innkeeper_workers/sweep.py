"""The sweep over the index of rooms awake: finds rooms with backlog that nobody owns and nobody will wake."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from innkeeper import functions, keys
from innkeeper.address import Address, InvalidAddress, parse_address
from innkeeper.errors import FunctionMissing, RedisReplied, RedisUnavailable
from innkeeper.functions import ROOM_SHARDS
from innkeeper.keys import room_keys

if TYPE_CHECKING:
    from innkeeper.channel import Command, Reply
    from innkeeper_workers.fleet import Fleet
    from innkeeper_workers.pulse import Pulse

log = logging.getLogger("innkeeper.worker")

_EVERY_S = 0.5
# Two commands a room and one a shard: at most 1,000 rooms and some 2,000 commands a second and worker.
_ROOMS_A_SWEEP = 500
SOON_MS = 1_000
LATER_MS = 10_000
_FORGOTTEN_S = 5.0


class Sweep:
    """Looks every 500 ms at the rooms that are due in this worker's shards of the index.

    The shards are dealt to the workers, see :func:`own_shards`. A room asleep is not in the index and costs nothing.

    Attributes:
        index: Makes the key of a shard.
        what: What a room has that wants an owner, for the log.
        deserted: Rooms that want an owner and have none, by when that was first seen, by the loop's clock.
    """

    index: Callable[[int], str] = staticmethod(keys.room_index)
    what = "backlog"

    def __init__(self, fleet: "Fleet", pulse: "Pulse") -> None:
        self._fleet = fleet
        self._pulse = pulse
        self.woken_count = 0
        self.deserted: dict[Address, float] = {}
        self._looked_at_s: dict[Address, float] = {}

    async def sweep_forever(self) -> None:
        """Sweep again and again; an unreachable Redis only pauses it."""
        while True:
            await asyncio.sleep(_EVERY_S)
            try:
                # After Redis was away the owners' locks may be over although they live: give them time to renew.
                if self._pulse.is_steady(self._fleet.times.heartbeat_dead_ms):
                    await self.sweep()
            except FunctionMissing:
                await self._fleet.load_functions()
            except (RedisUnavailable, RedisReplied) as error:
                log.debug("sweep: %s", error)

    async def sweep(self) -> None:
        """Look once at what is due."""
        fleet = self._fleet
        due_ms = fleet.redis_time_ms
        self._note([], [])
        shards = await own_shards(fleet)
        if not shards:
            return
        at_once = max(1, _ROOMS_A_SWEEP // len(shards))
        replies = await fleet.link.send(
            [("ZRANGE", self.index(n), "-inf", due_ms, "BYSCORE", "LIMIT", 0, at_once) for n in shards]
        )
        for shard, names in zip(shards, replies, strict=True):
            if isinstance(names, RedisReplied):
                raise names
            if names:
                await self._look(shard, due_ms, [name.decode() for name in names])

    async def _look(self, shard: int, due_ms: int, names: list[str]) -> None:
        fleet = self._fleet
        rooms = [room for name in names if (room := indexed_room(self.index(shard), name)) is not None]
        if len(rooms) < len(names):
            await fleet.link.call("ZREM", self.index(shard), *(set(names) - set(map(str, rooms))))
        commands = [command for room in rooms for command in self._ask(room)]
        replies = await fleet.link.send(commands)
        deserted, outcomes = [], []
        for room, facts, lock in zip(rooms, replies[::2], replies[1::2], strict=True):
            again = self._again(facts, lock)
            outcomes.append((room, again))
            if again == SOON_MS and lock is None:
                deserted.append(room)
        if deserted:
            full = fleet.places <= 0  # then they wait for a place, and are found at every look
            log.log(
                logging.DEBUG if full else logging.INFO,
                "%d room(s) with %s have no owner, waking them",
                len(deserted),
                self.what,
            )
            self.woken_count += len(deserted)
            await fleet.wake(deserted)
        self._note(rooms, deserted)
        if outcomes:
            await fleet.link.call(*functions.look(shard, due_ms=due_ms, rooms=outcomes, index=self.index))

    def _note(self, looked_at: list[Address], deserted: list[Address]) -> None:
        """Keep since when rooms are deserted; one that was not looked at for 5 s is another worker's to count."""
        now_s = self._fleet.loop.time()
        for room in deserted:
            self.deserted.setdefault(room, now_s)
            self._looked_at_s[room] = now_s
        late = {room for room, at_s in self._looked_at_s.items() if now_s - at_s > _FORGOTTEN_S}
        for room in late.union(looked_at).difference(deserted):
            self.deserted.pop(room, None)
            self._looked_at_s.pop(room, None)

    def _ask(self, room: Address) -> "tuple[Command, Command]":
        """Return the questions about a room: what it has, and its lock."""
        at = room_keys(room)
        return ("HMGET", at.sessions, "#", "@"), ("GET", at.lock)

    def _again(self, facts: "Reply", lock: "Reply") -> int | str:
        """Return when a room is looked at again, from its ``#`` and ``@`` and its lock."""
        if isinstance(facts, RedisReplied) or isinstance(lock, RedisReplied):
            return LATER_MS
        if has_backlog(facts):
            return SOON_MS
        return "rest" if lock is None else LATER_MS


def has_backlog(counts: "Reply") -> bool:
    """Return whether ``#`` and ``@`` of a room say that events wait."""
    return bool(counts) and counts[0] is not None and int(counts[0]) > int(counts[1] or 0)


def indexed_room(index: str, name: str) -> Address | None:
    """Return the room that an entry of an index names; None, and a line in the log, where it names none."""
    try:
        return parse_address(name)
    except InvalidAddress as error:
        log.warning("%s: %s", index, error)
        return None


async def own_shards(fleet: "Fleet") -> list[int]:
    """Return the shards of the indexes that are dealt to this worker, by its rank among those in the registry.

    There is no agreement about it: for a moment two workers may have the same one, or nobody.
    """
    workers = sorted(name.decode() for name in await fleet.link.call("ZRANGE", keys.WORKERS, 0, -1))
    if fleet.incarnation not in workers:
        return []
    return list(range(workers.index(fleet.incarnation), ROOM_SHARDS, len(workers)))
