"""Settings of a Redis server that cost users something: what to warn of at boot, in words."""

import logging
import re
from collections.abc import Mapping

from innkeeper.errors import RedisReplied
from innkeeper.redis_client import Link

log = logging.getLogger("innkeeper")

# What Innkeeper publishes at once stays below this (commit.lua, push.lua); tests hold the acts to it.
PUBLISHED_BYTES = 16_384
_UNCOPIED = ("min-string-size-avoid-copy-reply", "min-string-size-avoid-copy-reply-threaded")
SETTINGS = ("save", "appendfsync", "client-output-buffer-limit", *_UNCOPIED)


async def warn_of_settings(link: Link, shown: str) -> None:
    """Log a warning for each setting of the server that loses data or memory; what it does not show is not judged.

    Args:
        link: To the server.
        shown: Its URL without the password.

    Raises:
        RedisUnavailable: No answer.
    """
    info, flat = await link.send((("INFO", "persistence"), ("CONFIG", "GET", *SETTINGS)))
    for reply, what in ((info, "whether it keeps data on disk"), (flat, "its configuration")):
        if isinstance(reply, RedisReplied):
            log.warning(
                "Redis at %s does not show %s (%s): compare it with docs/deploy.md yourself", shown, what, reply
            )
    config = {} if isinstance(flat, RedisReplied) else _texts(flat)
    text = "" if isinstance(info, RedisReplied) else info.decode()
    for warning in warnings_about(text, config):
        log.warning("Redis at %s %s", shown, warning)


def _texts(flat: list[bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}


def warnings_about(info: str, config: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a server, each a sentence without its subject ("keeps nothing on disk: …").

    Args:
        info: The persistence section of INFO; empty where it is not shown.
        config: What CONFIG GET showed; a missing setting is not judged.
    """
    found = [_persistence(info, config), _pubsub_limit(config.get("client-output-buffer-limit", ""))]
    found += [_uncopied(name, config.get(name, "")) for name in _UNCOPIED]
    return [warning for warning in found if warning]


def _persistence(info: str, config: Mapping[str, str]) -> str:
    remedy = "Set appendonly yes; with appendfsync always even a power cut loses nothing"
    if re.search(r"^aof_enabled:0", info, re.MULTILINE):
        if config.get("save", "?") == "":
            return (
                "keeps nothing on disk (no append-only file, no snapshots): when it restarts, all rooms are gone, "
                f"accepted messages too. {remedy}"
            )
        return (
            "keeps no append-only file: when it crashes, what happened in all rooms since its last snapshot is gone, "
            f"accepted messages too. {remedy}"
        )
    if "aof_enabled:1" in info and config.get("appendfsync") == "no":
        return (
            "leaves it to the operating system when its append-only file reaches the disk (appendfsync no): a power "
            "cut may cost half a minute of accepted messages. Set appendfsync always, or everysec"
        )
    return ""


def _pubsub_limit(limits: str) -> str:
    found = re.search(r"\bpubsub (\d+) (\d+) (\d+)", limits)
    if found is None or int(found[1]) or int(found[2]):
        return ""
    return (
        "has no limit for pub/sub clients (client-output-buffer-limit pubsub 0 0 0): an edge or worker that stops "
        "reading could eat all its memory. Set client-output-buffer-limit to pubsub 32mb 8mb 60, the servers' default"
    )


def _uncopied(name: str, bytes_text: str) -> str:
    if not bytes_text.isdecimal() or int(bytes_text) == 0 or int(bytes_text) >= PUBLISHED_BYTES:
        return ""
    return (
        f"has {name} {bytes_text}: what it sends uncopied it does not count against client-output-buffer-limit, and "
        "this takes in Innkeeper's outputs, so that an edge that stops reading could eat all its memory. "
        f"Set it to 0, or to {PUBLISHED_BYTES} or more"
    )
