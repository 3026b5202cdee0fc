"""A whole Innkeeper for tests: a private valkey-server, edges and workers as real processes, ended by their pids."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
import redis.asyncio
import websockets

from harness.forked import Forked
from harness.valkey import Valkey

ROOMS = str(Path(__file__).with_name("rooms.py"))


class Role:
    """One edge or worker process; what it logs goes to a file."""

    def __init__(self, arguments: Sequence[str], log_path: Path) -> None:
        self.log_path = log_path
        self.process = Forked(list(arguments), log_path)
        if not self.process.ready_line:
            raise RuntimeError(f"{arguments} did not get ready:\n{self.log}")
        self.facts: dict[str, Any] = json.loads(self.process.ready_line)

    @property
    def log(self) -> str:
        """What it logged so far."""
        return self.log_path.read_text(encoding="utf-8")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this process."""
        self.process.send_signal(number)

    def end(self) -> None:
        """End it whatever state it is in."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


class House:
    """Use it as an async context manager.

    ``url`` is a Redis that the test runs itself; without it the house has a valkey-server of its own. ``options`` are
    given to every role, ``server_options`` to that server. Rooms stay where they are unless it is to ``rebalance``.
    """

    valkey: Valkey

    def __init__(
        self,
        folder: Path,
        *,
        edges: int = 2,
        workers: int = 2,
        target: str = ROOMS,
        persist: bool = False,
        url: str = "",
        options: Sequence[str] = (),
        server_options: Sequence[str] = (),
        rebalance: bool = False,
    ) -> None:
        self.folder = folder
        self.target = target
        self._counts = (edges, workers)
        self._persist = persist
        self.redis_url = url
        self.options = options
        self._server_options = server_options
        self._rebalance = rebalance
        self._is_own = not url
        self.redis: Any = None
        self.edges: list[Role] = []
        self.workers: list[Role] = []
        self.jobs: list[Role] = []
        self.inspectors: list[Role] = []
        self.clients: list[Client] = []

    async def __aenter__(self) -> Self:
        if self._is_own:
            self.valkey = Valkey(*self._server_options, persist=self._persist)
            self.redis_url = self.valkey.url
            self.redis = redis.asyncio.Redis.from_url(self.redis_url)
        try:
            for _ in range(self._counts[1]):
                await self.add_worker()
            for _ in range(self._counts[0]):
                await self.add_edge()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self.clients:
            await client.abort()
        # Together: a worker that is asked to end may wait a second for its wake queue.
        roles = (*self.edges, *self.workers, *self.jobs, *self.inspectors)
        await asyncio.gather(*(asyncio.to_thread(role.end) for role in roles))
        if self.redis is not None:
            await self.redis.aclose()
        if self._is_own:
            self.valkey.stop()
        if error is not None:
            for role in roles:
                sys.stderr.write(f"--- {role.log_path.name}\n{role.log[-4000:]}\n")

    async def add_worker(self, *options: str) -> Role:
        """Start one more worker."""
        path = self.folder / f"worker-{len(self.workers)}.log"
        arguments = ["worker", self.target, "--redis", self.redis_url]
        arguments += ["--rebalance" if self._rebalance else "--no-rebalance", *self.options, *options]
        role = await asyncio.to_thread(Role, arguments, path)
        self.workers.append(role)
        return role

    async def add_edge(self, *options: str) -> Role:
        """Start one more edge."""
        path = self.folder / f"edge-{len(self.edges)}.log"
        arguments = ["edge", "--redis", self.redis_url, "--port", "0", "--auth", "none", "--drain-s", "0"]
        arguments += [*self.options, *options]
        role = await asyncio.to_thread(Role, arguments, path)
        self.edges.append(role)
        return role

    async def add_jobs(self, *options: str) -> Role:
        """Start one more ``innkeeper jobs``."""
        path = self.folder / f"jobs-{len(self.jobs)}.log"
        role = await asyncio.to_thread(Role, ["jobs", self.target, "--redis", self.redis_url, *options], path)
        self.jobs.append(role)
        return role

    async def add_inspector(self, password: str, *options: str, redis_url: str = "") -> Role:
        """Start an inspector with a password; ``redis_url`` is its own way to the Redis."""
        number = len(self.inspectors)
        password_file = self.folder / f"inspector-{number}.password"
        password_file.write_text(password)
        arguments = ["inspector", "--redis", redis_url or self.redis_url, "--port", "0"]
        arguments += ["--password-file", str(password_file), *options]
        role = await asyncio.to_thread(Role, arguments, self.folder / f"inspector-{number}.log")
        self.inspectors.append(role)
        return role

    def url(self, room: str, *, edge: int = 0, name: str = "guest") -> str:
        """Return the address of a room at one of the edges."""
        return f"ws://127.0.0.1:{self.edges[edge].facts['port']}/parties/{room}?name={name}"

    async def join(self, room: str, *, edge: int = 0, name: str = "guest") -> "Client":
        """Connect a client and wait for its first frame."""
        socket = await websockets.connect(self.url(room, edge=edge, name=name), max_size=None, ping_interval=None)
        client = Client(socket, name)
        self.clients.append(client)
        return client

    async def owner_of(self, room: str) -> Role:
        """Return the worker process that holds a room's lock."""
        lock = await until(lambda: self.redis.get(f"inn:{{{room}}}:lock"), f"{room} has an owner")
        incarnation = lock.decode().split(":")[0]
        return next(role for role in self.workers if f"worker {incarnation} serves" in role.log)


