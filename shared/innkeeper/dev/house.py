"""A development house: Valkey, one worker, one edge and the inspector, kept running until somebody says stop."""

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from innkeeper.dev.valkey import LOOPBACK, ValkeyFailed, find_server, free_port, log_tail, valkey_program
from innkeeper.dev.watch import Sources, folder_of
from innkeeper.ops.settings import PORT_VARIABLE as OPS_PORT_VARIABLE
from innkeeper.options import without_password
from innkeeper.supervise import BootFailed, Keeper, Program, announce_ready
from innkeeper.supervise.pool import INNKEEPER_COMMAND, PROCESSES_VARIABLE

logger = logging.getLogger("innkeeper.dev")

EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - shown to the user as loopback, not bound

# The role has said what is wrong, in a line of its own.
EXPLAINED_EXIT_CODES = frozenset({2, 3, 4, 5})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the user asked for."""

    targets: Sequence[str]
    data_dir: Path
    """Absolute, and locked for this process."""
    held_port: socket.socket
    """Bound to the address the edge is to listen on."""
    inspector_port: socket.socket | None = None
    """Bound to a loopback address for the inspector; None: there is none."""
    host: str = LOOPBACK
    redis_url: str | None = None
    """None: a Valkey of our own."""
    redis_server: str | None = None
    reload: bool = True
    auth: str = "none"
    log_level: str = "info"
    command: Sequence[str] = INNKEEPER_COMMAND
    """What ``edge`` and ``worker`` are given to."""

    @property
    def port(self) -> int:
        """The port held for the edge."""
        port: int = self.held_port.getsockname()[1]
        return port

    @property
    def page_file(self) -> Path | None:
        """The page of the first target that has one: ``chat.html`` beside ``chat.py``."""
        pages = (Path(target.partition(":")[0]).with_suffix(".html") for target in self.targets if ".py" in target)
        return next((page.resolve() for page in pages if page.is_file()), None)

    @property
    def page_url(self) -> str:
        """The address to open in a browser."""
        host = LOOPBACK if self.host in EVERYWHERE else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


class House:
    """The processes of one plan, started in the order in which they need each other and stopped in the reverse."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._keepers: list[Keeper] = []
        self._redis_port: int | None = None

    async def run(self) -> int:
        """Run until SIGINT, SIGTERM or SIGHUP (a closed terminal); return the exit code.

        Returns:
            0, or the exit code of the role that did not get ready at the first start.

        Raises:
            ValkeyFailed: Our own server did not start.
            ValkeyMissing: There is none to start.
        """
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(signal_number, stop.set)
        serving = asyncio.create_task(self._serve())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
        except BootFailed as failed:
            if failed.exit_code not in EXPLAINED_EXIT_CODES:
                click.echo(f"innkeeper: {failed}", err=True)
            return failed.exit_code
        else:
            click.echo("Stopping.")
            return 0
        finally:
            serving.cancel()
            stopped.cancel()
            await asyncio.gather(serving, stopped, return_exceptions=True)
            for keeper in reversed(self._keepers):
                await keeper.stop()

    async def _serve(self) -> None:
        plan = self.plan
        # Looked at before the first worker reads them, so that no change falls between the two.
        sources = Sources(folder for target in plan.targets if (folder := folder_of(target)))
        redis_url = plan.redis_url or await self._start_valkey()
        environment = {
            "INNKEEPER_REDIS": redis_url,  # not an argument: it may hold a password
            "INNKEEPER_LOG_LEVEL": plan.log_level,
            PROCESSES_VARIABLE: "1",
            OPS_PORT_VARIABLE: "",  # one port cannot be everybody's
        }
        worker = self._keep(
            "worker",
            [*plan.command, "worker", *plan.targets],
            # A compiled file is matched to its source by the second of saving: of two saves in one second, the first
            # would be loaded again.
            {**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        address = ["--host", plan.host, "--port", str(plan.port), "--reuse-port"]
        page = ["--page", *(("--page-file", str(plan.page_file)) if plan.page_file else ())]
        edge = self._keep(
            "edge", [*plan.command, "edge", *address, "--auth", plan.auth, "--drain-s", "0", *page], environment
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.start())
                group.create_task(edge.start())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        reloaded = [worker]
        if await self._has_jobs():
            jobs = self._keep("jobs", [*plan.command, "jobs", *plan.targets], environment)
            await jobs.start()
            reloaded.append(jobs)
        self._greet(redis_url, await self._start_inspector(environment))
        while plan.reload:
            await _reload(reloaded, await sources.changed())
        await asyncio.Event().wait()

    async def _start_inspector(self, environment: dict[str, str]) -> str:
        """Return where it is, with its password, which stays the same as long as the folder does; empty: nowhere."""
        plan = self.plan
        if plan.inspector_port is None:
            return ""
        file = plan.data_dir / "inspector-password"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(f"{secrets.token_urlsafe(12)}\n")
        port = plan.inspector_port.getsockname()[1]
        options = ["--host", LOOPBACK, "--port", str(port), "--reuse-port", "--password-file", str(file)]
        try:
            await self._keep("inspector", [*plan.command, "inspector", *options], environment).start()
        except BootFailed as failed:
            click.echo(f"innkeeper: the inspector did not start: {failed}", err=True)
            return ""
        return f"http://{LOOPBACK}:{port}/#password={file.read_text().strip()}"

    async def _has_jobs(self) -> bool:
        """Ask a process of its own, because user code is not imported here."""
        process = await asyncio.create_subprocess_exec(
            *self.plan.command, "jobs", *self.plan.targets, "--list",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        names, _ = await process.communicate()
        return bool(names.strip())

    def _keep(self, name: str, arguments: Sequence[str], environment: dict[str, str]) -> Keeper:
        program = Program(name=name, arguments=arguments, environment=environment)
        keeper = Keeper(program)
        self._keepers.append(keeper)
        return keeper

    async def _start_valkey(self) -> str:
        plan = self.plan
        server = find_server(plan.redis_server)
        self._redis_port = free_port()
        program = valkey_program(server, plan.data_dir, self._redis_port)
        keeper = Keeper(program)
        self._keepers.append(keeper)
        try:
            await keeper.start()
        except BootFailed as failed:
            log_path = plan.data_dir / "valkey.log"
            raise ValkeyFailed(f"{failed}; the end of {log_path}:\n{log_tail(log_path)}") from failed
        return f"redis://{LOOPBACK}:{self._redis_port}/0"

    def _greet(self, redis_url: str, inspector_url: str) -> None:
        plan = self.plan
        click.echo(f"Innkeeper is ready: {plan.page_url}")
        if inspector_url:
            click.echo(f"Inspector: {inspector_url}")
        if self._redis_port is None:
            click.echo(f"Redis: {without_password(redis_url)}")
        else:
            click.echo(f"Redis: redis-cli -p {self._redis_port}    (rooms are kept in {plan.data_dir})")
        if plan.reload:
            click.echo("Save the target and it is reloaded; no socket is closed.")
        click.echo("Stop with Ctrl-C.")
        announce_ready(port=plan.port, redis_port=self._redis_port)


async def _reload(keepers: Sequence[Keeper], changes: Sequence[Path]) -> None:
    names = ", ".join(path.name for path in changes[:3]) + (", ..." if len(changes) > 3 else "")  # noqa: PLR2004
    try:
        for keeper in keepers:
            await keeper.replace()
    except BootFailed:
        click.echo(f"Not reloaded ({names}): the old code goes on.", err=True)
    else:
        click.echo(f"Reloaded ({names}).")
