"""Edges and workers as real processes that start in some 30 ms: forked from a server that has imported everything."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from harness.forked import fork, ready_line


class Role:
    """One place for a process: whoever dies in it is replaced under the same arguments.

    Attributes:
        name: ``worker-0``, ``edge-1`` …
        ready: Whether a process runs and has said that it is ready.
        frozen: Whether it was stopped by a signal and not continued.
        surprises: Exits that nobody asked for: (exit code, log).
    """

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        self.name = name
        self.ready = False
        self.frozen = False
        self.ready_at_s = 0.0
        self.surprises: list[tuple[int, Path]] = []
        self.starts = 0
        self._arguments = arguments
        self._folder = folder
        self._expected: set[int] = set()
        self._process: Any = None
        self._all: list[Any] = []  # also those that a roll was about to end when it was cancelled
        self._ended = asyncio.Event()
        self._closing = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def kind(self) -> str:
        """``worker`` or ``edge``."""
        return self._arguments[0]

    async def start(self) -> None:
        """Start the process and keep one running from now on; returns when the first is ready."""
        await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    async def _launch(self) -> None:
        self._ended = asyncio.Event()
        path = self._folder / f"{self.name}.{self.starts}.log"
        self.starts += 1
        process, reading = fork(self._arguments, path)  # some ms; in a thread, a cancelled caller would lose it
        self._process, self.log_path = process, path
        self._all.append(process)
        loop = asyncio.get_running_loop()
        loop.add_reader(process.sentinel, self._on_end, process)
        line = await asyncio.to_thread(ready_line, reading)
        self.ready = bool(line) and bool(json.loads(line)["ready"])
        self.ready_at_s = time.monotonic()

    def _on_end(self, process: Any) -> None:
        asyncio.get_running_loop().remove_reader(process.sentinel)
        process.join()
        if process is self._process:
            self.ready = self.frozen = False
            self._ended.set()
        if process.pid not in self._expected and not self._closing:
            self.surprises.append((process.exitcode, self.log_path))

    async def _keep(self) -> None:
        while True:
            await self._ended.wait()
            if self._closing:
                return
            if self._process.exitcode == 3:  # there was no Redis to start with
                await asyncio.sleep(0.2)
            await self._launch()

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to the process; False where there is none."""
        process = self._process
        if process is None or not process.is_alive():
            return False
        if number in {signal.SIGKILL, signal.SIGTERM}:
            self._expected.add(process.pid)
            self.ready = False
        if number in {signal.SIGSTOP, signal.SIGCONT}:
            self.frozen = number == signal.SIGSTOP
        os.kill(process.pid, number)
        return True

    async def replace(self) -> None:
        """Roll: start the successor, and when it is ready ask the old process to end; returns when it has."""
        old, ended = self._process, self._ended
        self._expected.add(old.pid)
        if self._keeper is not None:
            self._keeper.cancel()
        asyncio.get_running_loop().remove_reader(old.sentinel)
        try:
            await self._launch()
        finally:
            self._keeper = asyncio.create_task(self._keep())
        os.kill(old.pid, signal.SIGTERM)
        await asyncio.to_thread(old.join, 30)
        ended.set()
        if old.exitcode != 0:
            self.surprises.append((old.exitcode, self.log_path))

    async def end(self) -> None:
        """End the process, whatever state it is in."""
        self._closing = True
        if self._keeper is not None:
            self._keeper.cancel()
        if self._process is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGCONT)
            self._process.terminate()
            await asyncio.to_thread(self._process.join, 10)
        for process in self._all:
            if process.is_alive():
                process.kill()
                process.join()
