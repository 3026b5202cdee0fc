"""Who may open a socket or ask a room: so many in all, from one address, of one user, and so many a second."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import TYPE_CHECKING

from innkeeper.close_codes import (
    EDGE_FULL,
    TOO_MANY_HANDSHAKES,
    TOO_MANY_OF_ADDRESS,
    TOO_MANY_OF_USER,
    Refusal,
)
from innkeeper_edge.handshake import Rejection, rejected
from innkeeper_edge.limits import Limits, Network

if TYPE_CHECKING:
    from aiohttp import web

log = logging.getLogger("innkeeper.edge")

_HANDSHAKE_BURST_S = 5
_FORWARDED = "X-Forwarded-For"
_IPV6_HOST_BITS = 64

Address = IPv4Address | IPv6Address


class Places:
    """So many in all, of one source and of one user; a source or user that is empty is not counted."""

    __slots__ = ("_by_source", "_by_user", "_limits", "count")

    def __init__(self, limits: Limits) -> None:
        self.count = 0
        self._limits = limits
        self._by_source: Counter[str] = Counter()
        self._by_user: Counter[str] = Counter()

    def lacks(self, source: str, user_id: str) -> Refusal | None:
        """Return why there is no place left, None where there is one."""
        limits = self._limits
        if limits.max_connections and self.count >= limits.max_connections:
            return EDGE_FULL
        if source and limits.connections_per_ip and self._by_source[source] >= limits.connections_per_ip:
            return TOO_MANY_OF_ADDRESS
        if user_id and limits.connections_per_user and self._by_user[user_id] >= limits.connections_per_user:
            return TOO_MANY_OF_USER
        return None

    def take(self, source: str, user_id: str) -> None:
        """Count one."""
        self.count += 1
        self._by_source[source] += 1
        self._by_user[user_id] += 1

    def leave(self, source: str, user_id: str) -> None:
        """Count one less."""
        self.count -= 1
        for counter, name in ((self._by_source, source), (self._by_user, user_id)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]


class Admitted:
    """One place that is taken; a context manager that gives it back."""

    __slots__ = ("_places", "_source", "_user")

    def __init__(self, places: Places, source: str, user: str) -> None:
        self._places = places
        self._source = source
        self._user = user
        places.take(source, user)

    def __enter__(self) -> None:
        """Hold the place, as since it was given."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places.leave(self._source, self._user)


class Admission:
    """Counts the sockets of this process, and apart from them the requests that are being answered.

    Args:
        limits: How many there may be, of each of both.
        now: A clock that only goes forward, in seconds.

    Attributes:
        refused_count: Handshakes and requests refused because of a limit.
    """

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self.refused_count = 0
        self._limits = limits
        self._now = now
        self._burst = float(limits.handshake_rate * _HANDSHAKE_BURST_S)
        self._credit = self._burst
        self._credited_at_s = now()
        self._sockets = Places(limits)
        self._requests = Places(limits)
        self._has_warned = False

    @property
    def count(self) -> int:
        """Sockets that are open, or being opened."""
        return self._sockets.count

    def knock(self) -> Rejection | None:
        """Count a handshake or request; return why it goes no further. Ask this before anything that costs more."""
        limits = self._limits
        if limits.handshake_rate:
            now_s = self._now()
            earned = (now_s - self._credited_at_s) * limits.handshake_rate
            self._credited_at_s = now_s
            self._credit = min(self._burst, self._credit + earned)
            if self._credit < 1:
                self.refused_count += 1
                return rejected(TOO_MANY_HANDSHAKES)
            self._credit -= 1
        return None

    def admit(self, request: "web.BaseRequest", user_id: str, *, is_socket: bool = True) -> Admitted | Rejection:
        """Give a socket, or a request until it is answered, a place, or say why there is none.

        Args:
            request: The handshake or request.
            user_id: Who was authenticated; empty: nobody.
            is_socket: Which of the two it is.
        """
        source = self._source(request) if self._limits.connections_per_ip else ""
        places = self._sockets if is_socket else self._requests
        refusal = places.lacks(source, user_id)
        if refusal is None:
            return Admitted(places, source, user_id)
        if refusal is TOO_MANY_OF_ADDRESS:
            self._warn_of_proxy(request)
        self.refused_count += 1
        return rejected(refusal)

    def _source(self, request: "web.BaseRequest") -> str:
        """Return where a request is from, see :func:`source_of`."""
        # Not request.remote: it would be kept with the socket.
        peer = peer_of(request.transport)
        client = client_address(peer, request.headers.getall(_FORWARDED, ()), self._limits.trusted_proxy)
        if client is not None and client.is_loopback and not source_of(parse_address(peer)):
            return ""  # this machine, perhaps through a proxy on it; from elsewhere that is a client's own word
        return str(client) if client is not None and client.is_loopback else source_of(client)

    def _warn_of_proxy(self, request: "web.BaseRequest") -> None:
        """Say once that all clients of a proxy count as one."""
        if not self._has_warned and _FORWARDED in request.headers:
            self._has_warned = True
            log.warning(
                "%s has as many sockets as one address may have, and forwards for others: if it is your proxy, "
                "name it with --trusted-proxy",
                request.remote,
            )


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """Return the address of a connection's other end; empty for a Unix socket, or none."""
    at = transport.get_extra_info("peername") if transport is not None else None
    return at[0] if isinstance(at, tuple) else ""


def source_of(address: Address | None) -> str:
    """Return what counts as one source: an IPv4 address or an IPv6 /64; empty for this machine itself."""
    if address is None or address.is_loopback:
        return ""
    if isinstance(address, IPv6Address):
        return str(int(address) >> _IPV6_HOST_BITS)
    return str(address)


def client_address(peer: str, forwarded: "tuple[str, ...] | list[str]", trusted: tuple[Network, ...]) -> Address | None:
    """Return where a client is: the last hop that is no trusted proxy.

    Only what trusted proxies have written counts: their entries stand at the end of the header, and what a client
    made up before it is never looked at. A hop that is no address ends the search at the proxy that named it.

    Args:
        peer: The other end of the connection.
        forwarded: The lines of ``X-Forwarded-For``.
        trusted: Networks of proxies.

    Returns:
        The address; None where the peer has none (a Unix socket).
    """
    address = parse_address(peer)
    if address is None or not is_within(address, trusted):
        return address
    for text in reversed(",".join(forwarded).split(",")):
        hop = parse_address(text.strip())
        if hop is None:
            return address
        address = hop
        if not is_within(hop, trusted):
            return hop
    return address


def is_within(address: Address, networks: tuple[Network, ...]) -> bool:
    """Return whether an address is in one of these networks."""
    return any(address in network for network in networks)


@lru_cache(maxsize=1024)
def parse_address(text: str) -> Address | None:
    """Return an address, without the port and the brackets that some proxies add; IPv4 in IPv6 is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
