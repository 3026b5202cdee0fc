"""One room's outputs at this edge: in order, without holes, or a resync."""

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from innkeeper.address import Address
from innkeeper.close_codes import RESYNC
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.keys import room_keys
from innkeeper.wire import Batch, StreamId, format_id, parse_id, read_batch, read_outlog_entry
from innkeeper_edge.chain import Chain, Verdict
from innkeeper_edge.fanout import Fanout

if TYPE_CHECKING:
    from innkeeper.channel import Reply
    from innkeeper.topology import Commands
    from innkeeper_edge.edge import Edge

log = logging.getLogger("innkeeper.edge")

_YOUNG_S = 1.0
_FILL_COUNT = 64


class Feed:
    """The subscription of one room, shared by all its sockets at this edge.

    Batches that come while the position is being read or a hole is being filled wait, in order.
    """

    def __init__(self, edge: "Edge", address: Address) -> None:
        self.edge = edge
        self.address = address
        self.keys = room_keys(address)
        self.fanout = Fanout()
        self.users = 0
        self.chain: Chain | None = None
        self.suspect: StreamId | None = None
        self.accepted_batch = 0  # number of this edge's last batch of which the room accepted something
        self._link: Commands = edge.lasting_link
        self._waiting: deque[Batch] = deque()
        self._busy = True
        self._is_cut = False
        self._opened_at_s = edge.loop.time()
        self._opening: asyncio.Task[None] | None = None
        self._placed = asyncio.Event()  # whether the position is known, and not just being read anew

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
        while True:
            try:
                last = await self._link.call("HGET", self.keys.meta, "last")
                break
            except (RedisUnavailable, RedisReplied) as error:
                log.warning("room %s: position not read: %s", self.address, error)
                await asyncio.sleep(0.1)
        self.chain = Chain(parse_id(last) if last else (0, 0))
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
        batch = read_batch(body)
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
            chain.advance(batch.first, batch.last, int(batch.mark))
            self.fanout.deliver(batch.outputs)
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
                last, entries = await self._link.send(
                    (
                        ("HGET", self.keys.meta, "last"),
                        ("XRANGE", self.keys.outlog, start, "+", "COUNT", _FILL_COUNT),
                    )
                )
                if isinstance(entries, RedisReplied):
                    raise entries
            except (RedisUnavailable, RedisReplied) as error:
                log.warning("room %s: outlog not read: %s", self.address, error)
                await asyncio.sleep(0.1)
                continue
            if last is not None and not isinstance(last, RedisReplied) and parse_id(last) == chain.position:
                break  # nothing was missed; the outlog of a sleeping room may have expired
            if not self._append_entries(entries):
                return
            if len(entries) < _FILL_COUNT:
                break
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
        for entry_id, fields in entries:
            oseq, mark = parse_id(entry_id)
            if oseq != chain.position[0] + 1:
                self.resync("its outlog has a hole")
                return False
            chain.advance(oseq, oseq, mark)
            outputs.append(read_outlog_entry(fields))
        self.fanout.deliver(outputs)
        return True

    def resync(self, why: str) -> None:
        """History was cut: raw sockets cannot be told, so they are closed 4512 and come back to a fresh snapshot."""
        log.warning("room %s: %s, its %d socket(s) resync", self.address, why, len(self.fanout.live))
        self.accepted_batch = 0
        self._is_cut = False
        self.edge.count_resync(len(self.fanout.members))
        self._busy = True
        self._placed.clear()
        self._waiting.clear()
        for member in list(self.fanout.members.values()):
            member.close_with(RESYNC)  # those waiting for their join too: it may be in what was cut
        for call in list(self.fanout.calls.values()):
            call.close_with(RESYNC)  # its answer may be in what was cut
        self.fanout.live.clear()
        self.edge.spawn(self._start_over())

    def cut(self) -> None:
        """Take it that Redis has forgotten a batch which it had accepted: what clients said is lost, so they resync."""
        self._is_cut = self._busy
        if not self._busy:
            self.resync("accepted messages were lost")

    async def _start_over(self) -> None:
        await self._take_position()
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
