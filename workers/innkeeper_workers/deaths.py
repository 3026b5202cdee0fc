"""Workers that died lately, and how often Redis was out of reach: so that chance is not taken for guilt."""

import logging

from innkeeper import keys
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.topology import Commands

log = logging.getLogger("innkeeper.worker")

_STORM_DEATHS = 12  # four events that kill at once explain as many
_STORM_MS = 30_000
_KEPT_MS = 60_000
_PAUSE = b"~"  # how members of DEATHS begin that are no deaths


async def note_death(link: Commands, worker: str, *, now_ms: int) -> None:
    """Remember for a minute that a worker fell silent.

    Args:
        link: To Redis.
        worker: Its incarnation.
        now_ms: The server's time.

    Raises:
        RedisUnavailable: No answer.
    """
    await _note(link, worker, now_ms)


async def note_pause(link: Commands, worker: str, *, now_ms: int) -> None:
    """Remember for a minute that a worker and Redis were out of touch for longer than a lease.

    What is tried meanwhile waits for its commit, and so a death is likelier to strike the same event again.
    """
    await _note(link, f"{_PAUSE.decode()}{worker}", now_ms)


async def _note(link: Commands, member: str, now_ms: int) -> None:
    await link.send(
        (
            ("ZADD", keys.DEATHS, now_ms, member),
            ("ZREMRANGEBYSCORE", keys.DEATHS, "-inf", now_ms - _KEPT_MS),
            ("PEXPIRE", keys.DEATHS, _KEPT_MS),
        )
    )


async def is_storm(link: Commands, *, now_ms: int) -> bool:
    """Return whether chance may strike the same event more than once: workers die in numbers, or Redis was away."""
    try:
        members = await link.call("ZRANGE", keys.DEATHS, now_ms - _STORM_MS, "+inf", "BYSCORE")
    except (RedisUnavailable, RedisReplied) as error:
        log.debug("deaths not counted: %s", error)
        return False
    return len(members) > _STORM_DEATHS or any(member.startswith(_PAUSE) for member in members)
