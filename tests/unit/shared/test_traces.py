"""Traces of messages: what both sides derive, and what is handed to OpenTelemetry."""

import sys

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from innkeeper.errors import ExtraMissing
from innkeeper.traces import Traces, open_traces, span_of


def traces(ratio: float, exporter: InMemorySpanExporter | None = None) -> Traces:
    """Return what hands spans to an exporter in memory."""
    return Traces(SimpleSpanProcessor(exporter or InMemorySpanExporter()), Resource.create({}), ratio)


def test_both_sides_find_the_same_trace() -> None:
    """An event's trace follows from what both know of it, and from all of that."""
    of = ("chat/a", "e-1", "c-1", 7)
    assert traces(1).trace_of(*of) == traces(1).trace_of(*of) != 0
    for other in (("chat/b", "e-1", "c-1", 7), ("chat/a", "e-2", "c-1", 7), ("chat/a", "e-1", "c-2", 7)):
        assert traces(1).trace_of(*other) != traces(1).trace_of(*of)
    assert traces(1).trace_of("chat/a", "e-1", "c-1", 8) != traces(1).trace_of(*of)
    assert span_of(1, b"receive") != span_of(1, b"commit") != span_of(2, b"commit")


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.3, 1.0])
def test_the_share_is_as_asked_for_and_as_opentelemetry_has_it(ratio: float) -> None:
    """So many events are traced, and the SDK's own sampler would choose the same of them."""
    everything, some, sampler = traces(1), traces(ratio), TraceIdRatioBased(ratio)
    count = 0
    for iseq in range(5_000):
        trace = some.trace_of("chat/a", "e-1", "c-1", iseq)
        whole = everything.trace_of("chat/a", "e-1", "c-1", iseq)
        assert trace in (0, whole)
        sampled = sampler.should_sample(None, whole, "x").decision is Decision.RECORD_AND_SAMPLE
        assert bool(trace) == sampled
        count += bool(trace)
    assert count / 5_000 == pytest.approx(ratio, abs=0.02)


def test_a_span_is_handed_over_as_it_was() -> None:
    """Ids, times, attributes and errors are those given."""
    exporter = InMemorySpanExporter()
    made = traces(1, exporter)
    made.emit("commit", 5, span=6, parent=7, times_ns=(10, 20), attributes={"a": 1}, error="refused")
    made.emit("receive", 5, span=7, parent=0, times_ns=(1, 9), attributes={})
    commit, receive = exporter.get_finished_spans()
    assert commit.context is not None
    assert (commit.context.trace_id, commit.context.span_id, commit.parent and commit.parent.span_id) == (5, 6, 7)
    assert (commit.start_time, commit.end_time, dict(commit.attributes or {})) == (10, 20, {"a": 1})
    assert (commit.status.is_ok, commit.status.description) == (False, "refused")
    assert (receive.parent, receive.status.is_ok) == (None, True)


def test_without_opentelemetry_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option needs the extra, and ends as wrong usage."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ExtraMissing, match=r"innkeeper\[otel\]") as raised:
        open_traces("edge", 0.5)
    assert raised.value.exit_code == 2
