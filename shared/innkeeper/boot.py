"""What a role does before anything else: log, run on uvloop where it exists, and look whether this Redis will do."""

import asyncio
import gc
import logging
import re
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from redis.exceptions import AuthenticationError, RedisClusterException, RedisError

from innkeeper.channel import Reply
from innkeeper.cluster import Cluster
from innkeeper.durability import Durability, check_durability
from innkeeper.errors import RedisReplied, RedisUnavailable, RedisUnready, RedisUnusable
from innkeeper.redis_client import Link
from innkeeper.redis_url import has_open_sentinels, refuse_insecure, without_secrets
from innkeeper.rights import Role, check_rights
from innkeeper.server_settings import warn_of_settings
from innkeeper.topology import Where, open_link, reach

log = logging.getLogger("innkeeper")

_CONNECT_S = 5.0
_GC_ALLOCATIONS = 10_000
_LEAST_REDIS = (7, 0)
_LEAST_VALKEY = (7, 2)


def run_role(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a role's coroutine to its end on uvloop, or on asyncio's own loop where uvloop is missing.

    A task or callback that calls ``sys.exit()`` somewhere beside it does not end the process: asyncio stops the loop
    for that, and here the loop goes on where it stopped. Only the coroutine itself ends the role.

    What the imports made is taken out of the garbage collector's sight, and it looks at less at once: a collection
    stands in the way of messages, and hardly anything here is cyclic (S1 p99 6 ms instead of 10 without full ones; the
    middle generation at 200,000 objects took 160 ms in a storm of reconnections).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 2, 130)
    try:
        import uvloop  # noqa: PLC0415 - an optional extra
    except ImportError:  # pragma: no cover - the extra "speed" is not installed
        new_loop = asyncio.new_event_loop
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()
        role = loop.create_task(main())
        while True:
            try:
                return loop.run_until_complete(role)
            except (SystemExit, KeyboardInterrupt) as error:
                # Ctrl-C before the role has asked for signals; later they never come as exceptions.
                is_asked = signal.getsignal(signal.SIGINT) is signal.default_int_handler
                if role.done() or (is_asked and isinstance(error, KeyboardInterrupt)):
                    raise
                log.critical("something beside the rooms' hooks tried to end this process; it goes on", exc_info=error)


def stop_asked() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets from now on, instead of ending the process."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    return stop


async def check_redis(
    url: str,
    *,
    timeout_s: float,
    shown: str,
    durability: Durability = Durability.RELAXED,
    role: Role | None = None,
    quiet: bool = False,
) -> Where:
    """Return where a Redis is that Innkeeper can run on; every primary of a cluster is looked at.

    Args:
        url: As :func:`innkeeper.topology.reach` reads it.
        timeout_s: For each connection made later.
        shown: The URL without its password, for messages.
        durability: What Redis must be set up for.
        role: What the login must be allowed to do; None leaves that to be found out.
        quiet: Refuse what cannot work, but judge no settings: for commands that run once, such as those that look
            what is wrong.

    Raises:
        RedisUnusable: Nobody answers there, it is on another machine and asks for no password, the version is too old,
            the login may not do what the role does, the eviction policy would drop rooms, or accepted messages would
            not be kept as the durability mode says.
    """
    first = await _find(url, shown)
    if not quiet and has_open_sentinels(url):
        log.warning("the Sentinels at %s ask for no password: whoever reaches them chooses the primary", shown)
    link = open_link(first, timeout_s=_CONNECT_S, name="boot check")
    try:
        for primary in link.primaries():
            await _check_server(primary, shown, is_role=not quiet)
            if role is not None:
                await check_rights(primary, role, shown)
            if not quiet:
                await warn_of_settings(primary, shown)
                await check_durability(primary, durability, shown)
    except RedisUnavailable as error:
        raise RedisUnusable(f"Redis at {shown} does not answer: {error}") from None
    finally:
        await link.close()
    where = reach(url, timeout_s=timeout_s)
    if isinstance(where, Cluster):
        await where.refresh()
    return where


