"""``innkeeper dev``: turns its options into a plan and runs the house."""

import asyncio
import logging
import socket
from contextlib import ExitStack
from pathlib import Path

import click

from innkeeper.dev.data_dir import locked_data_dir
from innkeeper.dev.house import House, Plan
from innkeeper.dev.valkey import LOOPBACK
from innkeeper.errors import PortTaken
from innkeeper.options import log_level_option, redis_option
from innkeeper.supervise import follow_parent, reserve_port


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@redis_option(default=None, help_text="Existing server to use instead of a private one.")
@click.option("--host", envvar="INNKEEPER_HOST", default="127.0.0.1", help="Address the edge listens on.")
@click.option(
    "--port",
    envvar="INNKEEPER_PORT",
    default=8000,
    type=click.IntRange(0, 65535),
    help="Port the edge listens on; 0 picks one.",
)
@click.option(
    "--inspector-port",
    envvar="INNKEEPER_INSPECTOR_PORT",
    type=click.IntRange(0, 65535),
    help="Port of the inspector, on loopback. Without it the one after the edge's, or any if that is taken.",
)
@click.option("--inspector/--no-inspector", default=True, help="A page to look into the rooms.")
@click.option(
    "--data-dir",
    default=".innkeeper",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder in which the private server keeps the rooms.",
)
@click.option("--redis-server", metavar="PATH", help="Server program to start instead of the one found.")
@click.option("--reload/--no-reload", default=True, help="Reload the rooms when their files are saved.")
@click.option(
    "--auth",
    default="none",
    metavar="none|jwt|pkg.mod:function",
    help="Who may join. 'none': anybody. What else jwt needs stands in INNKEEPER_JWT_...",
)
@log_level_option(default="warning")
@click.pass_context
def dev(
    ctx: click.Context,
    *,
    targets: tuple[str, ...],
    redis: str | None,
    host: str,
    port: int,
    inspector_port: int | None,
    inspector: bool,
    data_dir: Path,
    redis_server: str | None,
    reload: bool,
    auth: str,
    log_level: str,
) -> None:
    """Run everything on this machine, with a page to play with a room.

    TARGET is a Python file or an importable module with Room classes. A private Valkey, one worker, one edge and the
    inspector are started, and started again if they crash. When a file beside the target is saved, a new worker takes
    over; no socket is closed. Ctrl-C stops everything; the rooms are there again next time.
    """
    logging.basicConfig(level=log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    follow_parent()
    with ExitStack() as held:
        held_port = held.enter_context(reserve_port(host, port))
        inspector_socket = held.enter_context(_inspector_port(inspector_port, held_port)) if inspector else None
        locked_dir = held.enter_context(locked_data_dir(data_dir))
        plan = Plan(
            targets=targets,
            data_dir=locked_dir,
            held_port=held_port,
            inspector_port=inspector_socket,
            host=host,
            redis_url=redis,
            redis_server=redis_server,
            reload=reload,
            auth=auth,
            log_level=log_level,
        )
        ctx.exit(asyncio.run(House(plan).run()))


def _inspector_port(wanted: int | None, edge: socket.socket) -> socket.socket:
    if wanted is not None:
        return reserve_port(LOOPBACK, wanted, option="--inspector-port")
    try:
        return reserve_port(LOOPBACK, edge.getsockname()[1] + 1)
    except (PortTaken, OverflowError):
        return reserve_port(LOOPBACK, 0)
