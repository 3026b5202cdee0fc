"""TARGETs: ``pkg.mod``, ``pkg.mod:Class`` or ``file.py``, turned into room classes by kind, or into jobs by name."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from innkeeper.errors import TargetInvalid
from innkeeper.jobs import MARK, job_name
from innkeeper.room import Room


def load_rooms(targets: tuple[str, ...]) -> dict[str, type[Room]]:
    """Return the room classes of all targets by kind.

    A module counts with the Room classes it defines itself (not those it imports); ``file.py:Class`` works too. The
    working directory, and a file's own folder, are put on the import path.

    Raises:
        TargetInvalid: It cannot be imported, has no Room, or two classes claim one kind; the text says which.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    rooms: dict[str, type[Room]] = {}
    for target in targets:
        for room in _load(target):
            other = rooms.setdefault(room.kind, room)
            if other is not room:
                raise TargetInvalid(f"{target}: kind {room.kind!r} is taken by {other.__module__}.{other.__name__}")
    return rooms


def load_jobs(targets: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    """Return the functions of all targets that are marked with ``@job``, by ``pkg.mod:function``.

    A module counts with those it defines itself; ``pkg.mod:function`` and ``file.py:function`` name one alone.

    Raises:
        TargetInvalid: It cannot be imported, or has no job of that name; the text says which.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    found: dict[str, Callable[..., Any]] = {}
    for target in targets:
        path, colon, name = target.partition(":")
        module = _import(path)
        functions = [
            value
            for key, value in vars(module).items()
            if getattr(value, MARK, False) and value.__module__ == module.__name__ and (not colon or key == name)
        ]
        if colon and not functions:
            raise TargetInvalid(f"{target}: there is no function {name!r} marked with @job in {path}")
        found |= {job_name(function): function for function in functions}
    return found


def _load(target: str) -> list[type[Room]]:
    path, colon, name = target.partition(":")
    module = _import(path)
    if colon:
        room = getattr(module, name, None)
        if not (isinstance(room, type) and issubclass(room, Room)):
            raise TargetInvalid(f"{target}: there is no Room class {name!r} in {path}")
        return [room]
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Room) and value.__module__ == module.__name__
    ]
    if not found:
        raise TargetInvalid(f"{target}: no Room class in it; write `class Chat(Room): ...`")
    return found


def _import(path: str) -> ModuleType:
    try:
        return _import_file(Path(path)) if path.endswith(".py") else importlib.import_module(path)
    except TargetInvalid:
        raise
    except ModuleNotFoundError as error:
        raise TargetInvalid(f"{path}: no module named {error.name!r}") from error
    except Exception as error:  # a user's module may raise anything
        shown = "".join(traceback.format_exception(error, limit=-3)).strip()
        raise TargetInvalid(f"{path} cannot be loaded:\n{shown}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetInvalid(f"{path}: no such file")
    sys.path.insert(0, str(path.resolve().parent))
    name = path.stem
    if name in sys.modules:
        name = f"innkeeper_target_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetInvalid(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
