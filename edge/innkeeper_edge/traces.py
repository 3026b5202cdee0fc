"""The spans of an edge: a message received and pushed, and the outputs of its commit shown to this edge's sockets."""

from collections import deque
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from innkeeper.functions import PushEvent
from innkeeper.traces import COMMIT, RECEIVE, Attributes, Traces, now_ns, span_of
from innkeeper_edge.ingress import Ingress, Inlet, Queued

if TYPE_CHECKING:
    from innkeeper.channel import Command, Reply
    from innkeeper.functions import Pushed
    from innkeeper.wire import Batch
    from innkeeper_edge.calls import Call
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.feed import Feed
    from innkeeper_edge.member import Member

_KEPT_COUNT = 1_000


class _TimedEvent(PushEvent):
    """An event that knows when it came."""

    at_ns = 0


class _Shown(NamedTuple):
    """What a published batch has shown here: outputs up to the effect of a number, and when."""

    cursor: int
    outputs: int
    times_ns: tuple[int, int]


class EdgeTraces:
    """Follows the traced messages of one edge to the outputs of their commits.

    Those are shown by other edges too; they do not know whose message it was, so only this one's sockets are told of.

    Args:
        traces: Where spans go.
    """

    def __init__(self, traces: Traces) -> None:
        self._traces = traces
        self._waiting: WeakKeyDictionary[Feed, deque[tuple[int, int]]] = WeakKeyDictionary()  # iseq, trace
        self._shown: WeakKeyDictionary[Feed, _Shown] = WeakKeyDictionary()

    def make_ingress(self, edge: "Edge") -> Ingress:
        """Return an edge's ingress, which tells this."""
        return TracedIngress(edge, self)

    def accepted(self, feed: "Feed", batch: list[Queued], pushed: "Pushed", sent_ns: int) -> None:
        """Take the answer to a push."""
        iseq, answered_ns, edge = pushed.first_iseq, now_ns(), feed.edge.incarnation
        for (event, _), letter in zip(batch, pushed.letters, strict=True):
            if letter != "a":
                continue
            trace = self._traces.trace_of(str(feed.address), edge, event.connection, iseq)
            if trace:
                came_ns = event.at_ns if isinstance(event, _TimedEvent) else sent_ns
                attributes: Attributes = {
                    "innkeeper.room": str(feed.address), "innkeeper.kind": feed.address.kind, "innkeeper.edge": edge,
                    "innkeeper.connection": event.connection, "innkeeper.iseq": iseq, "innkeeper.event": event.kind,
                }  # fmt: skip
                first = span_of(trace, RECEIVE)
                self._traces.emit(
                    "receive", trace, span=first, parent=0, times_ns=(came_ns, answered_ns), attributes=attributes
                )
                sent: Attributes = {"innkeeper.room": str(feed.address), "innkeeper.batch_events": len(batch)}
                push = span_of(trace, b"push")
                times_ns = (sent_ns, answered_ns)
                self._traces.emit("push", trace, span=push, parent=first, times_ns=times_ns, attributes=sent)
                self._await(feed, iseq, trace)
            iseq += 1

    def _await(self, feed: "Feed", iseq: int, trace: int) -> None:
        shown = self._shown.get(feed)
        if shown is not None and shown.cursor >= iseq:  # quicker than the answer to the push
            self._deliver(feed, trace, shown)
            return
        waiting = self._waiting.get(feed)
        if waiting is None:
            waiting = self._waiting[feed] = deque(maxlen=_KEPT_COUNT)
        waiting.append((iseq, trace))

    def shown(self, feed: "Feed", batch: "Batch", began_ns: int) -> None:
        """Take it that a batch was handed to the sockets here."""
        shown = self._shown[feed] = _Shown(batch.cursor, len(batch.outputs), (began_ns, now_ns()))
        waiting = self._waiting.get(feed)
        while waiting and waiting[0][0] <= batch.cursor:
            self._deliver(feed, waiting.popleft()[1], shown)

    def _deliver(self, feed: "Feed", trace: int, shown: _Shown) -> None:
        attributes: Attributes = {
            "innkeeper.room": str(feed.address), "innkeeper.edge": feed.edge.incarnation,
            "innkeeper.outputs": shown.outputs, "innkeeper.sockets": len(feed.sockets()),
        }  # fmt: skip
        self._traces.emit(
            "deliver", trace, span=span_of(trace, b"deliver"), parent=span_of(trace, COMMIT),
            times_ns=shown.times_ns, attributes=attributes,
        )  # fmt: skip


class TracedIngress(Ingress):
    """An ingress that notes when events come, and tells what became of them."""

    def __init__(self, edge: "Edge", traces: EdgeTraces) -> None:
        super().__init__(edge)
        self._traces = traces
        self._sent_ns = 0

    def add(self, feed: "Feed", event: PushEvent, member: "Member | Call | None") -> None:
        """Queue an event, with the time."""
        timed = _TimedEvent(*event)
        timed.at_ns = now_ns()
        super().add(feed, timed, member)

    async def _send(self, commands: "list[Command]") -> "list[Reply]":
        sent_ns = now_ns()
        replies = await super()._send(commands)
        self._sent_ns = sent_ns  # nothing else runs between this and the answers being taken
        return replies

    def _settle(self, inlet: Inlet, batch: list[Queued], pushed: "Pushed") -> None:
        self._traces.accepted(inlet.feed, batch, pushed, self._sent_ns)
        super()._settle(inlet, batch, pushed)
