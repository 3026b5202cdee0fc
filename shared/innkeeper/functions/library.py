"""The function library: assembled from the ``.lua`` files, named by its hash, loaded and retired.

Two versions stand side by side during a roll-out, because two libraries may not share a function name: names end
in the hash. Only workers load; the two newest libraries are kept (the header says when each was loaded).
"""

import asyncio
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING

from innkeeper.errors import RedisReplied

if TYPE_CHECKING:
    from innkeeper.channel import Reply
    from innkeeper.topology import Commands

ACTS = (
    "push", "claim", "commit", "renew", "release", "heartbeat", "reap_edge", "wake", "look", "announce", "fire",
    "expect", "due", "postpone", "post", "retry",
)  # fmt: skip
# Acts that drain or keep what is accepted go on under OOM; push and post are refused there as back-pressure.
_ALLOW_OOM = frozenset(ACTS) - {"push", "post"}
_KEPT_COUNT = 2


def _source() -> str:
    folder = resources.files("innkeeper.functions")
    texts = [(folder / f"{name}.lua").read_text(encoding="utf-8") for name in ("prelude", *ACTS)]
    return "\n".join(texts)


SOURCE = _source()
HASH = hashlib.sha256(SOURCE.encode()).hexdigest()[:8]
NAME = f"inn_{HASH}"


def library_code(loaded_us: str) -> str:
    """Return the text for FUNCTION LOAD; ``loaded_us`` (server time) tells the newest library."""
    lines = [f"#!lua name={NAME}", f"-- loaded {loaded_us}", SOURCE]
    for act in ACTS:
        flags = "'allow-oom'" if act in _ALLOW_OOM else ""
        lines.append(f"redis.register_function{{function_name='inn_{act}_{HASH}', callback={act}, flags={{{flags}}}}}")
    return "\n".join(lines) + "\n"


async def load_library(link: "Commands") -> None:
    """Load this version's functions into each primary that lacks them; retire all but the two newest libraries.

    Safe to run from many workers at once. A library that is retired while an old worker still uses it is loaded
    again by that worker ("Function not found"). Where a primary is away the others are served all the same.

    Raises:
        RedisUnavailable: One of them did not answer.
        RedisReplied: One of them refused.
    """
    outcomes = await asyncio.gather(*map(_load_into, link.primaries()), return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


async def _load_into(link: "Commands") -> None:
    present = _loaded(await link.call("FUNCTION", "LIST", "LIBRARYNAME", "inn_*", "WITHCODE"))
    newest = max(present, key=lambda name: present[name], default="")
    if newest == NAME:
        return
    seconds, micros = await link.call("TIME")
    stamp = f"{int(seconds)}{int(micros):06d}"
    await link.call("FUNCTION", "LOAD", "REPLACE", library_code(stamp))
    others = sorted((name for name in present if name != NAME), key=lambda name: present[name], reverse=True)
    for name in others[_KEPT_COUNT - 1 :]:
        reply = (await link.send((("FUNCTION", "DELETE", name),)))[0]
        if isinstance(reply, RedisReplied) and "not found" not in str(reply):
            raise reply


def _loaded(listing: "Reply") -> dict[str, int]:
    """Return name → server µs of loading for our libraries in a FUNCTION LIST WITHCODE answer."""
    found = {}
    for entry in listing:
        fields = dict(zip(entry[::2], entry[1::2], strict=True))
        name = fields[b"library_name"].decode()
        stamp = re.search(rb"^-- loaded (\d+)$", fields[b"library_code"], re.MULTILINE)
        found[name] = int(stamp.group(1)) if stamp else 0
    return found
