"""``innkeeper dev``: turns its options into a plan and runs the house."""

import asyncio
import logging
from pathlib import Path

import click

from innkeeper.dev.data_dir import locked_data_dir
from innkeeper.dev.house import House, Plan
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
    data_dir: Path,
    redis_server: str | None,
    reload: bool,
    auth: str,
    log_level: str,
) -> None:
    """Run everything on this machine, with a page to play with a room.

    TARGET is a Python file or an importable module with Room classes. A private Valkey, one worker and one edge are
    started, and started again if they crash. When a file beside the target is saved, a new worker takes over; no socket
    is closed. Ctrl-C stops everything; the rooms are there again next time.
    """
    logging.basicConfig(level=log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    follow_parent()
    with reserve_port(host, port) as held_port, locked_data_dir(data_dir) as locked_dir:
        plan = Plan(
            targets=targets,
            data_dir=locked_dir,
            held_port=held_port,
            host=host,
            redis_url=redis,
            redis_server=redis_server,
            reload=reload,
            auth=auth,
            log_level=log_level,
        )
        ctx.exit(asyncio.run(House(plan).run()))
