"""Notices saved Python files by looking every quarter of a second: no dependency, and it works on every mount."""

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

PERIOD_S = 0.25
SETTLE_S = 0.05
# A large tree may cost at most this share of one core.
LARGEST_SHARE = 0.1
IGNORED_NAMES = frozenset({"__pycache__", "node_modules", "site-packages"})

Snapshot = dict[str, tuple[int, int]]


def folder_of(target: str) -> Path | None:
    """Return the folder whose files a target is made of, or None if it cannot be found.

    Nothing is imported.

    Args:
        target: ``rooms.py`` or ``package.module``, either with ``:Class`` behind it.
    """
    name = target.partition(":")[0]
    if name.endswith(".py") or os.sep in name:
        return Path(name).resolve().parent
    spec = PathFinder.find_spec(name.partition(".")[0], [str(Path.cwd()), *sys.path])
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve().parent if spec.origin else None


def pause_s(*, look_took_s: float) -> float:
    """Return the wait between two looks, the longer the more the last one took."""
    return max(PERIOD_S, look_took_s / LARGEST_SHARE)


class Sources:
    """The Python files below some folders, as last seen."""

    def __init__(self, folders: Iterable[Path]) -> None:
        """Look once: what is saved from now on is a change.

        Args:
            folders: Searched recursively, but for hidden folders, caches and virtual environments.
        """
        self._folders = sorted(set(folders))
        self._seen = self._look()
        self._look_took_s = 0.0

    async def changed(self) -> list[Path]:
        """Wait until files are saved, added or removed; return which.

        What changes between two calls is found by the second. Files still being written are waited for.
        """
        while True:
            await asyncio.sleep(pause_s(look_took_s=self._look_took_s))
            now = await self._look_in_thread()
            if now == self._seen:
                continue
            while True:
                await asyncio.sleep(SETTLE_S)
                earlier, now = now, await self._look_in_thread()
                if now == earlier:
                    break
            before, self._seen = self._seen, now
            changes = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
            if changes:  # else it was undone meanwhile
                return [Path(path) for path in changes]

    async def _look_in_thread(self) -> Snapshot:
        started_at_monotonic_s = time.monotonic()
        snapshot = await asyncio.to_thread(self._look)
        self._look_took_s = time.monotonic() - started_at_monotonic_s
        return snapshot

    def _look(self) -> Snapshot:
        return {path: mark for folder in self._folders for path, mark in _python_files(folder)}


def _python_files(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    for parent, folder_names, file_names in os.walk(folder):
        folder_names[:] = [name for name in folder_names if _is_source(Path(parent, name))]
        for name in file_names:
            if name.endswith(".py"):
                path = Path(parent, name)
                try:
                    status = path.stat()
                except OSError:  # removed since it was listed
                    continue
                yield str(path), (status.st_mtime_ns, status.st_size)


def _is_source(folder: Path) -> bool:
    name = folder.name
    return not name.startswith(".") and name not in IGNORED_NAMES and not (folder / "pyvenv.cfg").exists()
