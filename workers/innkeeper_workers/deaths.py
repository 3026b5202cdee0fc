"""Workers that died lately: how many, so that chance is not taken for guilt."""

import logging

from innkeeper import keys
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.topology import Commands

log = logging.getLogger("innkeeper.worker")

_STORM_DEATHS = 12  # four events that kill at once explain as many
_STORM_MS = 30_000
_KEPT_MS = 60_000


async def note_death(link: Commands, worker: str, *, now_ms: int) -> None:
    """Remember for a minute that a worker fell silent.

    Args:
        link: To Redis.
        worker: Its incarnation.
        now_ms: The server's time.

    Raises:
        RedisUnavailable: No answer.
    """
    await link.send(
        (
            ("ZADD", keys.DEATHS, now_ms, worker),
            ("ZREMRANGEBYSCORE", keys.DEATHS, "-inf", now_ms - _KEPT_MS),
            ("PEXPIRE", keys.DEATHS, _KEPT_MS),
        )
    )


async def is_storm(link: Commands, *, now_ms: int) -> bool:
    """Return whether workers die in such numbers that chance may strike the same event more than once."""
    try:
        count = await link.call("ZCOUNT", keys.DEATHS, now_ms - _STORM_MS, "+inf")
    except (RedisUnavailable, RedisReplied) as error:
        log.debug("deaths not counted: %s", error)
        return False
    return int(count) > _STORM_DEATHS
