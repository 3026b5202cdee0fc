"""Functions for ``--auth``, which say who somebody is."""

import asyncio
import time
from typing import Any

from aiohttp import web

from innkeeper.errors import Refused

FOR_S = 2.0


async def who(request: web.BaseRequest) -> dict[str, Any] | None:
    """Return whom the bearer's name is, for two seconds, in vaults; some names end badly."""
    name = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if name == "hang":
        await asyncio.sleep(3600)
    if name == "reader":
        await request.read()
    if name == "crash":
        raise RuntimeError(f"{name} hunter2")
    if name == "banned":
        raise Refused("you were banned")
    return {"id": f"id-{name}", "name": name, "rooms": ["vault/*"], "expires_s": time.time() + FOR_S} if name else None
