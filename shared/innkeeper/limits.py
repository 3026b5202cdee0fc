"""The class attributes of rooms that are numbers: checked where a class is written, not where its first room fails."""

import math
from typing import Any

_MOST_MESSAGE_BYTES = 1_048_576
_MOST_REQUEST_S = 300.0
_MOST_HANDLER_S = 86_400.0
_MOST_GRACE_S = 86_400.0


def check_limits(cls: type[Any]) -> None:
    """Check the limits of a room class.

    Raises:
        ValueError: One is no number, or out of its range; the text names both.
    """
    _check_count(cls, "message_bytes", _MOST_MESSAGE_BYTES)
    _check_count(cls, "state_bytes")
    _check_count(cls, "backlog_count")
    if cls.max_connections is not None:
        _check_count(cls, "max_connections")
    _check_seconds(cls, "request_s", _MOST_REQUEST_S)
    _check_seconds(cls, "handler_s", _MOST_HANDLER_S)
    _check_seconds(cls, "idle_s", math.inf)
    if cls.grace_s != 0:
        _check_seconds(cls, "grace_s", _MOST_GRACE_S)


def _check_count(cls: type[Any], name: str, most: int | None = None) -> None:
    value = getattr(cls, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (most is not None and value > most):
        raise ValueError(
            f"{cls.__name__}.{name} = {value!r}: a whole number {f'from 1 to {most:,}' if most else 'from 1'}"
        )


def _check_seconds(cls: type[Any], name: str, most_s: float) -> None:
    value = getattr(cls, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most_s:
        limit = f"at most {most_s:g}" if most_s < math.inf else 'float("inf") for no end'
        raise ValueError(f"{cls.__name__}.{name} = {value!r}: seconds above 0, {limit}")
