"""Where Redis is: one server, a primary behind Sentinels, or a cluster; the form of the URL says which."""

from urllib.parse import urlsplit

from innkeeper.redis_client import Connect, connector
from innkeeper.sentinel import SCHEMES as SENTINEL_SCHEMES
from innkeeper.sentinel import sentinel_connector


def reach(url: str, *, timeout_s: float) -> Connect:
    """Return what opens connections to the server or servers at ``url``; nothing is opened yet.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``; or ``redis+sentinel://``.
        timeout_s: For each connection.

    Raises:
        ValueError: The URL cannot be read; the text says why.
    """
    if urlsplit(url).scheme in SENTINEL_SCHEMES:
        return sentinel_connector(url, timeout_s=timeout_s)
    return connector(url, timeout_s=timeout_s)
