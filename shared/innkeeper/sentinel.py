"""The primary behind Sentinels: asked for anew at every connection, through redis-py's own Sentinel client."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio.connection import AbstractConnection, SSLConnection, parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from innkeeper.redis_client import Connect, connection_options

SCHEMES = ("redis+sentinel", "rediss+sentinel")
_SENTINEL_PORT = 26379
# Options of the URL that are for the Sentinels themselves.
_FOR_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}


def split_hosts(netloc: str, default_port: int) -> list[tuple[str, int]]:
    """Return the hosts and ports of ``user:password@host:port,host:port``.

    Raises:
        ValueError: A port is no number, or there is no host.
    """
    hosts = []
    for text in netloc.rpartition("@")[2].split(","):
        parts = urlsplit(f"//{text}")
        if not parts.hostname:
            raise ValueError(f"a host is missing in {netloc.rpartition('@')[2]!r}")
        hosts.append((parts.hostname, parts.port or default_port))
    return hosts


def plain_url(url: str) -> tuple[str, dict[str, str]]:
    """Return ``url`` as redis-py reads it (the first host alone, no addition to the scheme), and its query."""
    parts = urlsplit(url)
    userinfo, at, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    kept = {name: value for name, value in query.items() if name not in ("service", "cluster", *_FOR_SENTINELS)}
    first = hosts.split(",")[0]
    scheme = parts.scheme.partition("+")[0]
    return f"{scheme}://{userinfo}{at}{first}{parts.path}?{urlencode(kept)}", query


def sentinel_connector(url: str, *, timeout_s: float) -> Connect:
    """Return what opens one connection per call to the server that the Sentinels call primary.

    Each call asks them, and asks the server itself whether it agrees: a Sentinel may not have heard of a failover yet.

    Args:
        url: ``redis+sentinel://user:password@host:port,host:port/db?service=NAME``; ``rediss+sentinel`` for TLS to
            the Sentinels and the server. User and password are the server's; the Sentinels' own stand in the query as
            ``sentinel_username`` and ``sentinel_password``. Other parameters as redis-py reads them.
        timeout_s: For each step of connecting.

    Raises:
        ValueError: The URL names no service or no host.
    """
    hosts = split_hosts(urlsplit(url).netloc, _SENTINEL_PORT)
    plain, query = plain_url(url)
    if not query.get("service"):
        raise ValueError("a Sentinel URL needs ?service=NAME, the name under which the Sentinels watch the primary")
    options: dict[str, Any] = {**parse_url(plain), **connection_options(timeout_s)}
    for unused in ("host", "port"):
        options.pop(unused, None)
    is_tls = options.pop("connection_class", None) is SSLConnection
    for_sentinels = connection_options(timeout_s) | {"ssl": is_tls}
    for_sentinels |= {name: value for name, value in options.items() if name.startswith("ssl_")}
    for_sentinels |= {name: query[key] for key, name in _FOR_SENTINELS.items() if key in query}

    async def connect() -> AbstractConnection:
        async with Sentinel(hosts, sentinel_kwargs=for_sentinels) as sentinel:  # type: ignore[no-untyped-call]
            pool = SentinelConnectionPool(query["service"], sentinel, ssl=is_tls, **options)  # type: ignore[no-untyped-call]
            connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
            connection.connection_pool = pool  # type: ignore[attr-defined] # else it holds the pool by a weak reference
            await connection.connect()  # type: ignore[no-untyped-call]
            answered = sentinel.sentinels[0].connection_pool.connection_kwargs
        # Whoever answered is asked first next time, so that a Sentinel that is down costs its timeout once.
        hosts.sort(key=(answered["host"], answered["port"]).__ne__)
        try:
            await _check_role(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    return connect


async def _check_role(connection: AbstractConnection) -> None:
    """Make sure that a server takes itself for a primary.

    Raises:
        redis.exceptions.ConnectionError: It does not.
    """
    await connection.send_command("ROLE")
    try:
        role = (await connection.read_response())[0]
    except ResponseError:
        return  # this user may not ask; a write will tell
    if role not in (b"master", "master"):
        raise RedisConnectionError(f"the Sentinels name a server that is no primary: {role!r}")
