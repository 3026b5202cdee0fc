"""Rooms that post to each other."""

import asyncio
from typing import Any

from innkeeper import Connection, Event, Room


class Source(Room):
    """Posts what its members tell it to, numbered by itself."""

    idle_s = 1.0

    def on_message(self, conn: Connection, message: Any) -> None:
        """Post to each of ``to`` the next number, with ``pad`` bytes; ``fail`` raises after that."""
        for target in message["to"]:
            sent = self.state.setdefault("sent", {})
            sent[target] = sent.get(target, 0) + 1
            self.post(target, {"n": sent[target], "pad": "x" * message.get("pad", 0)})
        if message.get("fail"):
            raise RuntimeError("told to")
        if message.get("end"):
            self.destroy()
        conn.send({"sent": True})


class Sink(Room):
    """Writes down what is posted to it, by sender."""

    idle_s = 1.0

    def on_connect(self, conn: Connection) -> None:
        """Show the whole."""
        conn.send({"got": dict(self.state)})

    def on_post(self, sender: str, message: Any) -> None:
        """Write down the number."""
        self.state.setdefault(sender or "outside", []).append(message["n"])
        self.broadcast({"from": sender, "n": message["n"]})


class Narrow(Room):
    """Full after four events, each of which takes a while."""

    backlog_count = 4

    async def on_post(self, sender: str, message: Any) -> None:
        """Write down the number, slowly."""
        await asyncio.sleep(0.02)
        self.state.setdefault(sender, []).append(message["n"])


class Pinger(Room):
    """Answers posts by posts, so that two of them count together; its own are taken too."""

    def on_post(self, sender: str, message: Any) -> None:
        """Count up to the goal, in turns."""
        self.state["n"] = message["n"]
        if message["n"] < message["goal"]:
            self.post(sender or message["other"], {**message, "n": message["n"] + 1})

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Begin."""
        self.post(message["other"], message)


class Grumpy(Room):
    """Fails at every post."""

    def on_post(self, sender: str, message: Any) -> None:
        """Fail."""
        self.state["touched"] = [sender, message]
        raise RuntimeError("no")

    def on_error(self, error: Exception, event: Event) -> None:
        """Write it down."""
        self.state["error"] = [str(error), event.kind]


class Wall(Room):
    """Takes no posts."""
