"""The operators' listener of one process: ``/healthz``, ``/readyz`` and ``/metrics``, apart from the sockets."""

import hmac
import importlib.util
import logging
import os
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING

from aiohttp import web

from innkeeper.errors import PortTaken
from innkeeper.ops.families import COMMON, INFO, LOOP_LAG, READY, LoopLag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from innkeeper.ops.families import Sample, Source
    from innkeeper.ops.settings import OpsSettings

log = logging.getLogger("innkeeper.ops")

_NO_CLIENT = "metrics need prometheus_client: pip install 'innkeeper[metrics]'"
_KEEP_ALIVE_S = 75.0
_SHUTDOWN_S = 0.5


class Listener:
    """Serves what a source says, on the loop it was started in.

    ``/healthz`` answers 200 while this process and its loop live. ``/readyz`` answers 200 while it should get work,
    else 503; who may read ``/metrics`` is also told what is missing.

    Args:
        settings: Where; without a port nothing is served.
        source: The role.
    """

    def __init__(self, settings: "OpsSettings", source: "Source") -> None:
        self._settings = settings
        self._source = source
        self._runner: web.AppRunner | None = None
        self._socket: socket.socket | None = None
        self._lag: LoopLag | None = None
        self._version = version("innkeeper")
        self._can_render = importlib.util.find_spec("prometheus_client") is not None
        self.port = 0

    async def start(self) -> None:
        """Listen, if there is a port.

        Raises:
            PortTaken: The port cannot be had.
        """
        settings = self._settings
        if settings.port is None:
            return
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._readiness)
        app.router.add_get("/metrics", self._metrics)
        runner = self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=_KEEP_ALIVE_S, shutdown_timeout=_SHUTDOWN_S, handle_signals=False
        )
        await runner.setup()
        try:
            family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
            where = (settings.host, settings.port)
            self._socket = socket.create_server(where, family=family, backlog=16, reuse_port=settings.is_shared)
            await web.SockSite(runner, self._socket).start()
        except OSError as error:
            await runner.cleanup()
            raise PortTaken(
                f"cannot listen on {settings.host}:{settings.port} for --ops-port: {error.strerror or error}"
            ) from None
        self._lag = LoopLag()
        self.port = int(self._socket.getsockname()[1])
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        log.info(
            "health and metrics of %s %s at http://%s:%d/, %s",
            self._source.role, self._source.incarnation, shown, self.port,
            "with a token" if settings.token else "without a token",
        )  # fmt: skip
        if not self._can_render:
            log.warning(_NO_CLIENT)

    async def close(self) -> None:
        """Stop listening; does nothing where it never did."""
        if self._lag is not None:
            self._lag.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    def abandon(self) -> None:
        """Let the port go in a process that was forked from this one, which goes on serving."""
        if self._socket is not None and self._socket.fileno() >= 0:
            os.close(self._socket.fileno())

    # --- what it answers ------------------------------------------------------------------------------------------
    def _may_read(self, request: web.Request) -> bool:
        token = self._settings.token
        if not token:
            return True
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        return hmac.compare_digest(given, f"Bearer {token}".encode())

    async def _health(self, request: web.Request) -> web.Response:
        facts = {"role": self._source.role, "incarnation": self._source.incarnation}
        return web.json_response({"alive": True, **(facts if self._may_read(request) else {})})

    async def _readiness(self, request: web.Request) -> web.Response:
        missing = self._source.missing()
        facts = {"missing": missing} if self._may_read(request) else {}
        return web.json_response({"ready": not missing, **facts}, status=503 if missing else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._may_read(request):
            return web.Response(status=401, text="a bearer token is needed\n", headers={"WWW-Authenticate": "Bearer"})
        if not self._can_render:
            return web.Response(status=501, text=f"{_NO_CLIENT}\n")
        from innkeeper.ops.exposition import render  # noqa: PLC0415 - an optional extra

        await self._source.look()
        families = (*COMMON, *self._source.families)
        body, content_type = render(families, self._samples(), accept=request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    def _samples(self) -> "Iterator[Sample]":
        source = self._source
        yield INFO, (source.role, self._version), 1
        yield READY, (), int(not source.missing())
        if self._lag is not None:
            yield LOOP_LAG, (), self._lag.seconds
        yield from source.samples()
