"""Jobs: functions that run outside the rooms, under ``innkeeper jobs``, and whose results come back as events."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import orjson

from innkeeper.errors import JobInvalid
from innkeeper.finite import is_finite, is_number

MARK: Final = "__innkeeper_job__"
QUEUE: Final = "innkeeper"
DATA_BYTES: Final = 1_048_576
_MOST_S: Final = 7 * 86_400.0
_WAIT_S: Final = 3_600.0
_NAME: Final = re.compile(r"[A-Za-z_][\w.]{0,200}:[A-Za-z_]\w{0,100}", re.ASCII)

Status = Literal["done", "failed", "timeout", "lost"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended.

    Attributes:
        id: What ``enqueue`` returned.
        function: ``pkg.mod:function``.
        status: ``done``; ``failed`` (it raised, or its process died); ``timeout`` (it ran too long); ``lost`` (nothing
            was heard of it by its deadline).
        value: What it returned, JSON; None unless done.
        error: One line on what went wrong; empty where done.
    """

    id: str
    function: str
    status: Status
    value: Any = None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is done."""
        return self.status == "done"


def job(function: Function) -> Function:
    """Allow a function, sync or async, to be run as a job: ``innkeeper jobs`` runs no other ones.

    It gets the arguments given to ``enqueue`` as JSON brings them, and returns what JSON holds.
    """
    setattr(function, MARK, True)
    return function


def job_name(function: str | Callable[..., Any]) -> str:
    """Return ``pkg.mod:function`` for a function marked with :func:`job`, or for such a text.

    Raises:
        JobInvalid: The text is no such name, or the function is not marked or not at the top level of its module.
    """
    if isinstance(function, str):
        if not _NAME.fullmatch(function):
            raise JobInvalid(f"{function!r} is no job: name it pkg.mod:function")
        return function
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    if not getattr(function, MARK, False) or not _NAME.fullmatch(name):
        raise JobInvalid(f"{name} is no job: mark a function at the top level of its module with @job")
    return name


def job_data(job_id: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, timeout_s: float) -> bytes:
    """Return what travels to the job's process.

    Raises:
        JobInvalid: The arguments are not JSON or over 1 MiB, or the timeout is no time from 1 s to 7 days.
    """
    check_seconds("timeout", timeout_s)
    try:
        data = orjson.dumps({"id": job_id, "args": args, "kwargs": kwargs, "timeout_s": timeout_s})
    except (TypeError, ValueError) as error:
        raise JobInvalid(f"a job's arguments must be JSON: {error}") from None
    if not is_finite((args, kwargs), data):
        raise JobInvalid("a job's arguments must be JSON: NaN and Infinity would arrive as None")
    if len(data) > DATA_BYTES:
        raise JobInvalid(f"a job's arguments take {len(data)} bytes: at most {DATA_BYTES}")
    return data


def deadline_s(timeout_s: float, deadline: float | None) -> float:
    """Return for how long a room waits for a job: as asked, or an hour in the queue and the time it may run.

    Raises:
        JobInvalid: The deadline is shorter than the timeout, or no time up to 7 days.
    """
    if deadline is None:
        return timeout_s + _WAIT_S
    check_seconds("deadline", deadline)
    if deadline < timeout_s:
        raise JobInvalid(f"deadline {deadline:g} s is shorter than the job may run ({timeout_s:g} s)")
    return deadline


def check_seconds(name: str, value: object) -> None:
    """Raise JobInvalid unless a value is a time from 1 s to 7 days."""
    if not is_number(value):
        raise JobInvalid(f"{name} = {value!r}: a number of seconds")
    if not 1 <= value <= _MOST_S:
        raise JobInvalid(f"{name} = {value:g} s: from 1 s to 7 days")


def outcome(job_id: str, status: Status, *, value: Any = None, error: str = "") -> bytes:
    """Return the data of a room's event ``job``; a value that is not JSON, or over 1 MiB, makes it a failure."""
    try:
        data = orjson.dumps({"id": job_id, "status": status, "value": value, "error": error})
    except (TypeError, ValueError) as problem:
        return outcome(job_id, "failed", error=f"its result is not JSON: {problem}")
    if not is_finite(value, data):
        return outcome(job_id, "failed", error="its result is not JSON: NaN and Infinity would arrive as None")
    if len(data) > DATA_BYTES:
        return outcome(job_id, "failed", error=f"its result takes {len(data)} bytes: at most {DATA_BYTES}")
    return data
