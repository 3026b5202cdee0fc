"""The rooms this worker owns: woken, claimed, rung, lost, handed over."""

import asyncio
import contextlib
import logging
import math
import secrets
from collections.abc import Iterable
from dataclasses import replace

from innkeeper import functions, keys
from innkeeper.address import Address, InvalidAddress, parse_address
from innkeeper.cluster import Cluster
from innkeeper.durability import Durability, ReplicatedLink
from innkeeper.errors import FunctionMissing, LeaseLost, RedisReplied, RedisUnavailable
from innkeeper.functions import Claimed, Held
from innkeeper.functions.library import load_library
from innkeeper.keys import RoomKeys, room_keys
from innkeeper.lease import DEFAULT_TIMES, LeaseTimes
from innkeeper.memory import Thrift
from innkeeper.meters import WorkerMeters
from innkeeper.options import DEFAULT_REDIS_URL
from innkeeper.room import Room
from innkeeper.topology import Commands, Subscriptions, Where, open_link, open_subscriber
from innkeeper.waking import wake
from innkeeper.wire import read_news, sendable
from innkeeper_workers.jobs.desk import Desk
from innkeeper_workers.orders import Orders
from innkeeper_workers.owner import Owner
from innkeeper_workers.reaping import reap_unknown_edges
from innkeeper_workers.setbacks import Setbacks
from innkeeper_workers.stage import Stage
from innkeeper_workers.wakes import WakeQueues

log = logging.getLogger("innkeeper.worker")

_HANDOVERS_AT_ONCE = 10
_TAKEN_WITHIN_S = 0.5
_STEAL_AFTER_RECONNECT_S = 0.5
_LOOKS = 20
_PAUSE_AFTER_FAILURE_S = 1.0


