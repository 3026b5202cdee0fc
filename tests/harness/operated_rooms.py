"""Rooms that operators look after."""

import asyncio
from typing import Any

from innkeeper import Connection, Room


class Desk(Room):
    """Counts, waits and fails when told to."""

    def on_connect(self, conn: Connection) -> None:
        """Greet, and set a timer."""
        conn.send({"welcome": conn.id})
        self.schedule("close", after=3600, payload={"by": conn.user.name})

    def on_timer(self, name: str, payload: Any) -> None:
        """Tell of it."""
        self.broadcast({"timer": name, "payload": payload})

    async def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Do what it says."""
        if message == "fail" and not self.state.get("mended"):
            raise RuntimeError("no\nsuch thing \x1b[31m")
        if message == "wait":
            await asyncio.sleep(8)
        self.state["n"] = self.state.get("n", 0) + 1
        self.broadcast({"n": self.state["n"], "said": message})

    def on_post(self, sender: str, message: Any) -> None:
        """Note it."""
        self.state["posted"] = message
        self.broadcast({"posted": message, "by": sender})

    def on_leave(self, conn: Connection) -> None:
        """Tell the others."""
        self.broadcast({"left": conn.id})


class Faulty(Room):
    """Does not start."""

    def on_start(self) -> None:
        """Fail."""
        raise OSError("the disk is full")