async def _find(url: str, shown: str) -> Where:
    """Return what answers at a URL, for the checks.

    Raises:
        RedisUnusable: Nothing does, or it is on another machine and asks for no password.
    """
    try:
        refuse_insecure(url)
        found = reach(url, timeout_s=_CONNECT_S)
        if isinstance(found, Cluster):
            await found.refresh()
            refuse_insecure(url, [node.rpartition(":")[0] for node in found.primaries])
        else:
            connection = await found()
            await connection.disconnect()
            refuse_insecure(url, [getattr(connection, "host", "")])
    except AuthenticationError as error:
        raise RedisUnusable(f"Redis at {shown} refuses the login: {error}") from None
    except (ValueError, TypeError) as error:  # redis-py takes what it does not know of a query for arguments
        said = str(error).rpartition("() got an unexpected keyword argument ")[2]
        said = f"no parameter {said} is known" if said != str(error) else said
        raise RedisUnusable(f"--redis {shown}: {without_secrets(said, url)}") from None
    except (RedisError, RedisClusterException, OSError) as error:
        raise RedisUnusable(f"no Redis at {shown}: {_in_words(error)}") from None
    return found


def _in_words(error: Exception) -> str:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" not in text:
        return text
    why = text.partition("verify failed: ")[2].partition(" (_ssl")[0] or text
    return (
        f"its certificate is not to be trusted: {why}. The authority that signed it is named by ?ssl_ca_certs=FILE in "
        "the URL, and the host there must be one that the certificate is for"
    )


async def _check_server(link: Link, shown: str, *, is_role: bool) -> None:
    info, memory, policy, coverage = await _ask_when_ready(link, shown)
    if isinstance(policy, RedisReplied) and isinstance(memory, bytes):
        found = re.search(rb"^maxmemory_policy:(\S+)", memory, re.MULTILINE)
        policy = [b"maxmemory-policy", found[1]] if found else policy
    if isinstance(info, RedisReplied) and str(info).startswith("NOPERM"):
        log.warning("Redis at %s does not tell its version (%s): make sure it is new enough", shown, info)
    elif isinstance(info, RedisReplied):
        raise RedisUnusable(f"Redis at {shown} does not tell its version: {info}")
    else:
        check_version(info.decode(), shown)
    if not is_role:
        return
    if isinstance(policy, RedisReplied):
        log.warning("Redis at %s does not show its eviction policy (%s): make sure it is noeviction", shown, policy)
    elif policy and policy[1] != b"noeviction":
        raise RedisUnusable(
            f"Redis at {shown} has maxmemory-policy {policy[1].decode()}: it could drop rooms when memory is short. "
            "Set it to noeviction (CONFIG SET maxmemory-policy noeviction, and in its configuration file)"
        )
    is_cluster = isinstance(info, bytes) and re.search(rb"^(redis|server)_mode:cluster", info, re.MULTILINE) is not None
    if is_cluster and isinstance(coverage, list) and b"yes" in coverage:
        log.warning(
            "the cluster at %s has cluster-require-full-coverage yes: if one primary is gone, all rooms stand still",
            shown,
        )


async def _ask_when_ready(link: Link, shown: str) -> list[Reply]:
    while True:
        try:
            return await link.send(
                (
                    ("INFO", "server"),
                    ("INFO", "memory"),
                    ("CONFIG", "GET", "maxmemory-policy"),
                    ("CONFIG", "GET", "cluster-require-full-coverage"),
                )
            )
        except RedisUnready as error:
            log.info("Redis at %s is not ready yet: %s", shown, error)
            await asyncio.sleep(0.5)


def check_version(info: str, shown: str) -> None:
    """Check the server section of INFO.

    Raises:
        RedisUnusable: Older than Redis 7.0 or Valkey 7.2.
    """
    for name, field, least in (("Valkey", "valkey_version", _LEAST_VALKEY), ("Redis", "redis_version", _LEAST_REDIS)):
        found = re.search(rf"^{field}:(\d+)\.(\d+)", info, re.MULTILINE)
        if found is None:
            continue
        version = (int(found[1]), int(found[2]))
        if version < least:
            need = ".".join(map(str, least))
            raise RedisUnusable(
                f"{name} at {shown} is version {version[0]}.{version[1]}: Innkeeper needs {name} {need} or newer "
                "(functions and sharded pub/sub)"
            )
        return
    raise RedisUnusable(f"the server at {shown} tells no version that Innkeeper knows")
