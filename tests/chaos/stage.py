"""A whole Innkeeper to be hurt: a private valkey-server, workers and edges, a proxy each, and the clients' process."""

import asyncio
import json
import os
import re
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import redis.asyncio

from chaos.proxy import Proxy
from chaos.roles import Role
from harness.valkey import Valkey

TARGET = str(Path(__file__).parent.parent / "harness" / "chronicle.py")

# What roles log when a fault has bitten; counted over all their logs.
_SIGNS = {
    "rooms taken over": re.compile(rb"taken over from"),
    "commits refused": re.compile(rb"commit refused"),
    "leases lost": re.compile(rb"lease lost"),
    "workers found silent": re.compile(rb"worker \S+ is silent"),
    "edges found silent": re.compile(rb"edge \S+ is silent"),
    "incarnations ended": re.compile(rb"was declared dead"),
    "pushes sent again": re.compile(rb"; sending again"),
    "pushes refused": re.compile(rb"not accepted yet"),
    "requests sent again": re.compile(rb"does not answer, asking again"),
    "subscriptions found silent": re.compile(rb"silent for .* reconnecting"),
    "rooms resynced": re.compile(rb"socket\(s\) resync"),
    "tails found lost": re.compile(rb"outputs got lost on the way"),
    "rooms found ownerless": re.compile(rb"(\d+) room\(s\) with backlog have no owner"),
    "loops held": re.compile(rb"the event loop stands still"),
    "errors logged": re.compile(rb"\n\S+ \S+ (ERROR|CRITICAL)|Traceback"),
}


class Stage:
    """Use it as an async context manager.

    Args:
        folder: Takes the roles' logs.
        seed: Of everything random.
        workers: How many.
        edges: How many.
        proxied: Whether a proxy stands between each role and Redis.
        appendfsync: ``everysec`` or ``always``.
    """

    def __init__(self, folder: Path, *, seed: int, workers: int, edges: int, proxied: bool, appendfsync: str) -> None:
        self.folder = folder
        self.seed = seed
        self.counts = {"worker": workers, "edge": edges}
        self.proxied = proxied
        self.appendfsync = appendfsync
        self.bitten: Counter[str] = Counter()
        self.workers: list[Role] = []
        self.edges: list[Role] = []
        self.proxies: dict[str, Proxy] = {}
        self.ports: list[int] = []
        self._load: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self.valkey = Valkey("--appendonly", "yes", "--appendfsync", self.appendfsync)
        self.redis: Any = redis.asyncio.Redis.from_url(self.valkey.url, socket_timeout=30)
        try:
            await asyncio.gather(*(self._add("worker", n) for n in range(self.counts["worker"])))
            await asyncio.gather(*(self._add("edge", n) for n in range(self.counts["edge"])))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _add(self, kind: str, number: int) -> None:
        name = f"{kind}-{number}"
        port = self.valkey.port
        if self.proxied:
            proxy = self.proxies[name] = Proxy(self.valkey.port, hash((self.seed, number, kind == "edge")))
            await proxy.start()
            port = proxy.port
        url = f"redis://127.0.0.1:{port}/0"
        arguments = ["worker", TARGET, "--redis", url]
        if kind == "edge":
            self.ports.append(_free_port())
            arguments = ["edge", "--redis", url, "--auth", "none", "--port", str(self.ports[-1]), "--drain-s", "1"]
        role = Role(name, arguments, self.folder)
        (self.workers if kind == "worker" else self.edges).append(role)
        await role.start()

    @property
    def roles(self) -> Sequence[Role]:
        """All places for processes."""
        return (*self.workers, *self.edges)

    async def start_load(self, *options: str) -> dict[str, Any]:
        """Start the clients; return what they say when all have joined."""
        self._load = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chaos.load", "--edges", ",".join(map(str, self.ports))),
            *("--redis", self.valkey.url, "--seed", str(self.seed), *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            limit=1 << 24,
        )
        return await self._hear("ready")

    async def _hear(self, word: str) -> dict[str, Any]:
        assert self._load is not None
        assert self._load.stdout is not None
        line = await self._load.stdout.readline()
        if not line:
            raise RuntimeError(f"the clients' process ended with {await self._load.wait()}")
        fact: dict[str, Any] = json.loads(line)[word]
        return fact

    async def tell_load(self, word: str) -> None:
        """Tell the clients ``lossy``, ``whole`` or ``stop``."""
        assert self._load is not None
        assert self._load.stdin is not None
        self._load.stdin.write(f"{word}\n".encode())
        await self._load.stdin.drain()

    async def verdict(self) -> dict[str, Any]:
        """Have the clients stop, and return their verdict."""
        await self.tell_load("stop")
        return await self._hear("verdict")

    def count(self) -> Counter[str]:
        """Return what was done to the system and what it said about it."""
        total = Counter(self.bitten)
        for proxy in self.proxies.values():
            total.update(proxy.bitten)
        for path in self.folder.glob("*.log"):
            text = path.read_bytes()
            for name, sign in _SIGNS.items():
                if found := len(sign.findall(text)):
                    total[name] += found
        return total

    @property
    def surprises(self) -> list[str]:
        """Exits of roles that nobody asked for, in words."""
        return [
            f"{role.name} ended with {code}, see {path}"
            for role in self.roles
            for code, path in role.surprises
            if code != 3  # no Redis at its start: started again, as any supervisor would
        ]

    async def __aexit__(self, *_: object) -> None:
        if self._load is not None and self._load.returncode is None:
            self._load.kill()
            await self._load.wait()
        await asyncio.gather(*(role.end() for role in self.roles))
        for proxy in self.proxies.values():
            await proxy.close()
        await self.redis.aclose()
        self.valkey.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_folder() -> Path:
    """Return a folder for the logs of a run."""
    return Path(tempfile.mkdtemp(prefix="inn-chaos-"))
