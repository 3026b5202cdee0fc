"""What an edge takes before it slows down, refuses or closes: each limit with its default, and as an option."""

import functools
import logging
import resource
from collections.abc import Callable
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final

import click

log = logging.getLogger("innkeeper.edge")

Network = IPv4Network | IPv6Network

BURST_S: Final = 10.0
"""Every rate may be saved up for this long: who was quiet may say so much at once."""

_SPARE_FILES = 256  # for Redis, logs, and those that are just being refused


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of one edge process; 0 turns one off, but for the times.

    Attributes:
        max_connections: Sockets of this process.
        connections_per_ip: Sockets of one IPv4 address or one IPv6 /64; this machine's own are not counted.
        connections_per_user: Sockets of one authenticated user.
        handshake_rate: Handshakes and requests per second.
        message_rate: Messages per second of one socket.
        byte_rate: Bytes of messages per second of one socket.
        user_message_rate: Messages per second of all sockets of one authenticated user.
        control_rate: Pings and pongs per second of one socket.
        rate_patience_s: How long a socket may stay over its rate, slowed down, before it is closed.
        output_bytes: What may wait to be written to all sockets together.
        stall_s: How long nothing may move in a socket for which something waits.
        head_s: How long a request's head may take, from the connection's first moment or the last answer on.
        drain_s: Over how long the sockets of an edge that stops are sent away.
        trusted_proxy: Whose ``X-Forwarded-For`` counts.
    """

    max_connections: int = 10_000
    connections_per_ip: int = 100
    connections_per_user: int = 100
    handshake_rate: int = 1_000
    message_rate: int = 1_000
    byte_rate: int = 1_048_576
    user_message_rate: int = 2_000
    control_rate: int = 10
    rate_patience_s: float = 30.0
    output_bytes: int = 50_331_648
    stall_s: float = 10.0
    head_s: float = 5.0
    drain_s: float = 10.0
    trusted_proxy: tuple[Network, ...] = ()

    def as_arguments(self) -> list[str]:
        """Return the options that make these limits, for a child process."""
        given: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            for each in value if isinstance(value, tuple) else (value,):
                given += [f"--{field.name.replace('_', '-')}", str(each)]
        return given


DEFAULT_LIMITS: Final = Limits()

_HELP: Final = {
    "max_connections": "Sockets of one process; 0: no limit.",
    "connections_per_ip": "Sockets of one address (IPv6: one /64); 0: no limit.",
    "connections_per_user": "Sockets of one authenticated user; 0: no limit.",
    "handshake_rate": "Handshakes and requests per second; 0: no limit.",
    "message_rate": "Messages per second of one socket; 0: no limit.",
    "byte_rate": "Bytes of messages per second of one socket; 0: no limit.",
    "user_message_rate": "Messages per second of one authenticated user; 0: no limit.",
    "control_rate": "Pings per second of one socket; 0: no limit.",
    "rate_patience_s": "How long a socket may stay over its rate before it is closed.",
    "output_bytes": "Bytes that may wait for all sockets together; 0: no limit.",
    "stall_s": "How long nothing may move in a socket for which something waits.",
    "head_s": "How long the head of a request may take.",
    "drain_s": "Over how long sockets are sent away after SIGTERM; 0: at once.",
}


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for each limit; it gets them all as ``limits``. Put it next to the function."""
    names = [field.name for field in fields(Limits)]

    @functools.wraps(command)
    def limited(**given: Any) -> Any:
        return command(limits=Limits(**{name: given.pop(name) for name in names}), **given)

    option = click.option(
        "--trusted-proxy",
        multiple=True,
        metavar="CIDR",
        envvar="INNKEEPER_TRUSTED_PROXY",
        callback=_networks,
        help="Network of proxies whose X-Forwarded-For says where a client is; may be repeated.",
    )
    decorated: Callable[..., Any] = option(limited)
    for name in reversed(_HELP):
        default = getattr(DEFAULT_LIMITS, name)
        kind = click.IntRange(0) if isinstance(default, int) else click.FloatRange(0, min_open=name != "drain_s")
        option = click.option(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=default,
            envvar=f"INNKEEPER_{name.upper()}",
            help=_HELP[name],
        )
        decorated = option(decorated)
    return decorated


def _networks(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[Network, ...]:
    found = []
    for text in given:
        try:
            found.append(ip_network(text, strict=False))
        except ValueError as error:
            raise click.BadParameter(f"{error}; write a network, such as 10.0.0.0/8 or ::1/128") from None
    return tuple(found)


def allow_open_files(limits: Limits) -> int:
    """Let this process open as many files as its sockets and as many connections beside them need.

    Where it may not open enough for the sockets alone, the log says so.

    Returns:
        How many connections it can take: twice as many as sockets, or what its files are enough for; 0: no limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * limits.max_connections
    if soft == resource.RLIM_INFINITY:
        return most
    files = hard if hard != resource.RLIM_INFINITY else max(soft, most + _SPARE_FILES)
    if limits.max_connections:
        files = max(soft, min(files, most + _SPARE_FILES))
    if files > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    if files < limits.max_connections + _SPARE_FILES:
        log.warning(
            "this process may open %d files: too few for --max-connections %d (ulimit -n)",
            files,
            limits.max_connections,
        )
    room = max(files - _SPARE_FILES, 1)
    return min(most, room) if limits.max_connections else room
