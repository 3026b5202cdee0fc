"""The worker's regular duties: heartbeat, renewals, idle rooms, and the death of workers and edges."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from innkeeper import functions, keys
from innkeeper.address import Address
from innkeeper.errors import FunctionMissing, RedisReplied, RedisUnavailable
from innkeeper.keys import room_keys
from innkeeper.topology import by_lane
from innkeeper_workers.deaths import note_death, note_pause
from innkeeper_workers.fleet import new_incarnation
from innkeeper_workers.kinds import announce_kinds
from innkeeper_workers.sweep import has_backlog, indexed_room
from innkeeper_workers.timers import look_soon

if TYPE_CHECKING:
    from innkeeper.channel import Command
    from innkeeper_workers.fleet import Fleet
    from innkeeper_workers.owner import Owner

log = logging.getLogger("innkeeper.worker")

_ROOMS_AT_ONCE = 200
_REAPS_AT_ONCE = 20
_OTHERS_FOLLOW_MS = 1_000
_REAP_PAUSE_S = 0.03
_REAP_WITHIN_S = 1.5
_SLEEPS_AT_ONCE = 25
_ANNOUNCE_EVERY_LOOKS = 8
_EAR_LOOKS = 3


class _Clock:
    """The server's time where a registry is, as last read, and since when it has been read without a pause."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.steady_since_ms = 0

    def read(self, now_ms: int, pause_ms: int) -> int:
        """Take what the server said, and return ms since then; a pause longer than that begins a new steady time."""
        since_ms = now_ms - self.now_ms if self.now_ms else 0
        if since_ms > pause_ms or not self.now_ms:
            # Redis was away (or this worker was): the others' heartbeats could not come either, give them time.
            self.steady_since_ms = now_ms
        self.now_ms = now_ms
        return since_ms

    def is_steady(self, for_ms: int) -> bool:
        """Return whether it has been read without a pause for that long."""
        return self.now_ms - self.steady_since_ms > for_ms


