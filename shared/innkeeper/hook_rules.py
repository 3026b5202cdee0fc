"""What a room class may call its methods and how they must look: mistakes are told where the class is written."""

import difflib
import inspect
import logging
import re
from typing import Any, Final

from innkeeper.dispatch import is_handler

log = logging.getLogger("innkeeper.worker")

_LIKE_A_HOOK: Final = re.compile(r"on_?[A-Z]\w*|on_\w+")
# What others call our hooks.
_MEANT: Final = {
    "alarm": "on_timer", "tick": "on_timer", "schedule": "on_timer",
    "close": "on_leave", "disconnect": "on_leave", "exit": "on_leave", "quit": "on_leave", "part": "on_leave",
    "open": "on_connect", "join": "on_connect", "enter": "on_connect",
    "receive": "on_message", "text": "on_message", "binary": "on_message",
    "fetch": "on_request", "http": "on_request",
    "init": "on_create", "load": "on_start", "wake": "on_start",
    "stop": "on_sleep", "unload": "on_sleep", "hibernate": "on_sleep", "shutdown": "on_sleep",
    "exception": "on_error", "result": "on_job",
}  # fmt: skip


def check_hooks(cls: type, room: type) -> None:
    """Check the methods of a room class; warn of those that look like hooks and are none.

    Args:
        cls: Of the user.
        room: The class with all hooks as the framework calls them.

    Raises:
        TypeError: A hook is a generator or takes other arguments than it gets; or ``@on`` marks a name of the
            framework's.
    """
    hooks = {name for name in vars(room) if name.startswith("on_")}
    for name in sorted(hooks):
        if getattr(cls, name) is not getattr(room, name):
            _check_hook(cls, name, list(inspect.signature(getattr(room, name)).parameters))
    bases = [base for base in cls.__mro__ if base not in room.__mro__]
    if not isinstance(inspect.getattr_static(cls, "authorize"), classmethod | staticmethod):
        raise TypeError(f"{cls.__name__}.authorize: make it a @classmethod: it is asked before anybody is in")
    handlers = {name: value for base in bases for name, value in vars(base).items() if is_handler(value)}
    for name, handler in handlers.items():
        _check_handler(cls, name, handler, is_taken=hasattr(room, name) or name in room.__annotations__)
    for base in bases:
        if base is cls or not issubclass(base, room):  # of other rooms it was said already
            for name in sorted(vars(base).keys() - hooks - handlers.keys()):
                _check_name(cls, name, vars(base)[name], hooks)


def _check_hook(cls: type, name: str, given: list[str]) -> None:
    hook, as_written = getattr(cls, name), inspect.getattr_static(cls, name)
    where = f"{cls.__name__}.{name}"
    if not callable(hook):
        raise TypeError(f"{where} = {hook!r}: a hook is a method")
    _check_runs(where, hook)
    try:
        signature = inspect.signature(hook, follow_wrapped=False)  # a decorator may add arguments
    except (TypeError, ValueError):
        return  # written in C, perhaps
    is_bound = isinstance(as_written, staticmethod | classmethod)
    if not is_bound and not inspect.isfunction(hook):
        return  # an object that is called in its own way
    try:
        signature.bind(*given[is_bound:])
    except TypeError:
        raise TypeError(f"{where}{signature}: it has to take what Room.{name}({', '.join(given)}) takes") from None


def _check_handler(cls: type, name: str, handler: Any, *, is_taken: bool) -> None:
    where = f"{cls.__name__}.{name}"
    if is_taken:
        raise TypeError(f"{where}: a method with @on may not take the place of Room.{name}: give it another name")
    _check_runs(where, handler)


def _check_runs(where: str, hook: Any) -> None:
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise TypeError(f"{where} has a yield in it: that makes it a generator, and nothing in it would ever run")


def _check_name(cls: type, name: str, value: Any, hooks: set[str]) -> None:
    if not callable(value) or not _LIKE_A_HOOK.fullmatch(name):
        return
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    meant = snake if snake in hooks else _MEANT.get(snake[3:])
    meant = meant or next(iter(difflib.get_close_matches(snake, sorted(hooks), n=1, cutoff=0.75)), None)
    if meant is None:
        log.warning("%s.%s: no hook has this name, so only your own code calls it", cls.__name__, name)
    else:
        log.warning("%s.%s: no hook has this name, so only your own code calls it; is it %s that you mean?",
                    cls.__name__, name, meant)  # fmt: skip
