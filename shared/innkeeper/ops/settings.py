"""Where a process shows operators what it does: ``--ops-port``, ``--ops-host`` and ``INNKEEPER_OPS_TOKEN``."""

import functools
import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import click

from innkeeper.supervise.port import reserve_port

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

PORT_VARIABLE = "INNKEEPER_OPS_PORT"
HOST_VARIABLE = "INNKEEPER_OPS_HOST"
TOKEN_VARIABLE = "INNKEEPER_OPS_TOKEN"  # noqa: S105 - its name
SHARED_VARIABLE = "INNKEEPER_OPS_SHARED"
"""Set for the children of ``--processes``: their parent holds the port, so that a successor may share it."""

TRACES_VARIABLE = "INNKEEPER_OTEL"
RATIO_VARIABLE = "INNKEEPER_TRACES_RATIO"

_RATIO = 0.01
_LEAST_TOKEN = 16
_MOST_PORT = 65_535


@dataclass(frozen=True, kw_only=True, slots=True)
class OpsSettings:
    """Where the listener listens, and who may read there.

    Attributes:
        port: None: there is none; 0: one that is free, see the log.
        host: A loopback address, unless there is a token.
        token: What ``/metrics`` and details ask for, as ``Authorization: Bearer TOKEN``; empty: nothing.
        is_shared: Whether another process may have the same port for a moment.
        traces: Which share of the messages is traced; 0: none.
    """

    port: int | None = None
    host: str = "127.0.0.1"
    token: str = ""
    is_shared: bool = False
    traces: float = 0.0

    @contextmanager
    def for_children(self, count: int) -> Iterator[list[Mapping[str, str]]]:
        """Hold a port for each of several processes, and yield what to add to their environments.

        The first has the port given, the next ones those after it; with 0 each has one that is free.

        Raises:
            PortTaken: One of them cannot be had.
            click.UsageError: There are not so many ports.
        """
        traces = {TRACES_VARIABLE: "1", RATIO_VARIABLE: str(self.traces)} if self.traces else {}
        if self.port is None:
            yield [traces for _ in range(count)]
            return
        if self.port + count - 1 > _MOST_PORT:
            raise click.UsageError(f"--ops-port {self.port}: {count} processes need as many ports from there on")
        with ExitStack() as stack:
            held = [
                stack.enter_context(reserve_port(self.host, self.port and self.port + number, option="--ops-port"))
                for number in range(count)
            ]
            yield [
                {PORT_VARIABLE: str(one.getsockname()[1]), HOST_VARIABLE: self.host, SHARED_VARIABLE: "1", **traces}
                for one in held
            ]


NO_OPS = OpsSettings()


def read_settings(port: int | None, host: str, environment: Mapping[str, str], *, traces: float = 0.0) -> OpsSettings:
    """Return the settings of this process.

    Raises:
        click.UsageError: Others than this machine could read without a token, or the token is too short.
    """
    token = environment.get(TOKEN_VARIABLE, "")
    if token and len(token) < _LEAST_TOKEN:
        raise click.UsageError(f"{TOKEN_VARIABLE} is shorter than {_LEAST_TOKEN} characters: it could be guessed")
    if port is not None and not token and not _is_loopback(host):
        raise click.UsageError(
            f"--ops-host {host} can be reached from other machines: put a bearer token of {_LEAST_TOKEN} characters "
            f"or more into {TOKEN_VARIABLE}, which scrapers then send"
        )
    return OpsSettings(
        port=port, host=host, token=token, is_shared=environment.get(SHARED_VARIABLE) == "1", traces=traces
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def ops_options(*, traces: bool = True) -> Callable[[Decorated], Decorated]:
    """Return the decorator of what operators may see; the command gets it as one parameter ``ops``.

    Args:
        traces: Whether the role has any, and ``--traces`` with them.
    """

    def decorate(command: Decorated) -> Decorated:
        @functools.wraps(command)
        def with_settings(
            *args: Any,
            ops_port: int | None,
            ops_host: str,
            traces: bool = False,
            traces_ratio: float = 0.0,
            **rest: Any,
        ) -> Any:
            ops = read_settings(ops_port, ops_host, os.environ, traces=traces_ratio if traces else 0.0)
            return command(*args, ops=ops, **rest)

        port = click.option(
            "--ops-port",
            envvar=PORT_VARIABLE,
            type=click.IntRange(0, _MOST_PORT),
            default=None,
            help="Serve /healthz, /readyz and /metrics here; 0 picks a free port. With --processes the first of them.",
        )
        host = click.option(
            "--ops-host",
            envvar=HOST_VARIABLE,
            default="127.0.0.1",
            help=f"Address for --ops-port; one that is not loopback needs a token in {TOKEN_VARIABLE}.",
        )
        decorated = port(host(with_settings))
        if traces:
            switch = click.option(
                "--traces/--no-traces",
                envvar=TRACES_VARIABLE,
                default=False,
                help="Send OpenTelemetry traces of messages to where OTEL_EXPORTER_OTLP_ENDPOINT says.",
            )
            ratio = click.option(
                "--traces-ratio",
                envvar=RATIO_VARIABLE,
                type=click.FloatRange(0, 1),
                default=_RATIO,
                help="Which share of the messages is traced; the same at edges and workers.",
            )
            decorated = switch(ratio(decorated))
        return cast("Decorated", decorated)

    return decorate
