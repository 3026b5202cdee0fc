"""``innkeeper edge``: terminates WebSockets and appends to the rooms' inboxes."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from aiohttp import web

from innkeeper.boot import check_redis, run_role, stop_asked
from innkeeper.durability import Durability
from innkeeper.errors import PortTaken
from innkeeper.lease import DEFAULT_TIMES
from innkeeper.logs import describe, set_up_logs
from innkeeper.ops import NO_OPS, OpsSettings, ops_options
from innkeeper.ops.listener import Listener
from innkeeper.options import durability_option, log_level_option, redis_option, without_password
from innkeeper.supervise import announce_ready, follow_parent, reserve_port, run_processes
from innkeeper.supervise.pool import STOP_GRACE_S
from innkeeper.traces import open_traces
from innkeeper_edge.app import Site
from innkeeper_edge.auth import Anybody, Authenticator
from innkeeper_edge.auth.hiding import hide_secrets
from innkeeper_edge.auth.options import auth_options, take_options
from innkeeper_edge.drain import drain
from innkeeper_edge.edge import Edge
from innkeeper_edge.handshake import is_origin
from innkeeper_edge.limits import Limits, allow_open_files, limit_options
from innkeeper_edge.metrics import EdgeSource
from innkeeper_edge.server import Server
from innkeeper_edge.traces import EdgeTraces

log = logging.getLogger("innkeeper.edge")

_DRAIN_S = 5.0
_END_S = 10.0  # for all that follows the window


def check_origins(context: click.Context, option: click.Parameter, origins: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what no page's origin can be equal to."""
    del context, option
    for origin in origins:
        if not is_origin(origin):
            raise click.BadParameter(f"{origin!r} is no origin, such as https://app.example.com, nor '*'")
    return origins


@click.command()
@redis_option()
@durability_option()
@click.option("--host", envvar="INNKEEPER_HOST", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port", envvar="INNKEEPER_PORT", type=click.IntRange(0, 65535), default=8000, help="0 picks a free one."
)
@auth_options()
@click.option(
    "--origin",
    "origins",
    envvar="INNKEEPER_ORIGIN",
    multiple=True,
    callback=check_origins,
    help="Origin allowed beside the own host; '*' all.",
)
@click.option("--page/--no-page", envvar="INNKEEPER_PAGE", default=False, help="Serve the page to play with at /.")
@click.option(
    "--page-file",
    envvar="INNKEEPER_PAGE_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True),
    help="Serve this page at /; files in a folder of its name beside it are served under /files/.",
)
@click.option("--processes", envvar="INNKEEPER_PROCESSES", type=click.IntRange(1), default=1, help="Edge processes.")
@click.option("--reuse-port", is_flag=True, hidden=True)
@ops_options()
@log_level_option()
@limit_options
def edge(  # noqa: PLR0917 - click passes them by name
    redis: str, durability: str, host: str, port: int, origins: tuple[str, ...], page: bool, page_file: Path | None,
    processes: int, reuse_port: bool, log_level: str, limits: Limits, ops: OpsSettings, **given: Any,
) -> None:  # fmt: skip
    """Serve WebSockets at ws://HOST:PORT/parties/{kind}/{name}."""
    set_up_logs(log_level)
    auth = take_options(given)
    authenticator = auth.authenticator()
    if processes > 1:
        with reserve_port(host, port) as held, ops.for_children(processes) as environments:
            os.environ["INNKEEPER_REDIS"] = redis  # not as an argument: a password would show in ps
            arguments = ["edge", "--host", host, "--port", str(held.getsockname()[1])]
            arguments += [
                "--durability",
                durability,
                "--reuse-port",
                "--log-level",
                log_level,
                "--page" if page else "--no-page",
                *limits.as_arguments(),
            ]
            if page_file:
                arguments += ["--page-file", str(page_file)]
            arguments += auth.arguments()
            for origin in origins:
                arguments += ["--origin", origin]
            log.info("%d edge processes listen on http://%s:%d/", processes, host, held.getsockname()[1])
            grace_s = max(STOP_GRACE_S, limits.drain_s + _END_S)
            sys.exit(run_processes(arguments, processes, grace_s=grace_s, environments=environments))
    follow_parent(grace_s=limits.drain_s + _END_S)
    mode = Durability(durability)
    allowed = frozenset(origins)
    sys.exit(
        run_role(
            lambda: serve(
                redis,
                host,
                port,
                durability=mode,
                authenticator=authenticator,
                reuse_port=reuse_port,
                limits=limits,
                ops=ops,
                make_site=lambda edge: Site(edge, origins=allowed, page=page, page_file=page_file),
            )
        )
    )