class Pulse:
    """Runs beside the fleet; each duty survives an unreachable Redis and goes on afterwards."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self._first = True
        self._past = ""  # the incarnation before, until its list of rooms is deleted
        self._clocks = {keys.WORKERS: _Clock(), keys.EDGES: _Clock()}
        self._looks = 0
        self._is_first_by_name = True  # the first of the registry by name, whose duty dead edges are
        self._deaf = ""  # the neighbour whose rooms were woken already
        self._refused_count = 0

    async def beat_forever(self) -> None:
        """Say every 250 ms that this worker lives."""
        while True:
            await self._safely(self._beat)
            await asyncio.sleep(self._fleet.times.heartbeat_ms / 1000)

    async def watch_forever(self) -> None:
        """Look every 250 ms who lives no more; in a cluster each registry is on a node that may be away by itself."""
        fleet = self._fleet
        while True:
            if self._looks % _ANNOUNCE_EVERY_LOOKS == 0:
                # A Redis that came back empty must hear of them again.
                await self._safely(partial(announce_kinds, fleet))
            self._looks += 1
            if self._clocks[keys.WORKERS].now_ms:
                await self._safely(self._watch_workers)
                await self._safely(self._watch_neighbour)
            await asyncio.sleep(fleet.times.heartbeat_ms / 1000)

    async def watch_edges_forever(self) -> None:
        """The same for edges, apart from that: the leaves of a dead one's members are spread over a while."""
        while True:
            if self._clocks[keys.WORKERS].now_ms:
                await self._safely(self._watch_edges)
            await asyncio.sleep(self._fleet.times.heartbeat_ms / 1000)

    async def _safely(self, duty: Callable[[], Awaitable[None]]) -> None:
        try:
            await duty()
        except FunctionMissing:
            await self._fleet.load_functions()
        except (RedisUnavailable, RedisReplied) as error:
            log.debug("heartbeat: %s", error)

    async def renew_forever(self) -> None:
        """Renew all leases every 500 ms, in one write; put rooms to sleep that nobody used."""
        fleet = self._fleet
        while True:
            lanes = by_lane(fleet.link, list(fleet.owners.values()), lambda owner: owner.keys.lock)
            await asyncio.gather(*map(self._renew, lanes))
            idle = [owner for owner in fleet.owners.values() if owner.is_idle and not owner.leaving]
            # Hundreds at once, as after a storm, would keep the others waiting.
            for owner in idle[: max(_SLEEPS_AT_ONCE, len(idle) // 10)]:
                owner.leave("idle")
            fleet.thrift.settle()
            await asyncio.sleep(fleet.times.renew_ms / 1000)

    async def say_goodbye(self) -> None:
        """Take this worker out of the registry, after it has given back its rooms; else the others do it."""
        fleet = self._fleet
        gone = [fleet.incarnation, self._past] if self._past else [fleet.incarnation]
        try:
            await fleet.link.send(
                [
                    ("ZREM", keys.WORKERS, fleet.incarnation),
                    ("HDEL", keys.LOAD, *gone),
                    *(("DEL", keys.worker_rooms(name)) for name in gone),
                ]
            )
        except RedisUnavailable as error:
            log.warning("worker %s: not taken out of the registry: %s", fleet.incarnation, error)

    async def _beat(self) -> None:
        fleet = self._fleet
        if self._first:
            await fleet.bells.subscribe(keys.worker_ear(fleet.incarnation))
        commands = [functions.heartbeat(keys.WORKERS, incarnation=fleet.incarnation, first=self._first)]
        if self._first:
            commands += self._index()
        reply = await fleet.link.send(commands)
        alive, now_ms = functions.read_heartbeat(reply[0])
        since_ms = self._clocks[keys.WORKERS].read(now_ms, fleet.times.heartbeat_dead_ms)
        fleet.redis_time_ms, fleet.meters.heard_at_s = now_ms, fleet.loop.time()
        self._first, self._past = False, ""
        fleet.is_registered = alive
        if since_ms > fleet.times.lease_ms:
            await note_pause(fleet.link, fleet.incarnation, now_ms=now_ms)
        if not alive:
            self._past, fleet.incarnation = fleet.incarnation, new_incarnation()
            log.warning("worker %s was declared dead, taking a new incarnation", self._past)
            fleet.bells.unsubscribe(keys.worker_ear(self._past))
            self._first = True
            await self._beat()

    def _index(self) -> "list[Command]":
        """List the rooms under a new incarnation; who declared the past one dead may have deleted its list too soon."""
        fleet = self._fleet
        commands: list[Command] = []
        if self._past:
            commands += (("DEL", keys.worker_rooms(self._past)), ("HDEL", keys.LOAD, self._past))
        if fleet.owners:
            commands.append(("SADD", keys.worker_rooms(fleet.incarnation), *map(str, fleet.owners)))
        return commands

    async def _renew(self, owners: "list[Owner]") -> None:
        fleet = self._fleet
        sent_at_s = fleet.loop.time()
        lease_ms = fleet.times.lease_ms
        had_read = [owner.read_iseq for owner in owners]
        try:
            replies = await fleet.link.send(
                [functions.renew(o.keys, token=o.token, worker=fleet.incarnation, lease_ms=lease_ms) for o in owners]
            )
        except RedisUnavailable as error:
            log.warning("%d lease(s) not renewed: %s", len(owners), error)
            return
        for owner, reply, read_iseq in zip(owners, replies, had_read, strict=True):
            if isinstance(reply, FunctionMissing):
                await fleet.load_functions()
                return
            if isinstance(reply, RedisReplied):
                log.warning("room %s: lease not renewed: %s", owner.address, reply)
                continue
            iseq = functions.read_renewed(reply)
            if iseq is None and owner.is_giving_back:
                continue
            if iseq is None:
                log.warning("room %s: lease lost, handler cancelled", owner.address)
                owner.drop("the room was lost to another owner")
            elif iseq < read_iseq:
                # Its token came back too, and new events get numbers that it has read: it would wait for ever.
                log.warning("room %s: its history was rolled back under its owner, loading it anew", owner.address)
                owner.drop("the room's history was rolled back")
            else:
                owner.lease_sent_at_s = sent_at_s
                owner.renewed(iseq, sent_at_s)

    async def _watch_workers(self) -> None:
        """Wake the rooms with backlog or an outbox of workers silent for a second; look after those with timers."""
        fleet = self._fleet
        refused_count = fleet.meters.refused_commits
        if refused_count > self._refused_count:
            fresh, self._refused_count = refused_count - self._refused_count, refused_count
            await fleet.link.call("HINCRBY", keys.COUNTERS, "refused_commits", fresh)
        for worker in await self._silent(keys.WORKERS, fleet.times.heartbeat_dead_ms):
            if worker == fleet.incarnation:
                continue
            await self._wake_rooms_of(worker, "is silent")
            removed, *_ = await fleet.link.send(
                (
                    ("ZREM", keys.WORKERS, worker), ("DEL", keys.worker_rooms(worker)), ("HDEL", keys.LOAD, worker),
                )
            )  # fmt: skip
            if removed == 1:
                await note_death(fleet.link, worker, now_ms=fleet.redis_time_ms)

    async def _watch_neighbour(self) -> None:
        """Wake the rooms with backlog of the next worker in the registry if its ear is gone, and look after timers.

        A killed worker's connections are closed at once, so this is quicker than its silence, and needs no traffic. It
        may be wrong (the worker reconnects): then its rooms are found to be held, and it stays in the registry.
        """
        fleet = self._fleet
        workers = sorted(name.decode() for name in await fleet.link.call("ZRANGE", keys.WORKERS, 0, -1))
        self._is_first_by_name = workers[:1] == [fleet.incarnation]
        if len(workers) == 1 or fleet.incarnation not in workers:
            return
        neighbour = workers[(workers.index(fleet.incarnation) + 1) % len(workers)]
        for look in range(_EAR_LOOKS):
            if look:
                await asyncio.sleep(fleet.times.second_look_ms / 1000)
            if await fleet.link.call("SPUBLISH", keys.worker_ear(neighbour), ""):
                self._deaf = ""
                return
        if neighbour != self._deaf:  # once; the rest is its silence's
            self._deaf = neighbour
            await self._wake_rooms_of(neighbour, "does not listen")

    async def _wake_rooms_of(self, worker: str, why: str) -> None:
        fleet = self._fleet
        rooms = await self._rooms_of(keys.worker_rooms(worker))
        log.info("worker %s %s, looking after its %d room(s)", worker, why, len(rooms))
        for piece in self._pieces(rooms):
            commands: list[Command] = []
            for room in piece:
                at = room_keys(room)
                commands += (("HMGET", at.sessions, "#", "@"), ("XLEN", at.outbox), ("EXISTS", at.timers))
            replies = await fleet.link.send(commands)
            found = list(zip(piece, replies[::3], replies[1::3], replies[2::3], strict=True))
            await fleet.wake([room for room, counts, owed, _ in found if has_backlog(counts) or owed])
            await look_soon(fleet, [room for room, *_, timers in found if timers == 1])

    async def _watch_edges(self) -> None:
        """Let the members of edges silent for three seconds leave, in each room in its order."""
        fleet = self._fleet
        # A heartbeat of nobody tells the time where the edges' registry is: another node's clock may differ.
        answer = await fleet.link.send((functions.heartbeat(keys.EDGES, incarnation="-", first=False),))
        self._clocks[keys.EDGES].read(functions.read_heartbeat(answer[0])[1], fleet.times.heartbeat_dead_ms)
        # One worker is enough; should it be about to die, the others follow.
        patience_ms = 0 if self._is_first_by_name else _OTHERS_FOLLOW_MS
        edges = await self._silent(keys.EDGES, fleet.times.edge_dead_ms + patience_ms)
        await asyncio.gather(*map(self._reap, edges))

    async def _reap(self, edge: str) -> None:
        """Have a dead edge's members leave, a few rooms at a time: their owners have other rooms to look after."""
        fleet = self._fleet
        rooms = await self._rooms_of(keys.edge_rooms(edge))
        log.info("edge %s is silent, its members leave %d room(s)", edge, len(rooms))
        pieces = self._pieces(rooms, _REAPS_AT_ONCE)
        for n, piece in enumerate(pieces):
            if n:
                await asyncio.sleep(min(_REAP_PAUSE_S, _REAP_WITHIN_S / len(pieces)))
            replies = await fleet.link.send([functions.reap_edge(room_keys(room), edge=edge) for room in piece])
            wanting = []
            for room, reply in zip(piece, replies, strict=True):
                if isinstance(reply, RedisReplied):
                    log.warning("room %s: edge %s not reaped: %s", room, edge, reply)
                    continue
                _, lock, receivers = functions.read_reaped(reply)
                if not lock or not receivers:
                    wanting.append(room)
            await fleet.wake(wanting)
        await fleet.link.send((("ZREM", keys.EDGES, edge), ("DEL", keys.edge_rooms(edge))))

    def is_steady(self, for_ms: int) -> bool:
        """Return whether this worker and Redis have been in touch without a break for that long."""
        return self._clocks[keys.WORKERS].is_steady(for_ms)

    def _pieces(self, rooms: list[Address], size: int = _ROOMS_AT_ONCE) -> list[list[Address]]:
        """Return rooms in pieces for one call each; a piece is on one server."""
        lanes = by_lane(self._fleet.link, rooms, lambda room: room_keys(room).sessions)
        return [lane[at : at + size] for lane in lanes for at in range(0, len(lane), size)]

    async def _silent(self, registry: str, for_ms: int) -> list[str]:
        clock = self._clocks[registry]
        if not clock.is_steady(for_ms):
            return []
        names = await self._fleet.link.call("ZRANGE", registry, "-inf", clock.now_ms - for_ms, "BYSCORE")
        return [name.decode() for name in names]

    async def _rooms_of(self, key: str) -> list[Address]:
        names = await self._fleet.link.call("SMEMBERS", key)
        return [room for name in names if (room := indexed_room(key, name.decode())) is not None]
