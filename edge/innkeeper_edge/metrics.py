"""What an edge shows operators: its readiness, and its counts as metrics."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from innkeeper.close_codes import TABLE
from innkeeper.ops import Family, Sample
from innkeeper_edge.session_member import SessionMember

if TYPE_CHECKING:
    from innkeeper_edge.edge import Edge

_SILENT_S = 5.0
"""An edge that Redis has not answered for so long should get no new sockets."""

SOCKETS = Family("innkeeper_edge_sockets", "gauge", "Sockets in rooms or on their way in.", ("mode",))
PAUSED = Family(
    "innkeeper_edge_paused_sockets", "gauge", "Sockets that are not read: their room must take what they said first."
)
FEEDS = Family("innkeeper_edge_feeds", "gauge", "Rooms that this edge listens to.")
OWNERLESS = Family("innkeeper_edge_ownerless_rooms", "gauge", "Rooms with sockets here, events and no owner.")
OWNERLESS_S = Family(
    "innkeeper_edge_ownerless_seconds", "gauge", "For how long the first of them has been seen without an owner."
)
WAITING = Family("innkeeper_edge_waiting_events", "gauge", "Events held here that their rooms have not accepted yet.")
SILENT = Family("innkeeper_edge_redis_silent_seconds", "gauge", "Since Redis last answered this edge's heartbeat.")
JOINS = Family("innkeeper_edge_joins_total", "counter", "Joins, and returns of sessions, pushed to rooms.")
MESSAGES_IN = Family("innkeeper_edge_messages_in_total", "counter", "Messages taken from sockets.")
BYTES_IN = Family("innkeeper_edge_bytes_in_total", "counter", "Payload of what was pushed, in bytes.")
MESSAGES_OUT = Family("innkeeper_edge_messages_out_total", "counter", "Messages handed to sockets, for each socket.")
BYTES_OUT = Family("innkeeper_edge_bytes_out_total", "counter", "Bytes of these messages' frames.")
REQUESTS = Family("innkeeper_edge_requests_total", "counter", "HTTP requests pushed to rooms.")
PUSHES = Family("innkeeper_edge_pushes_total", "counter", "Pushes sent: one a room and flush.")
PUSHED = Family("innkeeper_edge_pushed_events_total", "counter", "Events in them, those pushed again counted again.")
PUSH_S = Family("innkeeper_edge_push_seconds", "histogram", "From sending a flush of pushes to its answer.")
REFUSED = Family(
    "innkeeper_edge_refused_events_total", "counter", "Events that a full room did not take; they go again."
)  # fmt: skip
DEFERRED = Family(
    "innkeeper_edge_deferred_pushes_total", "counter", "Pushes that Redis answered with an error; they go again."
)
FILLS = Family("innkeeper_edge_fills_total", "counter", "Holes filled from the outlog: pub/sub had lost outputs.")
RESYNCS = Family("innkeeper_edge_resyncs_total", "counter", "Rooms whose history was found to be cut.")
RESYNCED = Family("innkeeper_edge_resynced_sockets_total", "counter", "Sockets that had to start over because of that.")
CLOSES = Family(
    "innkeeper_edge_closes_total",
    "counter",
    "Sockets that ended, by the code this edge closed them with; 'client' where the client went first.",
    ("code",),
)
REJECTIONS = Family(
    "innkeeper_edge_rejections_total", "counter", "Requests answered with a refusal, by its name.", ("error",)
)
RECONNECTS = Family("innkeeper_edge_reconnects_total", "counter", "Connections lost on which outputs come.")

FAMILIES: Final = (
    SOCKETS, PAUSED, FEEDS, OWNERLESS, OWNERLESS_S, WAITING, SILENT, JOINS, MESSAGES_IN, BYTES_IN, MESSAGES_OUT,
    BYTES_OUT, REQUESTS, PUSHES, PUSHED, PUSH_S, REFUSED, DEFERRED, FILLS, RESYNCS, RESYNCED, CLOSES,
    REJECTIONS, RECONNECTS,
)  # fmt: skip


class EdgeSource:
    """One edge, as the operators' listener asks it.

    Args:
        edge: Whose figures these are.
    """

    role = "edge"
    families = FAMILIES

    def __init__(self, edge: "Edge") -> None:
        self._edge = edge

    @property
    def incarnation(self) -> str:
        """The id of this run."""
        return self._edge.incarnation

    def missing(self) -> list[str]:
        """Return what is missing before this edge should get sockets."""
        edge = self._edge
        if edge.draining:
            return ["this edge is draining"]
        if not edge.ready.is_set():
            return ["Redis and its functions were not reached yet"]
        missing = []
        if self._silent_s > _SILENT_S:
            missing.append(f"Redis has not answered for {self._silent_s:.0f} s")
        if not edge.kinds:
            missing.append("no worker has announced a kind of rooms")
        return missing

    @property
    def _silent_s(self) -> float:
        return self._edge.loop.time() - self._edge.heard_at_s

    async def look(self) -> None:
        """Nothing: an edge's figures are all its own."""

    def samples(self) -> Iterator[Sample]:
        """Return the samples as of now; they cost a look at each socket."""
        edge, meters = self._edge, self._edge.meters
        sessions = paused = total = 0
        for feed in edge.feeds.values():
            for member in feed.sockets():
                total += 1
                sessions += isinstance(member, SessionMember)
                paused += member.is_overfull
        yield SOCKETS, ("raw",), total - sessions
        yield SOCKETS, ("v1",), sessions
        yield PAUSED, (), paused
        yield FEEDS, (), len(edge.feeds)
        yield OWNERLESS, (), len(edge.ownerless)
        yield OWNERLESS_S, (), edge.loop.time() - min(edge.ownerless.values()) if edge.ownerless else 0.0
        yield WAITING, (), edge.ingress.waiting_count
        yield SILENT, (), self._silent_s if edge.heard_at_s else 0.0
        yield JOINS, (), meters.joins
        yield MESSAGES_IN, (), meters.messages_in
        yield BYTES_IN, (), meters.bytes_in
        yield MESSAGES_OUT, (), meters.messages_out
        yield BYTES_OUT, (), meters.bytes_out
        yield REQUESTS, (), meters.requests
        yield PUSHES, (), meters.pushes
        yield PUSHED, (), meters.pushed_events
        yield PUSH_S, (), meters.push_s
        yield REFUSED, (), meters.refused
        yield DEFERRED, (), meters.deferred
        yield FILLS, (), edge.fill_count
        yield RESYNCS, (), edge.resync_count
        yield RESYNCED, (), meters.resynced_sockets
        for code in sorted({0, *(known.code for known in TABLE), *meters.closes}):  # from 0 on, as increases need it
            yield CLOSES, (str(code or "client"),), meters.closes[code]
        for error, count in meters.rejections.items():
            yield REJECTIONS, (error,), count
        yield RECONNECTS, (), edge.subscriber.lost_count
