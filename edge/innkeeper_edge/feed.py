"""One room's outputs at this edge: in order, without holes, or a resync."""

import asyncio
import logging
from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING

from innkeeper.address import Address
from innkeeper.close_codes import RESYNC
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.keys import room_keys
from innkeeper.traces import now_ns
from innkeeper.wire import Batch, StreamId, format_id, parse_id, read_batch, read_outlog_entry
from innkeeper_edge.chain import Chain, Verdict
from innkeeper_edge.fanout import Fanout
from innkeeper_edge.sessions import Sessions

if TYPE_CHECKING:
    from innkeeper.channel import Reply
    from innkeeper.topology import Commands
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.member import Member

log = logging.getLogger("innkeeper.edge")

_YOUNG_S = 1.0
_FILL_COUNT = 64
_NOT_SHOWN = "room %s: outputs failed on their way to its sockets"


class Feed:
    """The subscription of one room, shared by all its sockets at this edge.

    Batches that come while the position is being read or a hole is being filled wait, in order.
    """

    def __init__(self, edge: "Edge", address: Address) -> None:
        self.edge = edge
        self.address = address
        self.keys = room_keys(address)
        self.fanout = Fanout(edge.meters)
        self.sessions: Sessions | None = None  # made with the first socket that speaks innkeeper.v1
        self.users = 0
        self.indexed = ""  # the incarnation in whose index of rooms it stands
        self.chain: Chain | None = None
        self.suspect: StreamId | None = None
        self.accepted_batch = 0  # number of this edge's last batch of which the room accepted something
        self.link: Commands = edge.lasting_link
        self._waiting: deque[Batch] = deque()
        self._busy = True
        self._is_cut = False
        self._opened_at_s = edge.loop.time()
        self._opening: asyncio.Task[None] | None = None
        self._placed = asyncio.Event()  # whether the position is known, and not just being read anew

    # --- its sockets ----------------------------------------------------------------------------------------------
    def opened_sessions(self) -> Sessions:
        """Return the sockets that speak innkeeper.v1."""
        if self.sessions is None:
            self.sessions = Sessions(self)
        return self.sessions

    def sockets(self) -> "list[Member]":
        """Return all sockets of the room here."""
        members = list(self.fanout.members.values())
        return members if self.sessions is None else [*members, *self.sessions]

    def knows(self, connection: str) -> bool:
        """Return whether there is a socket of this connection here."""
        return connection in self.fanout.members or (self.sessions is not None and connection in self.sessions.sockets)

    # --- opening --------------------------------------------------------------------------------------------------
    async def opened(self) -> None:
        """Return when the subscription is confirmed and the room's last output is known: now a join may be pushed."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)
        await self._placed.wait()

    async def _open(self) -> None:
        await self.edge.subscriber.subscribe(self.keys.out)
        await self._take_position()

    async def _take_position(self) -> None:
        last: Reply = None
        cursor: Reply = None
        while True:
            try:
                last, cursor = await self.link.call("HMGET", self.keys.meta, "last", "cursor")
                break
            except (RedisUnavailable, RedisReplied) as error:
                log.warning("room %s: position not read: %s", self.address, error)
                await asyncio.sleep(0.1)
        self.chain = Chain(parse_id(last) if last else (0, 0))
        if self.sessions is not None:
            self.sessions.advance(int(cursor or 0))
        self._opened_at_s = self.edge.loop.time()
        self._placed.set()
        self._go_on()

    def close(self) -> None:
        """Stop; no socket is left."""
        if self._opening is not None:
            self._opening.cancel()
        self.edge.subscriber.unsubscribe(self.keys.out)

    # --- what comes -----------------------------------------------------------------------------------------------
    def receive(self, body: bytes) -> None:
        """Take a published batch."""
        try:
            batch = read_batch(body)
        except ValueError:
            log.exception("room %s: a batch that this edge cannot read, looking into the outlog", self.address)
            self.fill()
            return
        if self._busy:
            self._waiting.append(batch)
        else:
            self._take(batch)

    def _take(self, batch: Batch) -> None:
        chain = self.chain
        assert chain is not None  # noqa: S101 - busy until there is one
        verdict = Verdict.APPEND
        if not chain.follows(batch):
            verdict = chain.judge(batch, young=self.edge.loop.time() - self._opened_at_s < _YOUNG_S)
        if verdict is Verdict.APPEND:
            sessions, previous, traces = self.sessions, chain.position, self.edge.traces
            began_ns = 0 if traces is None else now_ns()
            chain.advance(batch.first, batch.last, int(batch.mark))
            try:
                self.fanout.deliver(batch.outputs)
                if sessions is not None:
                    sessions.deliver(previous, chain.position[1], batch.outputs)
                    sessions.advance(batch.cursor)
                if traces is not None:
                    traces.shown(self, batch, began_ns)
            except Exception:  # nobody knows who has got them
                log.exception(_NOT_SHOWN, self.address)
                self.resync("outputs could not be shown")
        elif verdict is Verdict.FILL:
            self.fill()
        elif verdict is Verdict.RESYNC:
            self.resync("its history was rolled back")

    def _go_on(self) -> None:
        self._busy = False
        if self._is_cut:
            self.cut()
        while self._waiting and not self._busy:
            self._take(self._waiting.popleft())

    # --- holes ----------------------------------------------------------------------------------------------------
    def fill(self) -> None:
        """Read what is missing from the outlog."""
        if not self._busy:
            self._busy = True
            self.edge.fill_count += 1
            self.edge.spawn(self._fill())

    async def _fill(self) -> None:
        chain = self.chain
        assert chain is not None  # noqa: S101 - busy until there is one
        while True:
            start = format_id(chain.position) if chain.position[0] else b"-"
            try:
                stored, entries = await self.link.send(
                    (
                        ("HMGET", self.keys.meta, "last", "cursor"),
                        ("XRANGE", self.keys.outlog, start, "+", "COUNT", _FILL_COUNT),
                    )
                )
                for reply in (stored, entries):
                    if isinstance(reply, RedisReplied):
                        raise reply
            except (RedisUnavailable, RedisReplied) as error:
                log.warning("room %s: outlog not read: %s", self.address, error)
                await asyncio.sleep(0.1)
                continue
            last, cursor = stored
            if last is not None and parse_id(last) == chain.position:
                break  # nothing was missed; the outlog of a sleeping room may have expired
            try:
                if not self._append_entries(entries):
                    return
            except Exception:
                log.exception(_NOT_SHOWN, self.address)
                self.resync("outputs could not be shown")
                return
            if len(entries) < _FILL_COUNT:
                break
        if self.sessions is not None:
            self.sessions.advance(int(cursor or 0))
        self._go_on()

    def _append_entries(self, entries: "Reply") -> bool:
        """Deliver outlog entries that follow the edge's own last one; False where that is not there: resync."""
        chain = self.chain
        assert chain is not None  # noqa: S101 - see _fill
        if chain.position[0]:
            if not entries or parse_id(entries[0][0]) != chain.position:
                self.resync("what this edge saw last is not in its outlog")
                return False
            entries = entries[1:]
        outputs = []
        places = [chain.position]
        for entry_id, fields in entries:
            oseq, mark = parse_id(entry_id)
            if oseq != chain.position[0] + 1:
                self.resync("its outlog has a hole")
                return False
            chain.advance(oseq, oseq, mark)
            outputs.append(read_outlog_entry(fields))
            places.append(chain.position)
        self.fanout.deliver(outputs)
        if self.sessions is not None:
            for mark, run in groupby(range(len(outputs)), lambda n: places[n + 1][1]):
                numbers = list(run)
                self.sessions.deliver(places[numbers[0]], mark, outputs[numbers[0] : numbers[-1] + 1])
        return True

    def resync(self, why: str) -> None:
        """History was cut: raw sockets cannot be told, so they are closed 4512 and come back to a fresh snapshot.

        Sessions stay, and are told from where on they receive anew.
        """
        sockets = self.sockets()
        log.warning("room %s: %s, its %d socket(s) resync", self.address, why, len(sockets))
        self.accepted_batch = 0
        self._is_cut = False
        self.edge.count_resync(len(sockets))
        self._busy = True
        self._placed.clear()
        self._waiting.clear()
        for member in list(self.fanout.members.values()):
            member.close_with(RESYNC)  # those waiting for their join too: it may be in what was cut
        for call in list(self.fanout.calls.values()):
            call.close_with(RESYNC)  # its answer may be in what was cut
        self.fanout.live.clear()
        if self.sessions is not None:
            self.sessions.cut()
        self.edge.spawn(self._start_over())

    def cut(self) -> None:
        """Take it that Redis has forgotten a batch which it had accepted: what clients said is lost, so they resync."""
        self._is_cut = self._busy
        if not self._busy:
            self.resync("accepted messages were lost")

    async def _start_over(self) -> None:
        await self._take_position()
        if self.sessions is not None:
            self.sessions.ask_resyncs()
        await self.edge.leave_unknown_members(self)

    # --- the sweep ------------------------------------------------------------------------------------------------
    def look(self, stored: StreamId, seen_position: StreamId) -> None:
        """Compare with what the room's meta said while the edge stood at ``seen_position``."""
        if self._busy or self.chain is None:
            return
        if stored == seen_position:
            self.suspect = None
        elif stored[0] <= seen_position[0]:
            self.suspect = None
            self.resync("its history was rolled back")
        elif self.suspect is not None and self.chain.position[0] < self.suspect[0]:
            self.suspect = None
            log.info("room %s: outputs got lost on the way, reading them", self.address)
            self.fill()
        else:
            self.suspect = stored