class Fleet:
    """One worker process's part of the fleet: which rooms it owns, and how it comes by them.

    Args:
        rooms: The room classes by kind; other kinds are left to other workers.
        where: Where Redis is.
        times: The figures of ownership.
        durability: What a commit must have survived before its outputs are shown.
        url: Of the same Redis, for rq.
    """

    def __init__(
        self,
        rooms: dict[str, type[Room]],
        where: Where,
        times: LeaseTimes = DEFAULT_TIMES,
        durability: Durability = Durability.RELAXED,
        url: str = DEFAULT_REDIS_URL,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.rooms = rooms
        self.times = times
        self.incarnation = new_incarnation()
        timeout_s = times.redis_timeout_ms / 1000
        self.bells: Subscriptions = open_subscriber(
            where, on_message=self._on_bell, on_fresh=self._on_fresh_bell, name="bells"
        )
        self.link: Commands = open_link(where, timeout_s=timeout_s, name="worker", on_unready=self.bells.reopen)
        self.is_replicated = durability is Durability.REPLICATED
        self.commit_link: Commands = self.link
        if self.is_replicated:
            self.commit_link = open_link(where, timeout_s=timeout_s, name="commits", kind=ReplicatedLink)
        if isinstance(where, Cluster):
            # A slot that moves takes its bells' subscribers along a moment later: that is no evidence of a death.
            where.on_change.append(self._note_reconnection)
        self._wakes = WakeQueues(where, rooms, timeout_s=timeout_s)
        self.desk = Desk(url)
        self.owners: dict[Address, Owner] = {}
        self.redis_time_ms = 0  # as of the last heartbeat
        self.is_registered = False  # whether inn:workers names this incarnation, so that others would see it die
        self.out_of_memory = asyncio.Event()
        self.thrift = Thrift()
        self.meters = WorkerMeters()
        self.owner_class = Owner
        self.draining = False
        self.max_rooms = 0  # 0: no limit
        self.orders = Orders(self)
        self._has_successor = True
        self.reconnected_at_s = -1.0
        self._by_bell: dict[bytes, Owner] = {}
        self._claiming: dict[Address, asyncio.Event] = {}
        self._asked_at_s: dict[Address, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.stage = Stage(stop_s=times.stop_handling_ms / 1000)
        self.setbacks = Setbacks()
        self._loading: asyncio.Task[None] | None = None

    # --- life of the worker ---------------------------------------------------------------------------------------
    async def load_functions(self) -> None:
        """Load the functions; many rooms that miss them at once cause one loading."""
        if self._loading is None or self._loading.done():
            self._loading = asyncio.create_task(load_library(self.link))
        try:
            await asyncio.shield(self._loading)
        except (RedisUnavailable, RedisReplied) as error:
            log.warning("functions not loaded: %s", error)

    async def serve_wakes(self) -> None:
        """Take rooms from the wake queues and claim them, until draining."""
        await self._wakes.serve(
            self.consider, places=lambda: self.places if self.is_registered else 0, until=lambda: self.draining
        )

    @property
    def room_count(self) -> int:
        """Rooms that are owned here, or will be if their claims succeed."""
        return len(self.owners) + len(self._claiming)

    @property
    def places(self) -> float:
        """How many rooms more this worker may take."""
        return self.max_rooms - self.room_count if self.max_rooms else math.inf

    async def wake(self, addresses: Iterable[Address]) -> None:
        """Put rooms into the index of rooms awake and into their wake queues; a room appears once.

        Raises:
            RedisUnavailable: Not all may have been woken.
            RedisReplied: As above; FunctionMissing where the functions must be loaded first.
        """
        await wake(self.link, addresses)

    async def drain(self, grace_s: float) -> None:
        """Hand every room over: finish the event, commit, release, wake; ten rooms at a time."""
        self.draining = True
        limit = asyncio.Semaphore(_HANDOVERS_AT_ONCE)

        async def hand_over(owner: Owner) -> None:
            async with limit:
                owner.leave("handover")
                if owner.task is not None:
                    await asyncio.wait([owner.task])
                await self._taken(owner)

        if self.owners:
            await asyncio.wait([asyncio.create_task(hand_over(o)) for o in self.owners.values()], timeout=grace_s)
        while self._claiming or self._tasks:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=1)
            else:
                await asyncio.sleep(0.01)
            for owner in self.owners.values():
                owner.leave("handover")

    async def _taken(self, owner: Owner) -> None:
        """Wait until a successor has the room, if there is one: else those released meanwhile would queue for it."""
        until_s = self.loop.time() + _TAKEN_WITHIN_S
        with contextlib.suppress(RedisUnavailable, RedisReplied):
            while self._has_successor and not await self.link.call("GET", owner.keys.lock):
                self._has_successor = self.loop.time() < until_s
                await asyncio.sleep(0.003)

    async def close(self) -> None:
        """End all tasks and connections; rooms still owned are taken over by others."""
        for owner in list(self.owners.values()):
            owner.drop("the worker ends")
        tasks = [owner.task for owner in self.owners.values() if owner.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # their ends are noted, and their rooms woken
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.bells.close()
        await self._wakes.close()
        await asyncio.gather(*(link.close() for link in {self.link, self.commit_link}))

    # --- claiming -------------------------------------------------------------------------------------------------
    def consider(self, text: str) -> None:
        """Claim a room that wants an owner, unless it turns out to have a living one."""
        try:
            address = parse_address(text)
        except InvalidAddress as error:
            log.warning("wake queue: %s", error)
            return
        if owner := self.owners.get(address):
            owner.ring([])
        elif address in self._claiming:
            self._claiming[address].set()
        elif self.orders.keeps_for_another(address):
            pass
        elif self.places <= 0 or address.kind not in self.rooms:  # taken from the queue a moment too late, or sent here
            self._spawn(self._wake_quietly(address))
        else:
            self._claiming[address] = asyncio.Event()
            self._spawn(self._claim_safely(address))

    def cut(self, owner: Owner, condemned: dict[bytes, str]) -> None:
        """Abandon a room object whose hook does not end; claim the room anew and put the event aside."""
        owner.drop("the handler limit was reached")
        self.meters.failures["cut"] += 1
        self._forget(owner)
        self._claiming[owner.address] = asyncio.Event()
        self._spawn(self._claim_safely(owner.address, owner, condemned))

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _claim_safely(
        self, address: Address, cut: Owner | None = None, condemned: dict[bytes, str] | None = None
    ) -> None:
        woken_again = self._claiming.setdefault(address, asyncio.Event())
        try:
            await self._claim(address, cut, condemned or {})
        except (RedisUnavailable, RedisReplied) as error:
            log.warning("room %s: claim failed: %s", address, error)
            if isinstance(error, FunctionMissing):
                await self.load_functions()
            await asyncio.sleep(0.1)
            if condemned and not self.draining:  # only this worker knows what is to be put aside
                self._spawn(self._claim_safely(address, None, condemned))
                return
            await self._wake_quietly(address)
        finally:
            self._claiming.pop(address, None)
            self._asked_at_s.pop(address, None)
            if address not in self.owners:
                self.bells.unsubscribe(room_keys(address).bell)
        if woken_again.is_set() and address not in self.owners:
            await self._wake_quietly(address)  # since the last look: nobody else has this wake

    async def _claim_after_setback(self, owner: Owner, condemned: dict[bytes, str]) -> None:
        await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
        await self._claim_safely(owner.address, owner, condemned)

    async def _claim(self, address: Address, cut: Owner | None, condemned: dict[bytes, str]) -> None:
        room = room_keys(address)
        if self.draining:
            await self.wake((address,))
            return
        seen = f"{self.incarnation}:{cut.token}".encode() if cut is not None else b""
        first = await self._ask_claim(address, room, seen, own_subscriptions=1 if cut is not None else 0)
        answer = await self._steal(address, room, first) if isinstance(first, Held) else first
        if answer is None:
            await self.link.call("SREM", keys.worker_rooms(self.incarnation), str(address))
            return
        await self.bells.subscribe(room.bell)
        await reap_unknown_edges(self.link, room, answer)
        self.meters.claimed(answer, is_own=cut is not None)
        room_class = self.rooms[address.kind]
        self._own(
            self.owner_class(
                self,
                address,
                keys=room,
                room_class=room_class,
                claimed=answer,
                condemned=condemned,
                asked_at_s=self._asked_at_s[address],
            )
        )

    async def _ask_claim(self, address: Address, room: RoomKeys, seen: bytes, own_subscriptions: int) -> Claimed | Held:
        self._asked_at_s[address] = self.loop.time()
        replies = await self.link.send(
            (
                ("SADD", keys.worker_rooms(self.incarnation), str(address)),
                functions.claim(
                    room,
                    worker=self.incarnation,
                    mark=secrets.randbelow(2**48 - 1) + 1,
                    lease_ms=self.times.lease_ms,
                    seen=seen,
                    own_subscriptions=own_subscriptions,
                ),
            )
        )
        return functions.read_claimed(replies[1])

    async def _steal(self, address: Address, room: RoomKeys, held: Held) -> Claimed | None:
        """Look at a held room again; None where its owner lives, or somebody else took it.

        After 25 ms where nobody listens to its bell; else when it is woken again or its lease is over.
        """
        since_reconnect_s = self.loop.time() - self.reconnected_at_s
        if since_reconnect_s < _STEAL_AFTER_RECONNECT_S:
            await asyncio.sleep(_STEAL_AFTER_RECONNECT_S - since_reconnect_s)
        woken_again = self._claiming[address]
        for _ in range(_LOOKS):
            if self.draining:
                await self.wake((address,))
                return None
            deserted = held.subscribers <= 0
            if deserted:  # its owner may be new and about to subscribe: always give it the 25 ms
                await asyncio.sleep(self.times.second_look_ms / 1000)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout((max(held.left_ms, 0) + 5) / 1000):
                        await woken_again.wait()
            was_woken = woken_again.is_set()
            woken_again.clear()
            answer = await self._ask_claim(address, room, held.lock, own_subscriptions=0)
            if isinstance(answer, Claimed):
                self.meters.takeovers["deserted" if deserted else "expired"] += 1
                log.info("room %s: taken over from %s", address, held.lock.decode())
                return replace(answer, taken_from=held.lock.decode().split(":")[0])
            renewed = not deserted and not was_woken and answer.left_ms > held.left_ms / 2
            if answer.lock != held.lock or renewed:
                return None
            held = answer
        return None

    # --- owning ---------------------------------------------------------------------------------------------------
    def _own(self, owner: Owner) -> None:
        self.owners[owner.address] = owner
        self.thrift.made()
        self._by_bell[owner.keys.bell.encode()] = owner
        owner.task = asyncio.create_task(owner.run(), name=f"room {owner.address}")
        owner.task.add_done_callback(lambda task: self._ended(owner, task))
        if self.draining:
            owner.leave("handover")

    def _forget(self, owner: Owner) -> None:
        self.stage.leave(owner)
        if self.owners.get(owner.address) is owner:
            del self.owners[owner.address]
            del self._by_bell[owner.keys.bell.encode()]

    def _ended(self, owner: Owner, task: asyncio.Task[None]) -> None:
        """A room's task is over: released, lost, dropped or failed."""
        replaced = self.owners.get(owner.address) is not owner
        self._forget(owner)
        self.thrift.dropped()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, MemoryError):
            log.critical("room %s: out of memory, this worker ends", owner.address)
            self.out_of_memory.set()
        elif error is not None and not isinstance(error, LeaseLost):
            log.error("room %s: its task failed", owner.address, exc_info=error)
        condemned = self.setbacks.ended(owner, error)
        if replaced:
            return
        self.meters.ended(owner.leaving, error, is_dropped=task.cancelled())
        if condemned is not None:
            self._claiming[owner.address] = asyncio.Event()
            self._spawn(self._claim_after_setback(owner, condemned))
            return
        self.bells.unsubscribe(owner.keys.bell)
        released = not task.cancelled() and error is None
        wanted = not released or owner.wanted or owner.leaving == "handover"
        self._spawn(self._let_go(owner, wake=wanted, pause=error is not None and not isinstance(error, LeaseLost)))

    async def _let_go(self, owner: Owner, *, wake: bool, pause: bool) -> None:
        if wake:
            if pause:
                await asyncio.sleep(_PAUSE_AFTER_FAILURE_S)
            if not (owner.successor and await self.orders.pass_on(owner)):
                await self._wake_quietly(owner.address)
        if owner.address not in self.owners and owner.address not in self._claiming:
            try:
                await self.link.call("SREM", keys.worker_rooms(self.incarnation), str(owner.address))
            except (RedisUnavailable, RedisReplied) as failed:
                log.debug("room %s: index not cleaned: %s", owner.address, failed)

    async def _wake_quietly(self, address: Address) -> None:
        try:
            await self.wake((address,))
        except (RedisUnavailable, RedisReplied) as error:
            log.warning("room %s: not woken, a sweep will do it: %s", address, error)

    def _on_bell(self, channel: bytes, body: bytes) -> None:
        owner = self._by_bell.get(channel)
        if owner is not None:
            owner.ring(read_news(body))
        elif body:
            self.orders.hear(channel, body)

    def _note_reconnection(self) -> None:
        self.reconnected_at_s = self.loop.time()

    def _on_fresh_bell(self, channel: bytes) -> None:
        self._note_reconnection()
        owner = self._by_bell.get(channel)
        if owner is not None:
            owner.ring([])

    async def note_error(self, room: RoomKeys, text: str) -> None:
        """Show in ``meta`` why a room does not start; empty text clears it."""
        command = ("HSET", room.meta, "error", sendable(text)) if text else ("HDEL", room.meta, "error")
        try:
            await self.link.call(*command)
        except (RedisUnavailable, RedisReplied) as error:
            log.debug("error of a room not noted: %s", error)


def new_incarnation() -> str:
    """Return the id of one run of a worker."""
    return f"w-{secrets.token_hex(5)}"
