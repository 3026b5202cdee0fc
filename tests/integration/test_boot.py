"""Boot checks against real servers, each with one wrong setting."""

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from harness.cluster import Cluster
from harness.valkey import Valkey
from innkeeper.boot import check_redis
from innkeeper.cluster import Cluster as Where
from innkeeper.errors import RedisUnusable
from innkeeper.redis_client import Link, connector

SOUND = ("--appendonly", "yes")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Valkey]:
    """A server with AOF and the options of the test."""
    server = Valkey(*SOUND, *request.param)
    yield server
    server.stop()


async def warnings(url: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what is warned of at boot."""
    with caplog.at_level(logging.WARNING, logger="innkeeper"):
        await check_redis(url, timeout_s=5, shown="here")
    return [record.getMessage() for record in caplog.records if record.name == "innkeeper"]


@pytest.mark.parametrize("server", [()], indirect=True)
async def test_a_sound_server_is_taken_in_silence(server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    """A server with an append-only file and otherwise its own defaults."""
    assert await warnings(server.url, caplog) == []


@pytest.mark.parametrize(
    ("server", "start"),
    [
        (("--appendonly", "no"), "Redis at here keeps nothing on disk"),
        (("--appendonly", "no", "--save", "60 1"), "Redis at here keeps no append-only file"),
        (("--appendfsync", "no"), "Redis at here leaves it to the operating system"),
        (("--client-output-buffer-limit", "pubsub", "0", "0", "0"), "Redis at here has no limit for pub/sub clients"),
        (("--min-string-size-avoid-copy-reply", "1024"), "Redis at here has min-string-size-avoid-copy-reply 1024"),
    ],
    indirect=["server"],
)
async def test_a_costly_setting_is_warned_of(server: Valkey, start: str, caplog: pytest.LogCaptureFixture) -> None:
    """Exactly one warning, about that setting; the role goes on."""
    (warning,) = await warnings(server.url, caplog)
    assert warning.startswith(start)


@pytest.mark.parametrize("scheme", ["redis+sentinel", "redis+cluster"])
async def test_a_primary_elsewhere_that_wants_no_login_is_refused(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the address given is here, and only leads there."""
    elsewhere = SimpleNamespace(host="192.0.2.1", disconnect=AsyncMock())
    where: object = AsyncMock(return_value=elsewhere)
    if scheme == "redis+cluster":
        where = Where("redis+cluster://127.0.0.1:1", timeout_s=1)
        monkeypatch.setattr(where, "refresh", AsyncMock())
        monkeypatch.setattr(Where, "primaries", ["127.0.0.1:1", "192.0.2.1:6379"])
    monkeypatch.setattr("innkeeper.boot.reach", lambda *_, **__: where)
    with pytest.raises(RedisUnusable, match=r"leads to 192\.0\.2\.1"):
        await check_redis(f"{scheme}://127.0.0.1:1/0?service=x", timeout_s=1, shown="here")


@pytest.mark.parametrize("server", [("--maxmemory-policy", "allkeys-lru")], indirect=True)
async def test_a_server_that_evicts_is_refused(server: Valkey) -> None:
    """It could drop rooms: the text says what to set."""
    with pytest.raises(RedisUnusable, match=r"has maxmemory-policy allkeys-lru: it could drop rooms .* Set it to"):
        await check_redis(server.url, timeout_s=5, shown="here")


@pytest.mark.parametrize("server", [()], indirect=True)
async def test_a_server_that_shows_nothing_is_taken_with_warnings(
    server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the login may not use INFO and CONFIG, each thing left unchecked is named, and the role goes on."""
    link = Link(connector(server.url, timeout_s=5), timeout_s=5, name="test")
    await link.call("ACL", "SETUSER", "kept", "on", ">short", "~*", "&*", "+@all", "-info", "-config")
    await link.close()
    found = await warnings(server.url.replace("redis://", "redis://kept:short@"), caplog)
    for text in ("does not tell its version", "eviction policy", "whether it keeps data on disk", "its configuration"):
        assert sum(text in warning for warning in found) == 1, found
    assert all("NOPERM" in warning for warning in found)


async def test_every_primary_of_a_cluster_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    """One of three that stops all rooms with the others is warned of; the last one that evicts is enough to refuse."""
    async with Cluster() as cluster:
        assert not any("full-coverage" in warning for warning in await warnings(cluster.url, caplog))
        await cluster.tell(cluster.nodes[1], "CONFIG", "SET", "cluster-require-full-coverage", "yes")
        found = [warning for warning in await warnings(cluster.url, caplog) if "full-coverage" in warning]
        assert len(found) == 1
        assert "all rooms stand still" in found[0]
        await cluster.tell(cluster.nodes[2], "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(RedisUnusable, match="has maxmemory-policy allkeys-lru"):
            await check_redis(cluster.url, timeout_s=5, shown="here")
