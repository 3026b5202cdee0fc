"""``--auth pkg.mod:function``: a function of the user's says who it is."""

import asyncio
import importlib
import inspect
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from innkeeper.connection import User
from innkeeper.errors import Refused
from innkeeper_edge.auth.errors import AuthInvalid
from innkeeper_edge.auth.grant import Grant, PatternInvalid, Patterns, refuse
from innkeeper_edge.auth.nobody import shown_name
from innkeeper_edge.handshake import Rejection

log = logging.getLogger("innkeeper.edge")

_DECIDE_S: Final = 5.0
_THREADS: Final = 32
_USER_CHARACTERS = 256
_REASON_CHARACTERS = 200
_NOT_YOU: Final = refuse("you are not known here")
_UNDECIDED: Final = Rejection(503, "unavailable", "who you are could not be decided", (("Retry-After", "1"),))


class FunctionAuthenticator:
    """Asks a function of the user's, at most for five seconds; one that is not async is run in a thread.

    It gets aiohttp's request and returns None (refused, 401), a :class:`User`, a text (the user's id, also its name),
    or a mapping with ``id`` and perhaps ``name``, ``rooms`` (patterns; without it every room) and ``expires_s`` (Unix
    time). The text of a :class:`Refused` goes to the client, with 401. What else it raises is answered with 503, and
    logged without its text: that may hold a token.

    Args:
        target: ``pkg.mod:function``.

    Raises:
        AuthInvalid: There is no such function.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._function = _find(target)
        self._threads = threading.Semaphore(_THREADS)

    async def open(self) -> None:
        """There is nothing to fetch."""

    async def grant(self, request: web.BaseRequest) -> Grant | Rejection:
        """Return what the function says of a request."""
        asking = asyncio.create_task(self._ask(request))
        done, _ = await asyncio.wait([asking], timeout=_DECIDE_S)
        if not done:
            asking.cancel()  # and not waited for: it may take its time
            asking.add_done_callback(lambda task: task.cancelled() or task.exception())
            log.error("--auth %s took longer than %g s", self._target, _DECIDE_S)
            return _UNDECIDED
        return self._judged(asking)

    async def _ask(self, request: web.BaseRequest) -> object:
        try:
            if inspect.iscoroutinefunction(self._function):
                return await self._function(request)
            found = await self._in_thread(request)
            return await found if inspect.isawaitable(found) else found
        except (Exception, asyncio.CancelledError):
            raise
        except BaseException as error:  # out of a task, it would stop the loop
            raise _contained(error) from error

    async def _in_thread(self, request: web.BaseRequest) -> object:
        """Call the function in a thread that keeps no process alive."""
        if not self._threads.acquire(blocking=False):
            raise RuntimeError(f"{_THREADS} calls of it are running")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()

        def call() -> None:
            try:
                found, error = self._function(request), None
            except BaseException as raised:  # noqa: BLE001 - a user's function may raise anything
                found, error = None, raised
            finally:
                self._threads.release()
            loop.call_soon_threadsafe(_settle, answer, found, error)

        threading.Thread(target=call, name="auth", daemon=True).start()
        return await answer

    def _judged(self, asked: "asyncio.Task[object]") -> Grant | Rejection:
        try:
            found = asked.result()
        except Refused as refused:
            return refuse(str(refused)[:_REASON_CHARACTERS] or _NOT_YOU.message)
        except BaseException as error:  # noqa: BLE001 - as above; sys.exit() ends nothing here
            log.error("--auth %s failed: %s", self._target, _told(error))  # noqa: TRY400 - a traceback shows its text
            return _UNDECIDED
        if found is None or found is False:
            return _NOT_YOU
        try:
            return _read(found)
        except Refused as refused:
            return refuse(str(refused))
        except (PatternInvalid, TypeError, ValueError) as error:
            log.error("--auth %s returned what is no user: %s", self._target, error)  # noqa: TRY400 - as above
            return _UNDECIDED

    async def renew(self, token: str) -> Grant | None:  # noqa: ARG002 - see Authenticator
        """There is no request to look at: clients come with a new socket instead."""
        return None

    async def close(self) -> None:
        """There is nothing to let go of."""


def _settle(answer: "asyncio.Future[object]", found: object, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(found)
    else:
        answer.set_exception(_contained(error))


def _contained(error: BaseException) -> Exception:
    """Return an error as one that neither ends the loop nor is refused by a future."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    made = RuntimeError(type(error).__name__)
    return made.with_traceback(error.__traceback__)


def _told(error: BaseException) -> str:
    """Return what failed and where, without the error's text: that may quote a token."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


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
    user_id, name = fields.get("id"), fields.get("name") or ""
    if not isinstance(user_id, str) or not 0 < len(user_id) <= _USER_CHARACTERS or not user_id.isprintable():
        raise ValueError(f"its id is to be text of 1 to {_USER_CHARACTERS} printable characters")
    if not isinstance(name, str):
        raise TypeError("its name is no text")
    rooms: str | Iterable[object] = fields.get("rooms", ["*"])
    patterns = Patterns(rooms.split() if isinstance(rooms, str) else rooms)
    expires_s = float(fields.get("expires_s", "inf"))
    if not expires_s > 0:
        raise ValueError("its expires_s is no Unix time")
    if expires_s <= time.time():
        raise Refused("what you came with has expired")
    return Grant(User(user_id, shown_name(name) or shown_name(user_id)), patterns, expires_s, is_renewable=False)


def _find(target: str) -> Callable[[web.BaseRequest], Coroutine[Any, Any, object] | object]:
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
