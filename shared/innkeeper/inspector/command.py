"""``innkeeper inspector``: serves the page."""

import logging
import os
import sys
from pathlib import Path

import click
from aiohttp import web

from innkeeper.boot import run_role, stop_asked
from innkeeper.errors import PortTaken
from innkeeper.inspector.app import Inspector
from innkeeper.inspector.board import Board
from innkeeper.inspector.login import LEAST_PASSWORD, Login
from innkeeper.logs import set_up_logs
from innkeeper.options import log_level_option, redis_option, without_password
from innkeeper.outside import Innkeeper
from innkeeper.supervise import announce_ready, follow_parent

log = logging.getLogger("innkeeper.inspector")

PASSWORD_VARIABLE = "INNKEEPER_INSPECTOR_PASSWORD"  # noqa: S105 - its name
DEFAULT_PORT = 8001
_SHUTDOWN_S = 1.0


@click.command()
@redis_option()
@click.option(
    "--host", envvar="INNKEEPER_INSPECTOR_HOST", default="127.0.0.1", help="Address to listen on; loopback as it is."
)
@click.option(
    "--port",
    envvar="INNKEEPER_INSPECTOR_PORT",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    help="0 picks a free one.",
)
@click.option(
    "--password-file",
    envvar="INNKEEPER_INSPECTOR_PASSWORD_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"Holds the password; or the variable {PASSWORD_VARIABLE} does.",
)
@click.option("--read-only", is_flag=True, envvar="INNKEEPER_INSPECTOR_READ_ONLY", help="Look, and do nothing.")
@click.option("--reuse-port", is_flag=True, hidden=True)
@log_level_option()
def inspector(  # noqa: PLR0917 - click passes them by name
    redis: str, host: str, port: int, password_file: Path | None, read_only: bool, reuse_port: bool, log_level: str
) -> None:
    """Serve a web page to look into rooms, and to act on them, to whoever knows its password.

    It needs no edge and no worker, only Redis, with the rights of the user `operator` in deploy/redis/users.acl.in.
    """
    set_up_logs(log_level)
    login = Login(_password(password_file))
    follow_parent()
    sys.exit(run_role(lambda: serve(redis, host, port, login, read_only=read_only, reuse_port=reuse_port)))


def _password(file: Path | None) -> str:
    given = file.read_text(encoding="utf-8").strip() if file is not None else os.environ.get(PASSWORD_VARIABLE, "")
    where = str(file) if file is not None else PASSWORD_VARIABLE
    if not given:
        raise click.UsageError(f"no password: give --password-file, or put one into {PASSWORD_VARIABLE}")
    if len(given) < LEAST_PASSWORD:
        raise click.UsageError(f"the password in {where} is shorter than {LEAST_PASSWORD} characters")
    return given


async def serve(redis_url: str, host: str, port: int, login: Login, *, read_only: bool, reuse_port: bool) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Raises:
        PortTaken: The port cannot be had.
        RedisUnusable: As :meth:`Innkeeper.open`.
    """
    stop = stop_asked()
    async with Innkeeper.connect(redis_url) as inn:
        board = Board(inn.link)
        site = Inspector(inn, board, login, shown=without_password(redis_url), read_only=read_only)
        runner = web.AppRunner(site.make_app(), access_log=None, shutdown_timeout=_SHUTDOWN_S, handle_signals=False)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, reuse_port=reuse_port or None).start()
            bound = next(int(address[1]) for address in runner.addresses if isinstance(address, tuple))
            log.info("the inspector is at http://%s:%d/", f"[{host}]" if ":" in host else host, bound)
            announce_ready(port=bound)
            await stop.wait()
        except OSError as error:
            raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        finally:
            await board.close()
            await runner.cleanup()
    return 0
