"""A room whose hook makes a span of its own, for tests."""

import asyncio
from typing import Any

from opentelemetry import trace

from innkeeper import Connection, Room


class Traced(Room):
    """Repeats messages, after some work that is traced."""

    def on_connect(self, conn: Connection) -> None:
        """Say that it is in."""
        conn.send("in")

    async def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Work, then show it to all."""
        with trace.get_tracer("test").start_as_current_span("work"):
            await asyncio.sleep(0.01)
        self.broadcast(message)
