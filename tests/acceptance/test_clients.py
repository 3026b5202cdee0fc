"""Clients of others, unmodified: the websockets command line and PartySocket."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.house import House, until
from harness.node import NODE


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One edge and one worker on a private Valkey."""
    async with House(tmp_path, edges=1, workers=1) as running:
        yield running


async def test_websockets_command_line(house: House) -> None:
    """The command line client of the websockets package joins, sends and receives."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "websockets", house.url("rawecho/cli"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    shown = b""
    other = await house.join("rawecho/cli")
    try:
        await until(lambda: _members(house, 2), "both are in", timeout_s=30)
        process.stdin.write(b"hello from the shell\n")
        await other.expect(lambda f: f == "hello from the shell", "the shell's message")
        await other.send("hello back")
        async with asyncio.timeout(10):
            while b"hello back" not in shown:
                piece = await process.stdout.read(4096)
                assert piece, shown
                shown += piece
        assert b"hello from the shell" in shown
    finally:
        process.stdin.close()  # the end of its input ends it
        async with asyncio.timeout(10):
            await process.communicate()


async def _members(house: House, count: int) -> bool:
    return bool(await house.redis.hlen("inn:{rawecho/cli}:members") == count)


async def test_partysocket(house: House, node: str) -> None:
    """PartySocket works unchanged: text both ways, binary both ways, and its own room URL."""
    other = await house.join("rawecho/party")
    await until(lambda: house.redis.hlen("inn:{rawecho/party}:members"), "the first member")
    process = await asyncio.create_subprocess_exec(
        node, "partysocket_chat.js", f"127.0.0.1:{house.edges[0].facts['port']}", "rawecho", "party", "ann",
        "one", "two", cwd=NODE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    await other.expect(lambda f: f == b"\x00\xff\x07", "the bytes", timeout_s=20)
    assert [frame for frame in other.got if isinstance(frame, str)] == ["one", "two"]
    await other.send("done")
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, output
    assert output.decode().splitlines() == ["one", "two", "bytes 00ff07", "done"]
