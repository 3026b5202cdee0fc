"""The edge's sweep: finds what pub/sub lost, rooms that nobody owns, and sockets that are late or silent."""

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

from innkeeper.close_codes import EXPIRED, SILENT, UNAVAILABLE
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.topology import by_lane
from innkeeper.wire import parse_id
from innkeeper_edge.subprotocol import BEAT_S

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.feed import Feed

log = logging.getLogger("innkeeper.edge")

JOIN_S = 10.0
SWEEP_PIECE = 500
_LEAST_PIECE = 50
_PIECES = 20  # so that what has to be said meanwhile does not wait for milliseconds
_PONG_WITHIN_S = 10.0
_SWEEP_S = 0.9


class Sweep:
    """Looks at all rooms and sockets of an edge about once a second, a few at a time."""

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge

    async def sweep_forever(self) -> None:
        """Look about once a second; an unreachable Redis only pauses it."""
        edge = self._edge
        while True:
            edge.thrift.settle()
            feeds = [*edge.feeds.values()]
            size = min(max(len(feeds) // _PIECES, _LEAST_PIECE), SWEEP_PIECE)
            pieces = [feeds[at : at + size] for at in range(0, len(feeds), size)] or [feeds]
            share_s = _SWEEP_S / len(pieces)
            for piece in pieces:
                began_s = edge.loop.time()
                self._sweep_members(piece)
                placed = [feed for feed in piece if feed.chain is not None and edge.feeds.get(feed.address) is feed]
                lanes = by_lane(edge.link, placed, lambda feed: feed.keys.meta)
                await asyncio.gather(*(self._sweep_lane(lane) for lane in lanes))
                took_s = edge.loop.time() - began_s
                await asyncio.sleep(max(share_s - took_s, min(took_s, share_s)))  # a slow Redis delays it by no more

    async def _sweep_lane(self, feeds: "list[Feed]") -> None:
        try:
            await self._sweep(feeds)
        except (RedisUnavailable, RedisReplied) as error:
            log.debug("sweep: %s", error)

    def _sweep_members(self, feeds: "list[Feed]") -> None:
        """Close who was not joined in time or is silent; ask the quiet for a sign of life."""
        now_s, unix_s = self._edge.loop.time(), time.time()
        for feed in feeds:
            for member in feed.sockets():
                if not member.join and now_s - member.entered_at_s > JOIN_S:
                    log.info("room %s: a join was not committed in %.0f s", feed.address, JOIN_S)
                    member.close_with(UNAVAILABLE)
                elif unix_s > member.grant.expires_s:
                    member.close_with(EXPIRED)
                elif member.is_overfull:
                    member.heard_at_s = now_s  # it cannot be heard: its socket is not being read
                elif now_s - member.heard_at_s > BEAT_S + _PONG_WITHIN_S:
                    member.close_with(SILENT)
                elif now_s - member.heard_at_s > BEAT_S:
                    member.ping()

    async def _sweep(self, feeds: "list[Feed]") -> None:
        """Find outputs that never came, and rooms with backlog that nobody owns."""
        edge = self._edge
        incarnation = edge.incarnation
        seen = [feed.chain.position if feed.chain is not None else (0, 0) for feed in feeds]
        accepted = [feed.accepted_batch for feed in feeds]
        commands = []
        for feed in feeds:
            commands += [
                ("HGET", feed.keys.meta, "last"),
                ("HMGET", feed.keys.sessions, "#", "@", f"e:{incarnation}"),
                ("GET", feed.keys.lock),
            ]
        replies = await edge.link.send(commands)
        ownerless = []
        for n, feed in enumerate(feeds):
            last, counts, lock = replies[3 * n : 3 * n + 3]
            if isinstance(last, RedisReplied) or isinstance(counts, RedisReplied):
                continue
            feed.look(parse_id(last) if last else (0, 0), seen[n])
            if feed.sessions is not None and counts[1] is not None:
                feed.sessions.advance(int(counts[1]))
            if incarnation == edge.incarnation and _batch_of(counts[2]) < min(accepted[n], feed.accepted_batch):
                feed.cut()
            if lock is None and counts[0] is not None and int(counts[0]) > int(counts[1] or 0):
                ownerless.append(feed.address)
        are_new = not edge.ownerless.keys() >= set(ownerless)  # one that waits for a place is found at every look
        if ownerless or edge.ownerless:
            self._note(feeds, ownerless)
        if ownerless:
            level = logging.INFO if are_new else logging.DEBUG
            log.log(level, "%d room(s) with backlog have no owner, waking them", len(ownerless))
            await edge.wake(ownerless)

    def _note(self, feeds: "list[Feed]", ownerless: "list[Address]") -> None:
        """Keep since when rooms have no owner, for as long as this edge looks at them."""
        edge, now_s = self._edge, self._edge.loop.time()
        for address in ownerless:
            edge.ownerless.setdefault(address, now_s)
        looked_at = {feed.address for feed in feeds}
        for address in [*edge.ownerless]:
            if address not in edge.feeds or (address in looked_at and address not in ownerless):
                del edge.ownerless[address]


def _batch_of(row: bytes | None) -> float:
    """Return the number of an edge row's batch; a closed row says that this edge was reaped, which push will tell."""
    number = row.split(b" ", 1)[0] if row else b"0"
    return math.inf if number == b"closed" else int(number)
