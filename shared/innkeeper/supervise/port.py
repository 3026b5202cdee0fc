"""A port held for children that share it, before and between their lives."""

import errno
import socket

from innkeeper.errors import PortTaken


def reserve_port(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Return a bound socket that holds a port for children without ever listening on it.

    The children bind the same port with ``SO_REUSEPORT`` and listen; the kernel gives connections to listeners only.
    Keep the socket open as long as children may come, then close it.

    Args:
        host: Name or address to bind.
        port: 0 lets the kernel pick; read the choice from ``getsockname()[1]``.
        option: Where the user chose the port, for the message.

    Raises:
        PortTaken: The port or the host cannot be had; tell the user.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if port:
            # Alone first: with SO_REUSEPORT, another server of this user that shares its port would not be noticed.
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        held = socket.socket(family, kind, protocol)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        raise PortTaken(_refusal(host, port, error, option)) from error
    try:
        held.bind(address)
    except OSError as error:
        held.close()
        raise PortTaken(_refusal(host, port, error, option)) from error
    return held


def _refusal(host: str, port: int, error: OSError, option: str) -> str:
    reason = "the port is taken" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
    return f"cannot listen on {host} port {port}: {reason}; choose another with {option} (0 picks one)"
