"""One child process from its start to its end."""

import asyncio
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from innkeeper.supervise.role import PARENT_PID_VARIABLE, READY_FD_VARIABLE, STOP_GRACE_S, die_with_parent

PROBE_PERIOD_S = 0.02


class BootFailed(Exception):
    """A program ended, or stayed silent, before it was ready; none of it runs any more.

    Its own message is on its stderr already. ``exit_code`` is what a shell would show for it (128 + n for a signal n).
    """

    def __init__(self, name: str, exit_code: int, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.exit_code = exit_code or 1  # a program that ends politely before it is ready has failed all the same


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to start, and how to learn that it is ready."""

    name: str
    """For logs and messages."""
    arguments: Sequence[str]
    """The whole command line."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's own."""
    probe: Callable[[], Awaitable[bool]] | None = None
    """Asked until it says yes, for a program that does not know our contract; None: it announces itself."""
    ready_within_s: float = 30.0
    log_path: Path | None = None
    """Takes the program's output; None: it writes where this process does."""


class Child:
    """One running process; make it with :meth:`start`.

    It lives in a session of its own, so that Ctrl-C in a terminal reaches only the parent, and is told to end when the
    parent dies.
    """

    def __init__(self, program: Program, process: asyncio.subprocess.Process) -> None:
        self.program = program
        self.facts: dict[str, Any] = {}
        self._process = process
        self._asked_to_stop = False

    @classmethod
    async def start(cls, program: Program) -> "Child":
        """Return a child that is ready.

        Cancelling is safe: a half-started process is ended first.

        Raises:
            BootFailed: It ended or did not get ready in ``program.ready_within_s``; nothing of it is left.
        """
        reading_fd, writing_fd = os.pipe()
        pipe = os.fdopen(reading_fd, "rb", 0)
        try:
            child = cls(program, await _spawn(program, writing_fd))
        except OSError as error:
            pipe.close()
            raise BootFailed(program.name, 1, f"cannot be started: {error.strerror or error}") from error
        finally:
            os.close(writing_fd)
        try:
            with contextlib.closing(pipe):
                async with asyncio.timeout(program.ready_within_s):
                    await child._become_ready(pipe)
        except TimeoutError as error:
            await child.stop()
            raise BootFailed(program.name, 1, f"was not ready after {program.ready_within_s:g} s") from error
        except BaseException:
            await child.stop()
            raise
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not been seen to end."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Return the exit code once the process has ended; 128 + n if signal n ended it."""
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def stop(self, grace_s: float = STOP_GRACE_S) -> int:
        """End the process and return its exit code; may be called again, and by several tasks.

        SIGTERM is sent once, for a role may take a second one as an order to hurry; after ``grace_s`` the process and
        whatever it started are killed.
        """
        if self.running and not self._asked_to_stop:
            self._asked_to_stop = True
            # Not by the process object: it would reap a child that just ended, and asyncio would lose the exit code.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                return await self.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return await self.wait()

    async def _become_ready(self, pipe: Any) -> None:
        if self.program.probe is None:
            await self._hear_announcement(pipe)
        else:
            await self._ask_until_ready(self.program.probe)

    async def _hear_announcement(self, pipe: Any) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            line = await reader.readline()
        finally:
            transport.close()
        if not line:
            # The end of the pipe comes with the process's, unless the role closed it by mistake.
            raise BootFailed(self.program.name, await self.stop(), "ended before it was ready")
        self.facts = json.loads(line)

    async def _ask_until_ready(self, probe: Callable[[], Awaitable[bool]]) -> None:
        while self.running:
            if await probe():
                return
            await asyncio.sleep(PROBE_PERIOD_S)
        raise BootFailed(self.program.name, await self.wait(), "ended before it was ready")


async def _spawn(program: Program, ready_fd: int) -> asyncio.subprocess.Process:
    environment = {**os.environ, **program.environment}
    environment.pop(READY_FD_VARIABLE, None)
    environment.pop(PARENT_PID_VARIABLE, None)
    announces = program.probe is None
    if announces:
        environment[READY_FD_VARIABLE] = str(ready_fd)
        environment[PARENT_PID_VARIABLE] = str(os.getpid())
    binds = not announces and sys.platform == "linux"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(program.log_path.open("ab")) if program.log_path else None
        return await asyncio.create_subprocess_exec(
            *program.arguments,
            env=environment,
            pass_fds=(ready_fd,) if announces else (),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT if log else None,
            # One system call through a library loaded long before: safe between fork and exec.
            preexec_fn=functools.partial(die_with_parent, os.getpid()) if binds else None,
        )
