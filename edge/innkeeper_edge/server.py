"""The HTTP server of an edge: what aiohttp's does, and an end to connections without number."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from innkeeper_edge.admission import is_within, parse_address, peer_of, source_of
from innkeeper_edge.limits import Limits

log = logging.getLogger("innkeeper.edge")

_BESIDE_SOCKETS: Final = 2


class Server(web.Server):
    """Cuts off, before a byte of it is read, who has twice as many connections as it may have sockets.

    A connection that is no socket, such as one that sends nothing or reads a file, has no place that
    :class:`~innkeeper_edge.admission.Admission` knows of, so as many of these may stand beside the sockets. Those of a
    trusted proxy are limited in all, not by its address: what is behind them shows in the requests only.

    Args:
        handler: What answers requests.
        limits: How many sockets there may be, of one address and in all.
        most: How many connections there may be at most in all, such as by the limit of open files; 0: no limit.
        on_cut: Called for each connection that is cut off.
        options: As of aiohttp's.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        limits: Limits,
        most: int = 0,
        on_cut: Callable[[], object],
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self._most = most
        self._most_of_source = limits.connections_per_ip * _BESIDE_SOCKETS
        self._trusted = limits.trusted_proxy
        self._on_cut = on_cut
        self._open = 0
        self._sources: dict[web.RequestHandler, str] = {}
        self._by_source: Counter[str] = Counter()
        self._has_warned = False

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Count a connection, or end it."""
        super().connection_made(handler, transport)
        self._open += 1
        source = self._source(transport)
        if source:
            self._sources[handler] = source
            self._by_source[source] += 1
        is_crowd = bool(source) and self._by_source[source] > self._most_of_source
        if is_crowd or (self._most and self._open > self._most):
            self._on_cut()
            self._warn(transport, is_crowd=is_crowd)
            transport.abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """Count one less."""
        super().connection_lost(handler, exc)
        self._open -= 1
        source = self._sources.pop(handler, "")
        if source:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    def _source(self, transport: asyncio.Transport) -> str:
        address = parse_address(peer_of(transport)) if self._most_of_source else None
        return "" if address is None or is_within(address, self._trusted) else source_of(address)

    def _warn(self, transport: asyncio.Transport, *, is_crowd: bool) -> None:
        """Say so once."""
        if self._has_warned:
            return
        self._has_warned = True
        if is_crowd:
            log.warning(
                "%s is cut off: it has more than %d connections; if it is your proxy, name it with --trusted-proxy",
                peer_of(transport),
                self._most_of_source,
            )
        else:
            log.warning("connections are cut off: there are more than %d", self._most)
