"""Options that several commands share: one spelling, one environment variable, one help text each."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from innkeeper.durability import Durability

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
LOG_LEVELS = ("debug", "info", "warning", "error")


def redis_option(
    *,
    default: str | None = DEFAULT_REDIS_URL,
    help_text: str = "Redis or Valkey that holds the rooms.",
) -> Callable[[Decorated], Decorated]:
    """Return the decorator of ``--redis URL`` (parameter ``redis``), read from ``INNKEEPER_REDIS`` in every command.

    Args:
        default: None where a command can do without.
        help_text: One sentence for ``--help``.
    """
    return click.option("--redis", metavar="URL", envvar="INNKEEPER_REDIS", default=default, help=help_text)


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
    """Return the decorator of ``--log-level`` (parameter ``log_level``), read from ``INNKEEPER_LOG_LEVEL``."""
    return click.option(
        "--log-level",
        type=click.Choice(LOG_LEVELS, case_sensitive=False),
        envvar="INNKEEPER_LOG_LEVEL",
        default=default,
        help="Least severe level that is logged to stderr.",
    )


def without_password(url: str) -> str:
    """Return a Redis URL fit for logs and terminals: a password in it shows as three stars."""
    url = re.sub(r"(?<=://)([^:/@]*):[^@]*@", r"\1:***@", url, count=1)
    return re.sub(r"(?<=password=)[^&]*", "***", url)
