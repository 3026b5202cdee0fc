"""Ingress: events of this edge's sockets into the rooms' inboxes, in group commits without a timer.

One flush is in flight to each server; what comes meanwhile is the next one. Alone, a message leaves at once.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from innkeeper import functions
from innkeeper.channel import Command, Reply
from innkeeper.close_codes import UNAVAILABLE
from innkeeper.errors import EdgeClosed, RedisReplied, RedisUnavailable
from innkeeper.functions import Pushed, PushEvent
from innkeeper.turn import TURN_EVENTS, TURN_IN_BYTES
from innkeeper_edge.feed import Feed
from innkeeper_edge.member import Member

if TYPE_CHECKING:
    from innkeeper_edge.calls import Call
    from innkeeper_edge.edge import Edge

log = logging.getLogger("innkeeper.edge")

_BUSY_FIRST_S = 0.01
_BUSY_MOST_S = 0.25
_ENDS = ("leave", "drop")
_SAID = ("text", "binary")

OVERLOADED_S = 10.0
"""How long a full room may refuse all messages before their senders are told."""


# An event waiting to be pushed, and the socket or request it came from (None for the leave of a socket unknown here).
Queued = tuple[PushEvent, "Member | Call | None"]


class Batch(NamedTuple):
    """What one push carries, and the number under which it counts once."""

    number: int
    events: list[Queued]


class Inlet:
    """What waits for one room.

    Attributes:
        unsettled: A batch that was answered with an error. An earlier attempt, whose answer was lost, may have been
            carried out: so it must go again as it is, under its number, before anything else.
        refused_since_s: Since when the room has taken no message, because its backlog is full.
    """

    __slots__ = ("busy_s", "feed", "planned", "queue", "refused_since_s", "unsettled")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.queue: list[Queued] = []
        self.unsettled: Batch | None = None
        self.planned = False
        self.busy_s = 0.0
        self.refused_since_s: float | None = None


class Lane:
    """What is to be flushed to one server; a server that is away holds back no other's lane."""

    __slots__ = ("news", "ready")

    def __init__(self) -> None:
        self.ready: list[Inlet] = []
        self.news = asyncio.Event()


