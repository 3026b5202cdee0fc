"""The spans of a worker: an event in its handler, and the commit that made its effect true."""

import random
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from innkeeper.traces import COMMIT, RECEIVE, Attributes, Traces, context_of, now_ns, span_of
from innkeeper_workers.owner import Owner

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context

    from innkeeper.wire import InboxEvent


_PUSHED = (b"join", b"text", b"binary", b"leave", b"drop", b"resume", b"resync", b"request")


class _Handled(NamedTuple):
    """A traced event between its handler and its commit."""

    event: "InboxEvent"
    trace: int
    span: int
    times_ns: tuple[int, int]


class TracedOwner(Owner):
    """An owner whose sampled events are followed; while one runs, its span is the current one of OpenTelemetry.

    Attributes:
        traces: Where spans go.
    """

    traces: ClassVar[Traces]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handled: list[_Handled] = []
        self._untraced = self.activation.handle
        self.activation.handle = self._traced  # type: ignore[method-assign] # so that without traces nothing is asked

    def _traced(self, event: "InboxEvent") -> Awaitable[None] | None:
        edge, connection = _edge_of(event), event.connection.decode()
        # What no edge has pushed (timers, posts) begins here; its id holds the time, so it names one event.
        of = (edge, connection) if edge else ("", event.id.decode())
        trace = self.traces.trace_of(str(self.address), *of, event.iseq)
        if not trace:
            return self._untraced(event)
        span, began_ns = random.getrandbits(64) or 1, now_ns()
        token = _enter(trace, span)
        try:
            rest = self._untraced(event)
        except BaseException:
            _leave(token)
            raise
        if rest is not None:
            return self._rest(rest, _Handled(event, trace, span, (began_ns, 0)), token)
        _leave(token)
        self._handled.append(_Handled(event, trace, span, (began_ns, now_ns())))
        return None

    async def _rest(self, rest: Awaitable[None], begun: _Handled, token: "Token[Context]") -> None:
        try:
            await rest
        finally:
            _leave(token)
        self._handled.append(begun._replace(times_ns=(begun.times_ns[0], now_ns())))

    def _commit(self, *, even_empty: bool = False, tries: bool = False) -> Awaitable[None] | None:
        answer = super()._commit(even_empty=even_empty, tries=tries)
        if answer is None or not self._handled:
            return answer
        handled, self._handled = self._handled, []
        return self._told(answer, handled)

    async def _told(self, answer: Awaitable[None], handled: list[_Handled]) -> None:
        began_ns, error = now_ns(), "not known"
        try:
            await answer
            error = ""
        except Exception as raised:
            error = str(raised)
            raise
        finally:
            for one in handled:
                self._emit(one, (began_ns, now_ns()), len(handled), error)

    def _emit(self, one: _Handled, commit_ns: tuple[int, int], together: int, error: str) -> None:
        event, trace = one.event, one.trace
        attributes: Attributes = {
            "innkeeper.room": str(self.address), "innkeeper.kind": self.address.kind, "innkeeper.iseq": event.iseq,
            "innkeeper.event": event.kind.decode(), "innkeeper.connection": event.connection.decode(),
            "innkeeper.worker": self.fleet.incarnation, "innkeeper.token": self.token,
            "innkeeper.inbox_wait_us": max(0, one.times_ns[0] // 1000 - event.time_us),
        }  # fmt: skip
        parent = span_of(trace, RECEIVE) if _edge_of(event) else 0
        self.traces.emit("handle", trace, span=one.span, parent=parent, times_ns=one.times_ns, attributes=attributes)
        # A refused commit is followed by another one, whose id this must not be.
        span = random.getrandbits(64) or 1 if error else span_of(trace, COMMIT)
        said: Attributes = {"innkeeper.room": str(self.address), "innkeeper.traced_events": together}
        self.traces.emit("commit", trace, span=span, parent=one.span, times_ns=commit_ns, attributes=said, error=error)


def _enter(trace: int, span: int) -> "Token[Context]":
    from opentelemetry import context  # noqa: PLC0415 - an optional extra
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context  # noqa: PLC0415 - as above

    return context.attach(set_span_in_context(NonRecordingSpan(context_of(trace, span))))


def _leave(token: "Token[Context]") -> None:
    from opentelemetry import context  # noqa: PLC0415 - an optional extra

    context.detach(token)


def _edge_of(event: "InboxEvent") -> str:
    """Return the edge that has pushed an event; empty where none did."""
    return event.edge.decode() if event.kind in _PUSHED else ""
