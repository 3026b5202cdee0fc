"""Which servers Innkeeper runs on."""

import pytest

from innkeeper.boot import check_version
from innkeeper.errors import RedisUnusable


@pytest.mark.parametrize(
    "info",
    [
        "# Server\r\nredis_version:7.0.0\r\n",
        "redis_version:7.0.15\r\n",
        "redis_version:8.2.1\r\n",
        "redis_version:10.0.0\r\n",
        "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.5\r\n",
        "redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n",
    ],
)
def test_new_enough(info: str) -> None:
    """Redis from 7.0 and Valkey from 7.2 are taken."""
    check_version(info, "here")


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ("redis_version:6.2.14\r\n", "Redis at here is version 6.2: Innkeeper needs Redis 7.0"),
        (
            "redis_version:7.2.4\r\nvalkey_version:7.1.0\r\n",
            "Valkey at here is version 7.1: Innkeeper needs Valkey 7.2",
        ),
        ("redis_version:2.8\r\n", "version 2.8"),
        ("dragonfly_version:1.0\r\n", "tells no version"),
        ("my_redis_version:8.0\r\n", "tells no version"),
        ("", "tells no version"),
    ],
)
def test_too_old_or_unknown(info: str, text: str) -> None:
    """Anything else is refused before a room is touched; the text names server, version and need."""
    with pytest.raises(RedisUnusable) as caught:
        check_version(info, "here")
    assert text in str(caught.value)
