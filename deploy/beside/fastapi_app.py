"""A FastAPI application beside the rooms: it posts to them and reads them. Run: uvicorn fastapi_app:app --port 9000."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from innkeeper import Innkeeper

rooms = Innkeeper(os.environ.get("INNKEEPER_REDIS", "redis://127.0.0.1:6379/0"))


@asynccontextmanager
async def connected(_app: FastAPI) -> AsyncIterator[None]:
    """Keep one connection to the rooms for the whole application."""
    async with rooms:
        yield


app = FastAPI(lifespan=connected)


@app.post("/orders/{number}")
async def order(number: int) -> dict[str, Any]:
    """Tell a room of an order, and return what it knows."""
    await rooms.room("sink/orders").post({"n": number})
    return {"posted": number}
