"""``--auth pkg.mod:function``: a function of the user's says who it is."""

import asyncio
import importlib
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from innkeeper.connection import User
from innkeeper_edge.auth.errors import AuthInvalid
from innkeeper_edge.auth.grant import Grant, PatternInvalid, Patterns, refuse
from innkeeper_edge.handshake import Rejection

log = logging.getLogger("innkeeper.edge")

_DECIDE_S: Final = 5.0
_USER_CHARACTERS = 256
_NOT_YOU: Final = refuse("you are not known here")
_UNDECIDED: Final = Rejection(503, "unavailable", "who you are could not be decided", (("Retry-After", "1"),))


class FunctionAuthenticator:
    """Asks a function of the user's, sync or async, at most for five seconds.

    It gets aiohttp's request and returns None (refused, 401), a :class:`User`, a text (the user's id, also its name),
    or a mapping with ``id`` and perhaps ``name``, ``rooms`` (patterns; without it every room) and ``expires_s`` (Unix
    time). What it raises is logged and answered with 503.

    Args:
        target: ``pkg.mod:function``.

    Raises:
        AuthInvalid: There is no such function.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._function = _find(target)

    async def open(self) -> None:
        """There is nothing to fetch."""

    async def grant(self, request: web.BaseRequest) -> Grant | Rejection:
        """Return what the function says of a request."""
        try:
            async with asyncio.timeout(_DECIDE_S):
                found = self._function(request)
                if inspect.isawaitable(found):
                    found = await found
        except TimeoutError:
            log.error("--auth %s took longer than %g s", self._target, _DECIDE_S)  # noqa: TRY400 - where says nothing
            return _UNDECIDED
        except Exception:
            log.exception("--auth %s failed", self._target)
            return _UNDECIDED
        if found is None or found is False:
            return _NOT_YOU
        try:
            return _read(found)
        except (PatternInvalid, TypeError, ValueError) as error:
            log.error("--auth %s returned what is no user: %s", self._target, error)  # noqa: TRY400 - as above
            return _UNDECIDED

    async def renew(self, token: str) -> Grant | None:  # noqa: ARG002 - see Authenticator
        """There is no request to look at: clients come with a new socket instead."""
        return None

    async def close(self) -> None:
        """There is nothing to let go of."""


def _read(found: object) -> Grant:
    fields: Mapping[str, Any]
    if isinstance(found, User):
        fields = {"id": found.id, "name": found.name}
    elif isinstance(found, str):
        fields = {"id": found}
    elif isinstance(found, Mapping):
        fields = found
    else:
        raise TypeError(f"a {type(found).__name__}: return None, a User, a text or a mapping")
    user_id = fields.get("id")
    name = fields.get("name") or user_id
    for text in (user_id, name):
        if not isinstance(text, str) or not 0 < len(text) <= _USER_CHARACTERS or not text.isprintable():
            raise ValueError(f"id and name are 1 to {_USER_CHARACTERS} printable characters")
    rooms: Iterable[object] = fields.get("rooms", ["*"])
    return Grant(User(str(user_id), str(name)), Patterns(rooms), float(fields.get("expires_s", "inf")))


def _find(target: str) -> Callable[[web.BaseRequest], Any]:
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise AuthInvalid(f"--auth {target}: it is none, jwt or pkg.mod:function")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise AuthInvalid(f"--auth {target}: {module} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise AuthInvalid(f"--auth {target}: there is no function {name!r} in {module}")
    function: Callable[[web.BaseRequest], Any] = found
    return function
