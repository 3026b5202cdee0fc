"""The edge: which rooms it has sockets in, its life in the registry, and the sweep that finds what pub/sub lost."""

import asyncio
import logging
import secrets
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from innkeeper import functions, keys
from innkeeper.address import Address
from innkeeper.close_codes import RESTARTING
from innkeeper.durability import Durability, ReplicatedLink
from innkeeper.errors import FunctionMissing, RedisReplied, RedisUnavailable
from innkeeper.functions import PushEvent
from innkeeper.keys import room_keys
from innkeeper.lease import DEFAULT_TIMES, LeaseTimes
from innkeeper.memory import Thrift
from innkeeper.meters import EdgeMeters
from innkeeper.topology import Commands, Subscriptions, Where, open_link, open_subscriber
from innkeeper_edge.auth import Anybody, Authenticator
from innkeeper_edge.calls import Calls
from innkeeper_edge.feed import Feed
from innkeeper_edge.ingress import Ingress
from innkeeper_edge.limits import DEFAULT_LIMITS, Limits
from innkeeper_edge.member import Member
from innkeeper_edge.rates import Rates
from innkeeper_edge.sweep import SWEEP_PIECE, Sweep

if TYPE_CHECKING:
    from innkeeper_edge.traces import EdgeTraces

log = logging.getLogger("innkeeper.edge")

_KINDS_EVERY_BEATS = 4
_DEFAULT_BACKLOG_COUNT = 10_000


class Kind(NamedTuple):
    """What an edge must know of a kind of room; written by workers.

    ``request_s`` is how long a request may wait for its answer; None where the class takes none.
    """

    codec: str
    message_bytes: int
    backlog_count: int
    request_s: float | None = None


