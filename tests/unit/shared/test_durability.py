"""What each durability mode asks of Redis, and the link that waits for replicas."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from innkeeper.channel import Command, Reply
from innkeeper.durability import Durability, ReplicatedLink, check_durability
from innkeeper.errors import RedisReplied, RedisUnavailable, RedisUnusable
from innkeeper.redis_client import Link


class Server:
    """Answers the questions of the check."""

    def __init__(self, *, appendonly: str = "yes", appendfsync: str = "always", replicas: int = 1) -> None:
        self.settings = {"appendonly": appendonly, "appendfsync": appendfsync}
        self.replicas = replicas
        self.allows_config = True

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """Answer one command."""
        ((name, *words),) = commands
        if name == "INFO":
            return [b"role:master\r\nconnected_slaves:%d\r\n" % self.replicas]
        assert name == "CONFIG"
        if not self.allows_config:
            return [RedisReplied("NOPERM no")]
        return [[b"x", self.settings[str(words[1])].encode()]]


async def check(server: Any, mode: Durability) -> None:
    """Run the check."""
    await check_durability(server, mode, "here")


async def test_relaxed_takes_anything(caplog: pytest.LogCaptureFixture) -> None:
    """The default mode refuses nothing, and says what it found."""
    with caplog.at_level(logging.INFO, "innkeeper"):
        await check(Server(appendonly="no", appendfsync="everysec", replicas=0), Durability.RELAXED)
    assert "durability relaxed: Redis at here has appendonly no, appendfsync everysec, 0 replica(s)" in caplog.text


@pytest.mark.parametrize("mode", [Durability.FSYNC, Durability.REPLICATED])
@pytest.mark.parametrize("settings", [{"appendonly": "no"}, {"appendfsync": "everysec"}])
async def test_the_stricter_modes_need_the_file(mode: Durability, settings: dict[str, str]) -> None:
    """Without a file that is synced each time the stricter modes are refused, in words."""
    with pytest.raises(RedisUnusable, match="needs appendonly yes and appendfsync always; Redis at here has"):
        await check(Server(**settings), mode)  # type: ignore[arg-type]


async def test_replicated_needs_a_replica() -> None:
    """Without a replica nothing could be accepted: refused; fsync does not care."""
    await check(Server(replicas=0), Durability.FSYNC)
    await check(Server(replicas=1), Durability.REPLICATED)
    with pytest.raises(RedisUnusable, match="needs at least one connected replica"):
        await check(Server(replicas=0), Durability.REPLICATED)


async def test_where_nothing_may_be_asked(caplog: pytest.LogCaptureFixture) -> None:
    """Where CONFIG is not allowed, a warning asks to see to it."""
    server = Server()
    server.allows_config = False
    await check(server, Durability.FSYNC)
    assert "does not show its persistence: make sure of appendonly yes, appendfsync always" in caplog.text


async def test_commands_count_with_their_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while a write is on its way goes together in the next one; without a replica all of it has failed."""
    writes: list[list[Command]] = []
    copies = [1, 1, 0, 1]
    gate = asyncio.Event()

    async def send(_: Link, commands: Sequence[Command]) -> list[Reply]:
        writes.append(list(commands))
        await gate.wait()
        return [*(command[1] for command in commands[:-1]), copies.pop(0)]

    async def never() -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(Link, "send", send)
    link = ReplicatedLink(never, timeout_s=0.5, name="test")
    first = asyncio.create_task(link.send((("ECHO", "a"),)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(link.send((("ECHO", f"{n}"), ("ECHO", f"{n}!")))) for n in range(3)]
    await asyncio.sleep(0)
    gate.set()
    assert await first == ["a"]
    assert await asyncio.gather(*later) == [["0", "0!"], ["1", "1!"], ["2", "2!"]]
    assert [len(write) for write in writes] == [2, 7]
    assert all(write[-1][:2] == ("WAIT", 1) for write in writes)
    with pytest.raises(RedisUnavailable, match="no replica has it"):
        await link.send((("ECHO", "x"),))
    assert await link.send((("ECHO", "x"),)) == ["x"]
    await link.close()
