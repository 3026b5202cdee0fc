"""Options that several commands share: one spelling, one environment variable, one help text each."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from innkeeper.durability import Durability
from innkeeper.logs import FORMAT_VARIABLE, LOG_FORMATS
from innkeeper.redis_url import INSECURE_VARIABLE, without_password

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

__all__ = [
    "DEFAULT_REDIS_URL", "LOG_LEVELS", "durability_option", "log_level_option", "redis_option", "without_password",
]  # fmt: skip

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
LOG_LEVELS = ("debug", "info", "warning", "error")


def redis_option(
    *,
    default: str | None = DEFAULT_REDIS_URL,
    help_text: str = "Redis or Valkey that holds the rooms.",
) -> Callable[[Decorated], Decorated]:
    """Return the decorator of ``--redis URL`` (parameter ``redis``), read from ``INNKEEPER_REDIS`` in every command.

    ``--insecure-redis`` comes with it; it goes into the environment, from where the boot check and children read it.

    Args:
        default: None where a command can do without.
        help_text: One sentence for ``--help``.
    """
    redis = click.option("--redis", metavar="URL", envvar="INNKEEPER_REDIS", default=default, help=help_text)
    insecure = click.option(
        "--insecure-redis",
        is_flag=True,
        envvar=INSECURE_VARIABLE,
        expose_value=False,
        callback=_allow_insecure,
        help="Take a Redis on another machine that asks for no password.",
    )
    return lambda command: redis(insecure(command))


def _allow_insecure(_ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        os.environ[INSECURE_VARIABLE] = "1"


def durability_option() -> Callable[[Decorated], Decorated]:
    """Return the decorator of ``--durability`` (parameter ``durability``), read from ``INNKEEPER_DURABILITY``."""
    return click.option(
        "--durability",
        type=click.Choice([mode.value for mode in Durability]),
        envvar="INNKEEPER_DURABILITY",
        default=Durability.RELAXED.value,
        help="What accepted messages survive: as Redis is set up, a power cut (fsync), a failover too (replicated).",
    )


def log_level_option(*, default: str = "info") -> Callable[[Decorated], Decorated]:
    """Return the decorator of ``--log-level`` (parameter ``log_level``) and ``--log-format``, which is no parameter.

    The format goes into the environment, for :func:`innkeeper.logs.set_up_logs` and for the processes of this one.
    """
    level = click.option(
        "--log-level",
        type=click.Choice(LOG_LEVELS, case_sensitive=False),
        envvar="INNKEEPER_LOG_LEVEL",
        default=default,
        help="Least severe level that is logged to stderr.",
    )
    log_format = click.option(
        "--log-format",
        type=click.Choice(LOG_FORMATS, case_sensitive=False),
        envvar=FORMAT_VARIABLE,
        default=LOG_FORMATS[0],
        expose_value=False,
        callback=_choose_format,
        help="How logs are written to stderr; json is one object a line.",
    )

    def decorate(command: Decorated) -> Decorated:
        return level(log_format(command))

    return decorate


def _choose_format(_ctx: click.Context, _parameter: click.Parameter, chosen: str) -> None:
    os.environ[FORMAT_VARIABLE] = chosen
