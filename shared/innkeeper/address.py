"""Addresses of rooms: ``kind/name``, checked before anything else looks at them."""

import re
from typing import NamedTuple

KIND_PATTERN = re.compile(r"[a-z][a-z0-9_-]{0,31}")
NAME_PATTERN = re.compile(r"[A-Za-z0-9_.:~-]{1,128}")


class InvalidAddress(ValueError):
    """A kind or a room name that may not stand in a key; nothing was looked up."""


class Address(NamedTuple):
    """The address of one room; make it with :func:`parse_address` or :func:`check_address`."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def check_address(kind: str, name: str) -> Address:
    """Return the address of a room, or say what is wrong with it.

    Args:
        kind: ``[a-z][a-z0-9_-]{0,31}``.
        name: ``[A-Za-z0-9_.:~-]{1,128}``, not dots alone (a browser would fold them into a parent step).

    Raises:
        InvalidAddress: The text names the rule that was broken.
    """
    if not _fits(KIND_PATTERN, kind):
        raise InvalidAddress(f"invalid room kind {kind!r:.150}: it must match [a-z][a-z0-9_-]{{0,31}}")
    if not _fits(NAME_PATTERN, name):
        raise InvalidAddress(f"invalid room name {name!r:.150}: it must match [A-Za-z0-9_.:~-]{{1,128}}")
    if not name.strip("."):
        raise InvalidAddress(f"invalid room name {name!r}: it may not be dots alone")
    return Address(kind, name)


def parse_address(text: str) -> Address:
    """Return the address written as ``kind/name``.

    Raises:
        InvalidAddress: As :func:`check_address`, also where there is no slash, or it is no text.
    """
    given: object = text  # users write what they like
    kind, slash, name = given.partition("/") if isinstance(given, str) else ("", "", "")
    if not slash:
        raise InvalidAddress(f"invalid room address {given!r:.150}: write it as kind/name")
    return check_address(kind, name)


def _fits(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
