"""OpenTelemetry traces of messages on their way, of which nothing travels with the message.

Both sides know the room, the edge, the connection and the number of an event, and no two events have all of them in
common. So a hash of these is the trace's id, says whether it is sampled, and names its first span and its commit's.
Edge and worker write spans of one trace, and inbox, commit and outputs stay as they are. Spans are made when their time
is over. Needs opentelemetry-sdk and its exporter (the extra ``otel``).
"""

import time
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from innkeeper.errors import ExtraMissing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import SpanContext

RECEIVE: Final = b"receive"
"""The first span of a trace: an edge takes a message."""
COMMIT: Final = b"commit"
"""The span of the one commit that made the event true."""

Attributes = Mapping[str, str | int]

_HALF: Final = 1 << 64


class Traces:
    """Makes the spans of one process.

    Args:
        processor: Takes them.
        resource: What they are of.
        ratio: Which share of the events is traced, 0 to 1; the same in all processes.
    """

    def __init__(self, processor: "SpanProcessor", resource: "Resource", ratio: float) -> None:
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415 - an optional extra

        self._processor = processor
        self._resource = resource
        self._bound = round(ratio * _HALF)
        self._scope = InstrumentationScope("innkeeper")

    def trace_of(self, room: str, edge: str, connection: str, iseq: int) -> int:
        """Return the id of an event's trace; 0 where it is not traced."""
        digest = blake2b(f"{room} {edge} {connection} {iseq}".encode(), digest_size=16).digest()
        # As OpenTelemetry's own sampler by ratio decides, so that what hangs on a trace is sampled with it.
        return int.from_bytes(digest) if int.from_bytes(digest[8:]) < self._bound else 0

    def emit(
        self,
        name: str,
        trace: int,
        *,
        span: int,
        parent: int,
        times_ns: tuple[int, int],
        attributes: Attributes,
        error: str = "",
    ) -> None:
        """Hand over a finished span.

        Args:
            name: What it is.
            trace: Its trace.
            span: Its id, see :func:`span_of`.
            parent: That of the span which caused it; 0 for the first of a trace.
            times_ns: When it began and ended, since 1970.
            attributes: What else is known.
            error: What went wrong; empty for nothing.
        """
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415 - an optional extra
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - as above

        self._processor.on_end(
            ReadableSpan(
                name,
                context=context_of(trace, span),
                parent=context_of(trace, parent) if parent else None,
                resource=self._resource,
                attributes=attributes,
                status=Status(StatusCode.ERROR, error) if error else Status(),
                start_time=times_ns[0],
                end_time=times_ns[1],
                instrumentation_scope=self._scope,
            )
        )


def span_of(trace: int, what: bytes) -> int:
    """Return the id of the one span of its kind in a trace."""
    return int.from_bytes(blake2b(trace.to_bytes(16) + what, digest_size=8).digest())


def context_of(trace: int, span: int) -> "SpanContext":
    """Return what names a span to others; it is sampled."""
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - an optional extra

    return SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def now_ns() -> int:
    """Return the time since 1970, as spans tell it."""
    return time.time_ns()


def open_traces(role: str, ratio: float) -> Traces:
    """Return what sends spans to where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says (default: port 4318 of this machine).

    It becomes the tracer provider of the process, so that the spans of users' hooks hang on these.

    Args:
        role: For the service's name, ``innkeeper-ROLE`` unless ``OTEL_SERVICE_NAME`` says another.
        ratio: As of :class:`Traces`.

    Raises:
        ExtraMissing: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an optional extra
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415 - as above
    except ImportError as error:
        raise ExtraMissing("--traces needs OpenTelemetry: pip install 'innkeeper[otel]'") from error
    named = Resource.create({"service.name": f"innkeeper-{role}"})
    resource = named.merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)))
    processor = BatchSpanProcessor(OTLPSpanExporter())
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return Traces(processor, resource, ratio)