class Client:
    """A WebSocket client that keeps every frame it got, with the time."""

    def __init__(self, socket: websockets.ClientConnection, name: str) -> None:
        self.socket = socket
        self.name = name
        self.got: list[Any] = []
        self.got_at_s: list[float] = []
        self.close_code: int | None = None
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            async for frame in self.socket:
                self.got.append(
                    orjson.loads(frame) if isinstance(frame, str) and frame.startswith(("[", "{")) else frame
                )
                self.got_at_s.append(time.monotonic())
        except websockets.ConnectionClosed:
            pass
        self.close_code = self.socket.close_code

    async def send(self, value: Any) -> None:
        """Send a value as JSON text, or bytes and str as they are."""
        await self.socket.send(value if isinstance(value, str | bytes) else orjson.dumps(value).decode())

    def numbered(self) -> list[tuple[int, str, int]]:
        """Return the ledger's entries this client got: (n, from, i)."""
        return [(f["n"], f["from"], f["i"]) for f in self.got if isinstance(f, dict) and "n" in f]

    async def numbers(self, count: int, *, timeout_s: float = 30) -> None:
        """Wait until this client got the ledger's entry with that number, or a later one."""
        await until(
            lambda: self.numbered() and self.numbered()[-1][0] >= count,
            f"{self.name} gets number {count}",
            timeout_s=timeout_s,
            seen=self.got[-3:],
        )

    async def big_frames(self, count: int) -> None:
        """Wait until this client got that many big frames."""
        await until(lambda: sum("big" in frame for frame in self.got) >= count, f"{self.name} gets {count} big frames")

    async def last(self, frame: Any) -> None:
        """Wait until the last thing this client got is that frame, of the same type."""
        await until(lambda: self.got[-1:] == [frame] and type(self.got[-1]) is type(frame), repr(frame), seen=self.got)

    async def expect(self, check: Callable[[Any], bool], what: str, *, timeout_s: float = 15) -> Any:
        """Return the first frame that passes the check, waiting for it."""
        return await until(
            lambda: _first(self.got, check), f"{self.name} gets {what}", timeout_s=timeout_s, seen=self.got
        )

    async def closed(self, timeout_s: float = 15) -> int | None:
        """Wait for the close and return its code."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._reader)
        return self.close_code

    async def close(self) -> None:
        """Close the socket and wait for it."""
        await self.socket.close()
        await self._reader

    async def abort(self) -> None:
        """Cut the connection without a close frame."""
        self.socket.transport.abort()
        await asyncio.gather(self._reader, return_exceptions=True)


def _first(frames: list[Any], check: Callable[[Any], bool]) -> Any:
    return next((frame for frame in frames if check(frame)), None)


async def until(probe: Callable[[], Any], what: str, *, timeout_s: float = 15, seen: Any = None) -> Any:
    """Return the probe's first true answer (it may be awaitable); fail with what was seen."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = probe()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}; seen: {str(seen)[-2000:]}")
        await asyncio.sleep(0.01)