class Ingress:
    """All inlets of this edge, and the one flush in flight to each server."""

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge
        self._inlets: dict[Feed, Inlet] = {}
        self._lanes: dict[str, Lane] = {}
        self._new_lane = asyncio.Event()
        self._batch = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, feed: Feed, event: PushEvent, member: "Member | Call | None") -> None:
        """Queue an event of a socket; its order among that socket's events stays."""
        inlet = self._inlets.get(feed)
        if inlet is None:
            inlet = self._inlets[feed] = Inlet(feed)
        inlet.queue.append((event, member))
        if not inlet.planned:
            self._plan(inlet)

    def has_work(self, feed: Feed) -> bool:
        """Whether something of the room is queued or on its way."""
        return feed in self._inlets

    @property
    def waiting_count(self) -> int:
        """How many events wait to be pushed, or to be pushed again."""
        return sum(
            len(inlet.queue) + (len(inlet.unsettled.events) if inlet.unsettled else 0)
            for inlet in self._inlets.values()
        )

    def forget(self) -> None:
        """Drop all that waits: its sockets' incarnation is dead."""
        for inlet in self._inlets.values():
            _drop(inlet.queue)
            inlet.queue = []
            if inlet.unsettled is not None:
                _drop(inlet.unsettled.events)
                inlet.unsettled = None

    def withdraw(self, feed: Feed, connection: str) -> None:
        """Drop what waits of a request that was given up; what is on its way may still be accepted."""
        inlet = self._inlets.get(feed)
        if inlet is not None:
            inlet.queue = [queued for queued in inlet.queue if queued[0].connection != connection]

    async def flushed(self) -> None:
        """Return when nothing waits and nothing is on its way."""
        await self._idle.wait()

    async def run(self) -> None:
        """Flush for ever."""
        tasks: list[asyncio.Task[None]] = []
        waiting: asyncio.Task[Any] = asyncio.create_task(self._new_lane.wait())
        try:
            while True:
                self._new_lane.clear()
                tasks += [
                    asyncio.create_task(self._flush_lane(lane)) for lane in list(self._lanes.values())[len(tasks) :]
                ]
                await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        await task
                waiting = asyncio.create_task(self._new_lane.wait())
        finally:
            for task in (waiting, *tasks):
                task.cancel()

    async def _flush_lane(self, lane: Lane) -> None:
        while True:
            if not lane.ready:
                if not self._inlets:
                    self._idle.set()
                await lane.news.wait()
            lane.news.clear()
            inlets, lane.ready = lane.ready, []
            await self._flush(inlets)

    def _plan(self, inlet: Inlet) -> None:
        inlet.planned = True
        where = self._edge.link.lane(inlet.feed.keys.inbox)
        lane = self._lanes.get(where)
        if lane is None:
            lane = self._lanes[where] = Lane()
            self._new_lane.set()
        if not lane.ready:
            self._idle.clear()
            lane.news.set()
        lane.ready.append(inlet)

    async def _flush(self, inlets: list[Inlet]) -> None:
        edge = self._edge
        self._batch += 1
        sent: list[tuple[Inlet, Batch]] = []
        for inlet in inlets:
            batch = inlet.unsettled or Batch(self._batch, self._take_batch(inlet))
            if batch.events:
                inlet.unsettled = None
                sent.append((inlet, batch))
            else:  # forgotten meanwhile
                self._after(inlet)
        if not sent:
            return
        incarnation, meters, sent_at_s = edge.incarnation, edge.meters, edge.loop.time()
        meters.pushes += len(sent)
        replies = await self._send([self._push(inlet, batch) for inlet, batch in sent])
        meters.push_s.observe(edge.loop.time() - sent_at_s)
        wakes = []
        for (inlet, batch), reply in zip(sent, replies, strict=True):
            if edge.incarnation != incarnation:
                _drop(batch.events)
            elif self._answered(inlet, batch, reply):
                wakes.append(inlet.feed.address)
        if wakes:
            # Sent before a room without sockets leaves this edge's index: whoever reaps a dead edge wakes its rooms.
            edge.spawn(edge.wake(wakes))
        for inlet, _ in sent:
            self._after(inlet)

    def _take_batch(self, inlet: Inlet) -> list[Queued]:
        """Take what one push may carry: 256 events, 256 KiB."""
        queue, size, count = inlet.queue, 0, 0
        for event, _ in queue:
            if count == TURN_EVENTS or size >= TURN_IN_BYTES:
                break
            size += len(event.data)
            count += 1
        self._edge.meters.pushed_events += count
        self._edge.meters.bytes_in += size
        inlet.queue = queue[count:]
        return queue[:count]

    def _push(self, inlet: Inlet, batch: Batch) -> Command:
        edge = self._edge
        return functions.push(
            inlet.feed.keys,
            edge=edge.incarnation,
            batch=batch.number,
            heartbeat_ms=edge.heartbeat_ms,
            backlog_count=edge.backlog_count(inlet.feed.address.kind),
            events=[event for event, _ in batch.events],
        )

    def _answered(self, inlet: Inlet, batch: Batch, reply: Reply) -> bool:
        """Take the answer to one push; return whether the room wants an owner."""
        try:
            pushed = functions.read_pushed(reply)
        except EdgeClosed as error:
            log.warning("room %s: %s", inlet.feed.address, error)
            _drop(batch.events)
            self._edge.declared_dead()
            return False
        except RedisReplied as error:
            log.warning("room %s: not accepted yet: %s", inlet.feed.address, error)
            inlet.unsettled = batch
            self._edge.meters.deferred += 1
            inlet.busy_s = min(max(inlet.busy_s * 2, _BUSY_FIRST_S), _BUSY_MOST_S)
            return False
        feed = inlet.feed
        if pushed.previous_batch < feed.accepted_batch:
            feed.cut()
        if "a" in pushed.letters:
            feed.accepted_batch = batch.number
        self._settle(inlet, batch.events, pushed)
        if feed.sessions is not None:
            feed.sessions.answered(batch.events, pushed)
        return (not pushed.lock or not pushed.receivers) and "a" in pushed.letters

    async def _send(self, commands: list[Command]) -> list[Reply]:
        """Send pushes; unchanged again until there is an answer, because each counts once."""
        wait_s = 0.02
        while True:
            try:
                return await self._edge.lasting_link.send(commands)
            except RedisUnavailable as error:
                log.warning("push: %s; sending again", error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 0.5)

    def _settle(self, inlet: Inlet, batch: list[Queued], pushed: Pushed) -> None:
        """Take the letters: what was refused goes back to the head, unless its sender is gone or was not let in."""
        if "b" not in pushed.letters:
            inlet.busy_s, inlet.refused_since_s = 0.0, None
            _drop(batch)
            return
        self._edge.meters.refused += pushed.letters.count("b")
        gone = _gone(batch, pushed.letters)
        back = []
        for queued, letter in zip(batch, pushed.letters, strict=True):
            if letter == "b" and _sender(queued[0]) not in gone:
                back.append(queued)
            else:
                _drop([queued])
        is_kept = [event.kind in _ENDS or _sender(event) not in gone for event, _ in inlet.queue]
        _drop([queued for queued, kept in zip(inlet.queue, is_kept, strict=True) if not kept])
        inlet.queue = [*back, *(queued for queued, kept in zip(inlet.queue, is_kept, strict=True) if kept)]
        inlet.busy_s = min(max(inlet.busy_s * 2, _BUSY_FIRST_S), _BUSY_MOST_S)
        self._refused(inlet, took_some=_took_some(batch, pushed.letters))

    def _refused(self, inlet: Inlet, *, took_some: bool) -> None:
        """Tell senders whom a full room lets wait for too long; it is told again as long as that lasts."""
        now_s = self._edge.loop.time()
        if took_some or inlet.refused_since_s is None:
            inlet.refused_since_s = now_s
        elif now_s - inlet.refused_since_s > OVERLOADED_S:
            inlet.refused_since_s = now_s
            senders = {member for event, member in inlet.queue if event.kind in _SAID and isinstance(member, Member)}
            log.warning("room %s: full for %g s, %d sender(s) told", inlet.feed.address, OVERLOADED_S, len(senders))
            for member in senders:
                member.overloaded()

    def _after(self, inlet: Inlet) -> None:
        inlet.planned = False
        if not inlet.queue and inlet.unsettled is None:
            del self._inlets[inlet.feed]
            self._edge.retire(inlet.feed)
        elif inlet.busy_s:
            inlet.planned = True
            self._edge.loop.call_later(inlet.busy_s, self._plan, inlet)
        else:
            self._plan(inlet)


def _took_some(batch: list[Queued], letters: str) -> bool:
    """Return whether a room has taken a message, if not all."""
    return any(letter == "a" and event.kind in _SAID for (event, _), letter in zip(batch, letters, strict=True))


def _sender(event: PushEvent) -> tuple[str, int]:
    """Return which socket an event is of: those of a session differ by generation."""
    return event.connection, event.generation


def _gone(batch: list[Queued], letters: str) -> set[tuple[str, int]]:
    """Return the sockets whose refused and queued messages count no more: they left, or were not let in."""
    gone = set()
    for (event, member), letter in zip(batch, letters, strict=True):
        if event.kind in _ENDS and letter != "b":
            gone.add(_sender(event))
        elif event.kind in ("join", "request") and letter == "b":
            gone.add(_sender(event))
            if member is not None:
                member.pushed = False
                member.close_with(UNAVAILABLE)
    return gone


def _drop(batch: list[Queued]) -> None:
    """Stop counting messages as waiting: they were accepted, or their sender is gone."""
    for event, member in batch:
        if member is None:
            continue
        if event.kind in ("text", "binary"):
            member.settled(len(event.data))
        elif event.kind == "leave":
            member.leave_settled()
