"""The synchronous client of redis-py for libraries that want one (rq), to the same Redis as everything else."""

import os
from urllib.parse import urlsplit

from redis import Redis
from redis.cluster import RedisCluster
from redis.sentinel import Sentinel

from innkeeper.cluster import SCHEMES as CLUSTER_SCHEMES
from innkeeper.sentinel import SCHEMES as SENTINEL_SCHEMES
from innkeeper.sentinel import plain_url, split_hosts

_TIMEOUT_S = 5.0
_SENTINEL_PORT = 26379
_PREFIX_IN_CLUSTER = "{rq}"


def prepare_rq(url: str) -> None:
    """Let rq use keys of one slot where Redis is a cluster; call it before rq is imported for the first time.

    A prefix of the user's own, in ``RQ_KEY_PREFIX``, stays.
    """
    if urlsplit(url).scheme in CLUSTER_SCHEMES:
        os.environ.setdefault("RQ_KEY_PREFIX", _PREFIX_IN_CLUSTER)


def open_sync(url: str) -> Redis:
    """Return a client of the server at ``url``: the Sentinels' primary, of a cluster the one that rq's keys are on.

    Raises:
        redis.RedisError: Nobody answers that could tell.
    """
    scheme = urlsplit(url).scheme
    plain, query = plain_url(url)
    if scheme in SENTINEL_SCHEMES:
        options = Redis.from_url(plain).connection_pool.connection_kwargs
        wanted = {name: options[name] for name in ("username", "password", "db") if options.get(name)}
        tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
        tls["ssl"] = scheme == "rediss+sentinel"
        hosts = split_hosts(urlsplit(url).netloc, _SENTINEL_PORT)
        login = {"username": query.get("sentinel_username"), "password": query.get("sentinel_password")}
        given = {name: value for name, value in login.items() if value} | tls
        sentinel = Sentinel(hosts, socket_timeout=_TIMEOUT_S, sentinel_kwargs=given)  # type: ignore[no-untyped-call]
        primary: Redis = sentinel.master_for(query["service"], socket_timeout=None, **wanted, **tls)  # type: ignore[no-untyped-call]
        return primary
    if scheme in CLUSTER_SCHEMES:
        cluster = RedisCluster.from_url(plain, driver_info=None)
        prefix = os.environ.get("RQ_KEY_PREFIX", _PREFIX_IN_CLUSTER)
        return cluster.get_redis_connection(cluster.get_node_from_key(prefix))  # type: ignore[no-untyped-call]
    return Redis.from_url(url, driver_info=None)  # no CLIENT SETINFO: one command less that a login must be allowed
