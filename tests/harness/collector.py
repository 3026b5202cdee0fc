"""A collector of OpenTelemetry's spans, as roles export them: OTLP over HTTP."""

import os
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_BSP_SCHEDULE_DELAY", "OTEL_EXPORTER_OTLP_COMPRESSION")


class Seen(NamedTuple):
    """A span that came."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]


class Collector:
    """Takes spans while it is entered; roles started meanwhile export to it.

    Attributes:
        spans: What came so far.
    """

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self._before = {name: os.environ.get(name) for name in _VARIABLES}

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        port = self._runner.addresses[0][1]
        values = (f"http://127.0.0.1:{port}", "100", "none")
        os.environ.update(zip(_VARIABLES, values, strict=True))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        exported = ExportTraceServiceRequest.FromString(await request.read())
        for of_resource in exported.resource_spans:
            named = {attribute.key: attribute.value.string_value for attribute in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    attributes = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
                    self.spans.append(
                        Seen(
                            named["service.name"], span.name, span.trace_id.hex(), span.span_id.hex(),
                            span.parent_span_id.hex(), span.start_time_unix_nano, span.end_time_unix_nano, attributes,
                        )
                    )  # fmt: skip
        return web.Response(body=b"", content_type="application/x-protobuf")