class Edge:
    """One edge process: no truth is kept here, so it may die at any moment.

    Args:
        where: Where Redis is.
        times: The figures of ownership.
        durability: What a message must have survived to count as accepted.
        limits: What sockets may do.
        authenticator: Says whose a socket is, and which rooms it may enter; without one anybody may enter all.
        traces: Follows messages; None: nobody does.

    Attributes:
        draining: Whether it is being stopped: it takes no socket any more.
        talkers: Sockets that have said something since their rates were judged last.
    """

    def __init__(
        self,
        where: Where,
        times: LeaseTimes = DEFAULT_TIMES,
        durability: Durability = Durability.RELAXED,
        limits: Limits = DEFAULT_LIMITS,
        authenticator: Authenticator | None = None,
        *,
        traces: "EdgeTraces | None" = None,
    ) -> None:
        self.traces = traces
        self.authenticator: Authenticator = authenticator or Anybody()
        self.loop = asyncio.get_running_loop()
        self.times, self.limits = times, limits
        self.draining = False
        self.talkers: list[Member] = []
        self.incarnation = _new_incarnation()
        self.meters = EdgeMeters()
        self.heartbeat_ms = 0
        self.heard_at_s = 0.0  # when Redis last answered a heartbeat, by the loop's clock
        self.kinds: dict[str, Kind] = {}
        self.subscriber: Subscriptions = open_subscriber(
            where, on_message=self._on_message, on_fresh=self._on_fresh, name="outputs"
        )
        self.link: Commands = open_link(
            where, timeout_s=times.redis_timeout_ms / 1000, name="edge", on_unready=self.subscriber.reopen
        )
        # What is accepted, and what is read to be shown; in `replicated` a replica has it first.
        self.lasting_link: Commands = self.link
        if durability is Durability.REPLICATED:
            self.lasting_link = open_link(
                where, timeout_s=times.redis_timeout_ms / 1000, name="pushes", kind=ReplicatedLink
            )
        self.ingress = Ingress(self) if traces is None else traces.make_ingress(self)
        self.calls = Calls(self)
        self.rates = Rates(self, limits)
        self.fill_count = self.resync_count = 0
        self.thrift = Thrift()
        self.ownerless: dict[Address, float] = {}  # rooms with backlog and no owner, and since when they were seen
        self.ready = asyncio.Event()
        self.feeds: dict[Address, Feed] = {}
        self._by_channel: dict[bytes, Feed] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._registered = asyncio.Event()  # whether this incarnation stands in inn:edges
        self._beating = asyncio.create_task(self._beat_forever(), name="heartbeat")
        self.duties = [
            asyncio.create_task(self.ingress.run(), name="ingress"),
            self._beating,
            asyncio.create_task(Sweep(self).sweep_forever(), name="sweep"),
            asyncio.create_task(self.rates.run(), name="rates"),
        ]
        for duty in self.duties:
            duty.add_done_callback(_report)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run something beside; its failure is logged."""
        _ = self.start(work)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something beside, and return its task; its failure is logged."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_report)
        return task

    def backlog_count(self, kind: str) -> int:
        """Return how many messages and joins may wait in a room of this kind."""
        known = self.kinds.get(kind)
        return known.backlog_count if known is not None else _DEFAULT_BACKLOG_COUNT

    def count_resync(self, sockets: int) -> None:
        """Count a room whose history was cut, here and where operators find it."""
        self.resync_count += 1
        self.meters.resynced_sockets += sockets
        self.spawn(self._count({"resyncs": 1, "resynced_sockets": sockets}))

    async def _count(self, counts: dict[str, int]) -> None:
        while True:
            try:
                await self.link.send([("HINCRBY", keys.COUNTERS, name, count) for name, count in counts.items()])
            except RedisUnavailable:
                await asyncio.sleep(0.5)
            else:
                return

    # --- sockets --------------------------------------------------------------------------------------------------
    async def enter(self, address: Address, member: Member) -> Feed:
        """Subscribe for a socket, then queue its join; from its join mark on it receives.

        Cancelling is safe before the join is queued; after that, call :meth:`leave`.
        """
        feed = self.hold(address)
        member.register(feed)
        self.thrift.made()
        try:
            incarnation = ""
            while incarnation != self.incarnation:  # declared dead meanwhile: once more under the new one
                incarnation = self.incarnation
                await self._registered.wait()
                if feed.indexed != incarnation:
                    await self._index(address)
                    feed.indexed = incarnation
                await feed.opened()
        except BaseException:
            self._withdraw(feed, member)
            raise
        member.pushed = True
        self.meters.joins += 1
        self.ingress.add(feed, member.join_event(member.grant.user), member)
        return feed

    def hold(self, address: Address) -> Feed:
        """Return a room's feed, made if need be; it stays until each holder has called :meth:`release`."""
        feed = self.feeds.get(address)
        if feed is None:
            feed = self.feeds[address] = Feed(self, address)
            self._by_channel[feed.keys.out.encode()] = feed
        feed.users += 1
        return feed

    def release(self, feed: Feed) -> None:
        """Hold a feed no longer."""
        feed.users -= 1
        self.retire(feed)

    async def registered(self) -> None:
        """Return when this incarnation stands in ``inn:edges``."""
        await self._registered.wait()

    def take(self, feed: Feed, member: Member, kind: str, data: bytes) -> None:
        """Queue a message of a socket; ``kind`` is text or binary.

        Whoever was not let in, or whose incarnation was declared dead, has nothing to say, though it is still read.
        """
        if not member.pushed:
            return
        member.took(len(data))
        self.meters.messages_in += 1
        self.ingress.add(feed, PushEvent(kind, member.id, bytes(data)), member)

    def leave(self, feed: Feed, member: Member) -> None:
        """Queue the leave of a socket that is gone; what it sent before comes before it."""
        if member.pushed:
            self.ingress.add(feed, member.leave_event(), member)
            member.pushed = False
        else:
            member.leave_settled()
        self._withdraw(feed, member)

    def _withdraw(self, feed: Feed, member: Member) -> None:
        member.left = True
        member.unregister(feed)
        self.thrift.dropped()
        self.release(feed)

    def retire(self, feed: Feed) -> None:
        """Let a room go that has no sockets here and nothing on its way."""
        if feed.users or self.ingress.has_work(feed) or self.feeds.get(feed.address) is not feed:
            return
        del self.feeds[feed.address]
        del self._by_channel[feed.keys.out.encode()]
        feed.close()
        self.spawn(self._unindex(feed.address))

    async def _index(self, address: Address) -> None:
        while True:
            try:
                await self.link.call("SADD", keys.edge_rooms(self.incarnation), str(address))
            except (RedisUnavailable, RedisReplied):  # away, or its memory is full: a join has its deadline
                await asyncio.sleep(0.05)
            else:
                return

    async def _unindex(self, address: Address) -> None:
        try:
            if address not in self.feeds:
                await self.link.call("SREM", keys.edge_rooms(self.incarnation), str(address))
        except (RedisUnavailable, RedisReplied) as error:
            log.debug("room %s: index not cleaned: %s", address, error)

    async def wake(self, addresses: Iterable[Address]) -> None:
        """Put rooms without a living owner into their wake queues, however long it takes.

        A room whose last socket has gone is swept by nobody here: only this makes its leave count.
        """
        commands = functions.wake(addresses)
        wait_s = 0.02
        while True:
            try:
                replies = await self.link.send(commands)
            except RedisUnavailable as error:
                log.warning("rooms not woken yet: %s", error)
            else:
                failed = [reply for reply in replies if isinstance(reply, RedisReplied)]
                if not failed:
                    return
                log.warning("rooms not woken yet: %s", failed[0])
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 1.0)

    async def leave_unknown_members(self, feed: Feed) -> None:
        """Push the end of members that name this edge and that it does not have (a rollback brought them back)."""
        try:
            rows = await self.link.call("HGETALL", feed.keys.members)
        except (RedisUnavailable, RedisReplied) as error:
            log.warning("room %s: members not compared: %s", feed.address, error)
            return
        for connection, row in zip(rows[::2], rows[1::2], strict=True):
            name, fields = connection.decode(), orjson.loads(row)
            if fields["edge"] != self.incarnation or feed.knows(name):
                continue
            if not fields["session"]:
                self.ingress.add(feed, PushEvent("leave", name, b""), None)
            elif fields.get("up", True):
                self.ingress.add(feed, PushEvent("drop", name, b"", fields["session"], 0, fields["gen"]), None)

    # --- outputs --------------------------------------------------------------------------------------------------
    def _on_message(self, channel: bytes, body: bytes) -> None:
        feed = self._by_channel.get(channel)
        if feed is not None:
            feed.receive(body)

    def _on_fresh(self, channel: bytes) -> None:
        feed = self._by_channel.get(channel)
        if feed is not None and feed.chain is not None:
            feed.fill()

    # --- regular duties -------------------------------------------------------------------------------------------
    async def _beat_forever(self) -> None:
        beats = 0
        while True:
            try:
                await self._beat()
                if beats % _KINDS_EVERY_BEATS == 0 or not self.kinds:
                    await self._read_kinds()
                beats += 1
                if not self.draining:
                    self.ready.set()
            except FunctionMissing:
                if not self.ready.is_set() and beats == 0:
                    log.info("waiting for a worker to load the functions")
                    beats = _KINDS_EVERY_BEATS
            except (RedisUnavailable, RedisReplied) as error:
                log.warning("heartbeat: %s", error)
            await asyncio.sleep(self.times.heartbeat_ms / 1000)

    async def _beat(self) -> None:
        incarnation = self.incarnation
        command = functions.heartbeat(keys.EDGES, incarnation=incarnation, first=not self._registered.is_set())
        alive, self.heartbeat_ms = functions.read_heartbeat((await self.link.send((command,)))[0])
        self.heard_at_s = self.loop.time()
        if incarnation != self.incarnation:
            return  # the answer is about a past life
        if alive:
            self._registered.set()
        else:
            self.declared_dead()

    async def _read_kinds(self) -> None:
        flat = await self.link.call("HGETALL", keys.KINDS)
        kinds = {}
        for name, row in zip(flat[::2], flat[1::2], strict=True):
            fields = orjson.loads(row)
            kinds[name.decode()] = Kind(
                fields["codec"], fields["message_bytes"], fields["backlog_count"], fields.get("request_s")
            )
        self.kinds = kinds

    def declared_dead(self) -> None:
        """Take a new incarnation: the old one's members leave everywhere, so its sockets are closed with 1012."""
        old = self.incarnation
        log.warning("edge %s was declared dead: closing its sockets, taking a new incarnation", old)
        self.incarnation = _new_incarnation()
        self._registered.clear()
        self.spawn(self._beat())
        self.ingress.forget()  # nothing of the old incarnation's sockets may go out under the new one
        for feed in self.feeds.values():
            feed.accepted_batch = 0
            for member in feed.sockets():
                member.pushed = False  # its leave comes from the reaping
                member.close_with(RESTARTING)
            for call in list(feed.fanout.calls.values()):
                call.close_with(RESTARTING)
        self.spawn(self._reap_oneself(old, list(self.feeds)))

    async def _reap_oneself(self, incarnation: str, addresses: list[Address]) -> None:
        """Let the old incarnation's members leave, also in rooms that it entered after the reaper had looked."""
        for at in range(0, len(addresses), SWEEP_PIECE):
            piece = addresses[at : at + SWEEP_PIECE]
            while True:
                try:
                    await self.link.send([functions.reap_edge(room_keys(room), edge=incarnation) for room in piece])
                except RedisUnavailable as error:
                    log.warning("edge %s: %d room(s) not left yet: %s", incarnation, len(piece), error)
                    await asyncio.sleep(0.5)
                else:
                    break
            await self.wake(piece)
        try:  # the reaper has deleted it; rooms that were entered after that stand there since
            await self.link.call("DEL", keys.edge_rooms(incarnation))
        except (RedisUnavailable, RedisReplied) as error:
            log.debug("edge %s: index not deleted: %s", incarnation, error)

    # --- the end --------------------------------------------------------------------------------------------------
    async def deregister(self) -> None:
        """Leave the registry, once all leaves were pushed.

        Raises:
            RedisUnavailable: No answer: the reaper will find it gone.
        """
        await self.ingress.flushed()
        while self._tasks:  # wakes that Redis has not answered: the last leaves hang on them
            await asyncio.wait(self._tasks)
        self._beating.cancel()
        await self.link.send((("ZREM", keys.EDGES, self.incarnation), ("DEL", keys.edge_rooms(self.incarnation))))

    async def close(self) -> None:
        """End all duties and connections."""
        for task in (*self.duties, *self._tasks):
            task.cancel()
        await asyncio.gather(*self.duties, *self._tasks, return_exceptions=True)
        await self.subscriber.close()
        await asyncio.gather(*(link.close() for link in {self.link, self.lasting_link}))


def _new_incarnation() -> str:
    return f"e-{secrets.token_hex(5)}"


def _report(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed", task.get_name(), exc_info=error)
