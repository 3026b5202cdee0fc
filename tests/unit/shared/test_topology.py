"""The forms of ``--redis``: what is read from each, and what is refused in words."""

import pytest

from innkeeper.sentinel import plain_url, split_hosts
from innkeeper.topology import reach


@pytest.mark.parametrize(
    ("netloc", "hosts"),
    [
        ("a", [("a", 26379)]),
        ("a:1,b:2,c", [("a", 1), ("b", 2), ("c", 26379)]),
        ("user:p%40w@a:1,b", [("a", 1), ("b", 26379)]),
        ("[::1]:7,127.0.0.1", [("::1", 7), ("127.0.0.1", 26379)]),
    ],
)
def test_hosts(netloc: str, hosts: list[tuple[str, int]]) -> None:
    """Several hosts stand in one URL, with or without ports, also IPv6 ones."""
    assert split_hosts(netloc, 26379) == hosts


def test_plain_url() -> None:
    """redis-py reads the rest of the URL: user, password, database and its own parameters."""
    url = "rediss+sentinel://u:p@a:1,b:2/3?service=rooms&sentinel_password=x&ssl_cert_reqs=none"
    plain, query = plain_url(url)
    assert plain == "rediss://u:p@a:1/3?ssl_cert_reqs=none"
    assert query == {"service": "rooms", "sentinel_password": "x", "ssl_cert_reqs": "none"}


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis+sentinel://a:1", "needs \\?service=NAME"),
        ("redis+sentinel://a,,b/0?service=x", "a host is missing"),
        ("redis+sentinel:///0?service=x", "a host is missing"),
        ("redis+sentinel://a:x/0?service=x", "Port could not be cast"),
        ("http://a", "one of the following schemes"),
    ],
)
def test_what_cannot_be_read(url: str, text: str) -> None:
    """A URL that cannot be read is refused before anything is opened, in words."""
    with pytest.raises(ValueError, match=text):
        reach(url, timeout_s=1)