async def serve(
    redis_url: str,
    host: str,
    port: int,
    *,
    durability: Durability,
    authenticator: Authenticator,
    reuse_port: bool,
    limits: Limits,
    make_site: Callable[[Edge], Site],
    ops: OpsSettings = NO_OPS,
) -> int:
    """Serve sockets until SIGTERM or SIGINT, then send them away over a while."""
    stop = stop_asked()
    times = DEFAULT_TIMES
    where = await check_redis(
        redis_url,
        timeout_s=times.redis_timeout_ms / 1000,
        shown=without_password(redis_url),
        durability=durability,
        role="edge",
    )
    if isinstance(authenticator, Anybody):
        log.warning("--auth none: anybody who reaches this edge may enter every room, under any name")
    await authenticator.open()
    most = allow_open_files(limits)
    traces = EdgeTraces(open_traces("edge", ops.traces)) if ops.traces else None
    edge = Edge(where, times, durability, limits, authenticator, traces=traces)
    describe(lambda _room: {"incarnation": edge.incarnation})
    shown = Listener(ops, EdgeSource(edge))
    runner = web.ServerRunner(
        Server(
            make_site(edge).answer,
            limits=limits,
            most=most,
            on_cut=lambda: edge.meters.reject("too_many_connections"),
            access_log=None,
            logger=hide_secrets(),
            keepalive_timeout=limits.head_s,
            auto_decompress=False,
            tcp_keepalive=False,  # edges find out themselves who is gone
        ),
        shutdown_timeout=_DRAIN_S,
    )
    await runner.setup()
    try:
        listener = web.TCPSite(runner, host, port, reuse_port=reuse_port or None, backlog=1024)
        bound = await _listen(runner, listener, f"{host}:{port}")
        log.info("edge %s listens on http://%s:%d/", edge.incarnation, host, bound)
        await shown.start()
        waiting = asyncio.create_task(stop.wait())
        readying = asyncio.create_task(edge.ready.wait())
        await asyncio.wait({waiting, readying}, return_when=asyncio.FIRST_COMPLETED)
        if readying.done():
            announce_ready(port=bound, ops_port=shown.port)
        done, _ = await asyncio.wait({waiting, *edge.duties}, return_when=asyncio.FIRST_COMPLETED)
        readying.cancel()
        if waiting not in done:
            log.critical("a duty of this edge has ended: it goes, another takes its place")
            return 1
        edge.draining = True
        edge.ready.clear()
        await listener.stop()
        stop.clear()  # whoever asks again does not want to wait
        await drain(edge, window_s=limits.drain_s, grace_s=_DRAIN_S, hurry=stop)
    finally:
        await runner.cleanup()
        await edge.close()
        await authenticator.close()
        await shown.close()
    log.info("edge %s ended", edge.incarnation)
    return 0


async def _listen(runner: web.ServerRunner, listener: web.TCPSite, where: str) -> int:
    """Start to listen; return the port.

    Raises:
        PortTaken: It cannot be had.
    """
    try:
        await listener.start()
    except OSError as error:
        raise PortTaken(f"cannot listen on {where}: {error.strerror or error}") from None
    addresses = [address for address in runner.addresses if isinstance(address, tuple)]
    return int(addresses[0][1])
