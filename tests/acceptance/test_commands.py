"""The commands as a person meets them: what goes wrong is told in one line, with its exit code."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from harness.house import ROOMS, House, until
from harness.valkey import Valkey


async def run(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command to its end; return its exit code and all it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "innkeeper", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **(env or {})},
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, output.decode()


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    """A server of this test's own."""
    server = Valkey()
    yield server
    server.stop()


async def test_no_redis() -> None:
    """Where nobody answers, both roles say so and exit with 3."""
    url = "redis://127.0.0.1:1/0"
    for arguments in (("worker", ROOMS, "--redis", url), ("edge", "--auth", "none", "--port", "0", "--redis", url)):
        code, output = await run(*arguments)
        assert code == 3
        assert "innkeeper: no Redis at redis://127.0.0.1:1/0" in output
        assert "Traceback" not in output


async def test_evicting_redis_is_refused(valkey: Valkey) -> None:
    """A Redis that may drop rooms when memory is short is refused, with the remedy."""
    import redis.asyncio  # noqa: PLC0415 - the one place that needs it

    async with redis.asyncio.Redis.from_url(valkey.url) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
    code, output = await run("worker", ROOMS, env={"INNKEEPER_REDIS": valkey.url})
    assert code == 3
    assert "maxmemory-policy allkeys-lru" in output
    assert "noeviction" in output


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_module", "no module named 'no_such_module'"),
        ("no_such_file.py", "no_such_file.py: no such file"),
        ("json", "no Room class in it"),
        ("json:Chat", "there is no Room class 'Chat' in json"),
    ],
)
async def test_bad_targets(target: str, said: str) -> None:
    """A target that cannot be loaded is named, with exit code 4, before Redis is asked."""
    code, output = await run("worker", target, "--redis", "redis://127.0.0.1:1/0")
    assert code == 4
    assert said in output
    assert "Traceback" not in output


async def test_syntax_error_in_a_target(tmp_path: Path) -> None:
    """A syntax error shows the line it is in."""
    path = tmp_path / "broken.py"
    path.write_text("class Chat(Room:\n    pass\n")
    code, output = await run("worker", str(path))
    assert code == 4
    assert "SyntaxError" in output
    assert "class Chat(Room:" in output


async def test_port_taken(valkey: Valkey) -> None:
    """A port in use is named, with exit code 5."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, output = await run("edge", "--auth", "none", "--port", str(port), "--redis", valkey.url)
    assert code == 5
    assert f"cannot listen on 127.0.0.1:{port}" in output


async def test_edge_without_authentication_says_so() -> None:
    """An edge that would let anybody in wants to hear it said."""
    code, output = await run("edge")
    assert code == 2
    assert "--auth none" in output


async def test_every_option_is_a_variable_too() -> None:
    """--help shows each option's variable."""
    for command in ("edge", "worker", "dev"):
        code, output = await run(command, "--help")
        assert code == 0
        assert "INNKEEPER_REDIS" in output


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A worker, and two edges under one parent that share a port."""
    async with House(tmp_path, edges=0, workers=1) as running:
        await running.add_edge("--processes", "2")
        yield running


async def test_edge_processes_share_a_port(house: House) -> None:
    """Two edge processes serve one port; sockets of both are in one room."""
    port = int(house.edges[0].log.split("http://127.0.0.1:")[1].split("/")[0])
    house.edges[0].facts["port"] = port
    clients = [await house.join("ledger/shared", name=f"c{n}") for n in range(8)]
    for client in clients:
        await client.expect(lambda f: "welcome" in f, "its welcome")
    edges = await until(lambda: house.redis.zcard("inn:edges"), "edges in the registry")
    assert edges == 2
    for i, client in enumerate(clients):
        await client.send({"i": i})
    for client in clients:
        await client.numbers(8)
        assert [n for n, _, _ in client.numbered()] == list(range(1, 9))
