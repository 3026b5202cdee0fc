"""The rooms of a simulation: chronicles that do in their hooks what users do, too: raise, wait, hang, close."""

import asyncio
from typing import Any, Literal

from harness.chronicle import Chronicle
from harness.history import Step
from innkeeper import Connection, Refused

SURE = ("say", "note", "big", "close")
"""What a message can ask for that cannot fail; these are numbered by ``i`` for the history checker."""
BIG_BYTES = 13_000
TICKS = 3
_MISSED: tuple[Literal["skip", "once", "all"], ...] = ("skip", "once", "all")


class Ledger(Chronicle):
    """A chronicle under stress.

    What a hook does beside noting a step is told by the name of the connection (after a ``+``) and by ``do`` in the
    message, so that a replay knows it, too. ``m`` is the place of a message among all of its connection.
    """

    handler_s = 0.4
    idle_s = 1.0

    def on_create(self) -> None:
        """Count it: it must be done once."""
        self.state["created"] = self.state.get("created", 0) + 1

    def on_connect(self, conn: Connection) -> None:
        """Let it in, or not."""
        super().on_connect(conn)
        conn.send({"welcome": self.state["n"]})
        traits = conn.user.name.split("+")
        if "refused" in traits:
            raise Refused("members only")
        if "raises" in traits:
            raise RuntimeError("on_connect was told to")

    async def on_message(self, conn: Connection, message: Any) -> None:
        """Do what the message says, and note it."""
        do = message["do"]
        if do in ("wait", "wait-raise"):
            await asyncio.sleep(message["s"])
        if do in SURE:
            await super().on_message(conn, message)
        else:
            self._note(Step(do, conn.user.name, message["m"]))
        conn.send({"ack": message["m"]})
        if do == "big":
            self.broadcast({"pad": "x" * BIG_BYTES})
        if do == "timer":
            self._set_timer(conn.user.name, message)
        if do == "close":
            conn.close(4000, "told to")
        if do in ("raise", "wait-raise"):
            raise RuntimeError("on_message was told to")
        if do == "hang":
            await asyncio.Event().wait()

    def _set_timer(self, sender: str, message: dict[str, Any]) -> None:
        """Set a timer that runs once, soon or when the room sleeps, or one that runs three times."""
        m = message["m"]
        if m % 3 == 0:
            missed = _MISSED[m % 9 // 3]
            self.schedule(f"{sender}/{m}/{TICKS}", every=max(message["s"], 0.02), missed=missed, payload=[sender, m])
        else:
            self.schedule(f"{sender}/{m}/1", after=message["s"] * (45 if m % 2 else 5), payload=[sender, m])

    def on_timer(self, name: str, payload: Any) -> None:
        """Note it; one that has run three times is cancelled."""
        sender, m = payload
        self._note(Step("timer", sender, m))
        counts = self.state.setdefault("ticks", {})
        counts[name] = counts.get(name, 0) + 1
        if counts[name] == TICKS:
            self.cancel(name)

    async def on_leave(self, conn: Connection) -> None:  # type: ignore[override]
        """Note it."""
        traits = conn.user.name.split("+")
        if "leave-waits" in traits:
            await asyncio.sleep(0.05)
        super().on_leave(conn)
        if "leave-raises" in traits:
            raise RuntimeError("on_leave was told to")
        if "leave-hangs" in traits:
            await asyncio.Event().wait()


class Narrow(Ledger):
    """A ledger that lets few events wait and goes to sleep soon."""

    kind = "narrow"
    backlog_count = 5
    idle_s = 0.4
