"""Logs to stderr, a line a fact, as text or as JSON; what others have a say in cannot forge a line or show a secret."""

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from innkeeper.address import InvalidAddress, parse_address

FORMAT_VARIABLE = "INNKEEPER_LOG_FORMAT"
LOG_FORMATS = ("text", "json")

# All that ends a line, moves a cursor or turns text around, but for the tab and the line feed.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SECRETS = (
    (re.compile(r"(?<=://)([^\s:/@]*):[^\s/]*@"), r"\1:***@"),
    (re.compile(r"(?i)(?<=[?&])(\w*(?:password|token|secret)=)[^\s&\"']+"), r"\1***"),
    (re.compile(r"(?i)\b(bearer[ .])[\w.~+/=-]{8,}"), r"\1***"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "***"),  # a JSON Web Token
)
_ROOM = re.compile(r"room (\S+) ")
_EXTRA = ("room", "owner", "token")

Facts = Callable[[str], Mapping[str, str]]


def _no_facts(_room: str) -> Mapping[str, str]:
    return {}


class _Process:
    """What this process knows about the rooms it logs of."""

    facts: Facts = staticmethod(_no_facts)


def describe(facts: Facts) -> None:
    """Say what belongs to each record of this process in JSON.

    Args:
        facts: Gets the room of a record (``kind/name``, empty where it is about none) and returns fields. It may be
            called in any thread.
    """
    _Process.facts = staticmethod(facts)


def set_up_logs(level: str, log_format: str | None = None) -> None:
    """Log to stderr from ``level`` on.

    Args:
        level: Least severe one of Innkeeper's own; of other libraries warnings are shown.
        log_format: ``text`` or ``json``; None: as ``INNKEEPER_LOG_FORMAT`` says.
    """
    is_json = (log_format or os.environ.get(FORMAT_VARIABLE, "")) == "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    own = logging.getLogger("innkeeper")
    own.handlers = [handler]
    own.setLevel(level.upper())
    own.propagate = False
    others = logging.getLogger()  # rooms, rq, aiohttp: nobody forges a line, or tells a secret, by way of them
    others.handlers = [one for one in others.handlers if not isinstance(one.formatter, JsonFormatter | TextFormatter)]
    others.addHandler(handler)


def escaped(text: str) -> str:
    r"""Return a text whose control characters are written out, as ``\x1b``; line feeds and tabs stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def redacted(text: str) -> str:
    """Return a text without what looks like a password or a token."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class TextFormatter(logging.Formatter):
    """Time, level, logger and message; the lines of a traceback, or of a room's own text, are indented below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and what belongs to it."""
        return escaped(redacted(super().format(record))).replace("\n", "\n    ")


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and what is known of room, owner, token and error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = _clean(record.getMessage())
        room = str(getattr(record, "room", "")) or _room_of(message)
        written_at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = {
            "time": written_at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if room:
            fields["room"] = room
        fields.update(_Process.facts(room))
        fields.update((name, _clean(str(getattr(record, name)))) for name in _EXTRA if hasattr(record, name))
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = _clean(_summary(error))
            fields["traceback"] = _clean("".join(traceback.format_exception(error)))
        return orjson.dumps(fields).decode()


def _clean(text: str) -> str:
    return escaped(redacted(text))


def _summary(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a user's class may do anything
        return type(error).__name__


def _room_of(message: str) -> str:
    """Return the room that a message is about: those are ``room kind/name: ...``."""
    found = _ROOM.match(message)
    if found is None:
        return ""
    try:
        return str(parse_address(found[1].removesuffix(":")))
    except InvalidAddress:
        return ""
