"""Who may open a socket here: so many in all, from one address, of one user, and so many handshakes a second."""

import logging
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import TYPE_CHECKING

from innkeeper.close_codes import (
    EDGE_FULL,
    TOO_MANY_HANDSHAKES,
    TOO_MANY_OF_ADDRESS,
    TOO_MANY_OF_USER,
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


class Admitted:
    """One socket's place; a context manager that gives it back."""

    __slots__ = ("_admission", "_source", "_user")

    def __init__(self, admission: "Admission", source: str, user: str) -> None:
        self._admission = admission
        self._source = source
        self._user = user

    def __enter__(self) -> None:
        """Hold the place, as since it was given."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave(self._source, self._user)


class Admission:
    """Counts the sockets of this process.

    Args:
        limits: How many there may be.
        now: A clock that only goes forward, in seconds.

    Attributes:
        count: Sockets that are open, or being opened.
        refused_count: Handshakes and requests refused because of a limit.
    """

    def __init__(self, limits: Limits, now: Callable[[], float]) -> None:
        self.count = 0
        self.refused_count = 0
        self._limits = limits
        self._now = now
        self._burst = float(limits.handshake_rate * _HANDSHAKE_BURST_S)
        self._credit = self._burst
        self._credited_at_s = now()
        self._by_source: Counter[str] = Counter()
        self._by_user: Counter[str] = Counter()
        self._has_warned = False

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

    def admit(self, request: "web.BaseRequest", user_id: str) -> Admitted | Rejection:
        """Give a socket a place, or say why there is none.

        Args:
            request: The handshake.
            user_id: Who was authenticated; empty: nobody.
        """
        limits = self._limits
        source = self._source(request) if limits.connections_per_ip else ""
        refusal = None
        if limits.max_connections and self.count >= limits.max_connections:
            refusal = EDGE_FULL
        elif source and self._by_source[source] >= limits.connections_per_ip:
            refusal = TOO_MANY_OF_ADDRESS
            self._warn_of_proxy(request)
        elif user_id and limits.connections_per_user and self._by_user[user_id] >= limits.connections_per_user:
            refusal = TOO_MANY_OF_USER
        if refusal is not None:
            self.refused_count += 1
            return rejected(refusal)
        self.count += 1
        self._by_source[source] += 1
        self._by_user[user_id] += 1
        return Admitted(self, source, user_id)

    def leave(self, source: str, user_id: str) -> None:
        """Take a place back."""
        self.count -= 1
        for counter, name in ((self._by_source, source), (self._by_user, user_id)):
            counter[name] -= 1
            if not counter[name]:
                del counter[name]

    def _source(self, request: "web.BaseRequest") -> str:
        """Return what counts as one source: an IPv4 address or an IPv6 /64; empty for this machine itself."""
        # Not request.remote: it would be kept with the socket.
        at = request.transport.get_extra_info("peername") if request.transport is not None else None
        peer = at[0] if isinstance(at, tuple) else ""
        address = client_address(peer, request.headers.getall(_FORWARDED, ()), self._limits.trusted_proxy)
        if address is None or address.is_loopback:
            return ""
        if isinstance(address, IPv6Address):
            return str(int(address) >> _IPV6_HOST_BITS)
        return str(address)

    def _warn_of_proxy(self, request: "web.BaseRequest") -> None:
        """Say once that all clients of a proxy count as one."""
        if not self._has_warned and _FORWARDED in request.headers:
            self._has_warned = True
            log.warning(
                "%s has as many sockets as one address may have, and forwards for others: if it is your proxy, "
                "name it with --trusted-proxy",
                request.remote,
            )


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
    address = _parse(peer)
    if address is None or not _is_within(address, trusted):
        return address
    for text in reversed(",".join(forwarded).split(",")):
        hop = _parse(text.strip())
        if hop is None:
            return address
        address = hop
        if not _is_within(hop, trusted):
            return hop
    return address


def _is_within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _parse(text: str) -> Address | None:
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
