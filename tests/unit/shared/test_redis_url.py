"""Passwords never show, and a server on another machine must ask for one."""

import pytest

from innkeeper.errors import RedisUnusable
from innkeeper.redis_url import has_open_sentinels, refuse_insecure, without_password, without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://ann:pw@h", "redis://ann:***@h"),
        ("redis://ann:p@ss@h", "redis://ann:***@h"),
        ("redis://:p/w@h/0", "redis://:***@h/0"),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=***&db=1"),
        ("redis+sentinel://a:b@h,i?service=x&sentinel_password=pw", "redis+sentinel://a:***@h,i?service=x&sentinel_password=***"),
    ],
)  # fmt: skip
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    """Three stars stand for every password, also for one that is not written as URLs want it."""
    assert without_password(url) == shown


def test_an_error_with_a_piece_of_the_password_is_not_shown() -> None:
    """Libraries quote what they cannot read."""
    text = "Port could not be cast to integer value as 'hunter'"
    assert "hunter" not in without_secrets(text, "redis://a:hunter/2@h")
    assert "%2F" in without_secrets(text, "redis://a:hunter/2@h")
    assert without_secrets("a host is missing", "redis://a:hunter2@") == "a host is missing"


@pytest.mark.parametrize(
    "url",
    [
        "redis://10.0.0.1", "redis://valkey:6379/0", "rediss://valkey", "redis://ann@valkey", "redis://localhost.evil.example",
        "redis+cluster://127.0.0.1,10.0.0.2", "redis+sentinel://h:1?service=x&sentinel_password=y", "redis://[2001:db8::1]",
    ],
)  # fmt: skip
def test_a_remote_server_without_a_password_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says what to do; the one variable allows it."""
    with pytest.raises(RedisUnusable, match="--insecure-redis"):
        refuse_insecure(url)
    monkeypatch.setenv("INNKEEPER_INSECURE_REDIS", "1")
    refuse_insecure(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:1", "redis://127.8.8.8", "redis://[::1]:1", "redis://localhost", "unix:///run/redis.sock", "redis:///0",
        "redis://:pw@10.0.0.1", "redis://ann:pw@valkey", "redis://valkey?password=pw", "rediss://valkey?ssl_certfile=me.pem",
        "redis+sentinel://ann:pw@h,i?service=x",
    ],
)  # fmt: skip
def test_what_is_local_or_asks_for_a_login_is_taken(url: str) -> None:
    """Loopback, sockets of the file system, passwords and certificates."""
    refuse_insecure(url)


@pytest.mark.parametrize("url", ["redis+sentinel://127.0.0.1:1?service=x", "redis+cluster://127.0.0.1:1"])
def test_where_a_local_address_leads_counts(url: str) -> None:
    """A Sentinel or a node here may name a server elsewhere."""
    with pytest.raises(RedisUnusable, match=r"leads to 192\.0\.2\.1, which is on another machine"):
        refuse_insecure(url, ["127.0.0.1", "192.0.2.1"])
    refuse_insecure(url, ["127.0.0.1", "::1", ""])
    refuse_insecure(url.replace("127", "ann:pw@127"), ["192.0.2.1"])


def test_sentinels_that_ask_for_no_password() -> None:
    """They name the server that is given the login."""
    assert has_open_sentinels("redis+sentinel://ann:pw@h,i?service=x")
    assert has_open_sentinels("redis+sentinel://ann:pw@127.0.0.1,i?service=x")
    for url in ("redis+sentinel://ann:pw@127.0.0.1?service=x", "redis+sentinel://h?service=x&sentinel_password=y"):
        assert not has_open_sentinels(url)
    assert not has_open_sentinels("redis://ann:pw@h")


@pytest.mark.parametrize("url", ["u:SECRET@h:1", "//u:SECRET@h:1", "redis:u:SECRET@h", "redis:/u:SECRET@h:1/0"])
def test_a_slip_in_the_scheme_shows_no_password(url: str) -> None:
    """What has no scheme to speak of is starred out up to the host."""
    assert "SECRET" not in without_password(url)


def test_a_host_in_the_query_counts() -> None:
    """The client library goes there, whatever stands before."""
    with pytest.raises(RedisUnusable, match="another machine"):
        refuse_insecure("redis:///0?host=192.0.2.1")
    refuse_insecure("redis:///0?host=127.0.0.1")
