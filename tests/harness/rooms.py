"""Rooms that tests run in real workers."""

import asyncio
import time
from typing import Any

import msgspec

from innkeeper import Connection, Refused, Room, on


class Ledger(Room):
    """Numbers every message it applies, so that a loss, a repeat or a second order shows at every client."""

    def on_connect(self, conn: Connection) -> None:
        """Tell everybody who came, and the newcomer the number so far."""
        self.state.setdefault("n", 0)
        conn.send({"welcome": self.state["n"]})
        self.broadcast({"came": conn.user.name})

    async def on_message(self, conn: Connection, message: Any) -> None:
        """Number it and show it to all, with the time it was handled; ``wait`` holds the handler first (seconds)."""
        if wait_s := message.get("wait"):
            await asyncio.sleep(wait_s)
        self.state["n"] += 1
        self.broadcast({"n": self.state["n"], "from": conn.user.name, "i": message["i"], "at": time.time()})

    def on_leave(self, conn: Connection) -> None:
        """Tell everybody who left."""
        self.state.setdefault("left", []).append(conn.user.name)
        self.broadcast({"gone": conn.user.name})


class Trouble(Room):
    """Does what it is told, for the tests of failures."""

    handler_s = 1.0
    idle_s = 1.0

    def on_connect(self, conn: Connection) -> None:
        """Refuse those named so."""
        if conn.user.name == "stranger":
            raise Refused("members only")
        if conn.user.name == "bug":
            raise ZeroDivisionError

    async def on_message(self, conn: Connection, message: Any) -> None:
        """Do what the message says."""
        match message["do"]:
            case "raise":
                self.state["broken"] = True
                self.broadcast({"broken": True})
                raise RuntimeError("told to")
            case "hang":
                await asyncio.Event().wait()
            case "cancel":
                task = asyncio.create_task(asyncio.sleep(60))
                asyncio.get_running_loop().call_later(0.05, task.cancel)
                await task
            case "close":
                conn.send({"last": True})
                conn.close(4321, "told to")
            case "whisper":
                conn.send({"to": "you"})
                self.broadcast({"to": "others"}, exclude=conn)
            case "note":
                conn.state = {"note": message["note"]}
                self.broadcast({"notes": {c.user.name: (c.state or {}).get("note") for c in self.connections}})
            case "big":
                self.broadcast({"big": "x" * message["size"]})
            case "bytes":
                self.broadcast(b"\x00\xff")
            case "count":
                self.state["count"] = self.state.get("count", 0) + 1
                self.broadcast({"count": self.state["count"], "broken": self.state.get("broken", False)})
            case _:
                raise ValueError(message["do"])

    async def on_leave(self, conn: Connection) -> None:
        """Write down who left; of those named so, never end."""
        self.state.setdefault("left", []).append(conn.user.name)
        if conn.user.name == "hanger":
            await asyncio.Event().wait()


class Rawecho(Room):
    """Echoes frames as they came, in raw mode."""

    codec = "raw"

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Send text back as text, bytes as bytes, to all."""
        self.broadcast(message)


class Say(msgspec.Struct):
    """A message to a mortal room."""

    text: str


class Diary(msgspec.Struct):
    """The state of a mortal room."""

    lines: list[str] = []
    sleeps: int = 0


class Mortal(Room[Diary]):
    """Sleeps soon and can be destroyed; typed both ways."""

    idle_s = 0.3

    def on_create(self) -> None:
        """Begin the diary."""
        self.state.lines.append("created")

    def on_connect(self, conn: Connection) -> None:
        """Give a tag by name, and show the diary."""
        conn.tags.add(conn.user.name[0])
        conn.send({"lines": self.state.lines, "sleeps": self.state.sleeps})

    @on("say")
    def say(self, conn: Connection, message: Say) -> None:
        """Write it down and show it to those with its first letter as tag."""
        self.state.lines.append(f"{conn.user.name}: {message.text}")
        self.broadcast({"said": message.text}, tags=message.text[0])

    @on("end")
    def end(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - a handler's signature
        """End the room."""
        self.broadcast({"ends": self.new_id()})
        self.destroy()

    def on_leave(self, conn: Connection) -> None:
        """Show it to those who are left."""
        self.broadcast({"left": conn.user.name})

    def on_sleep(self) -> None:
        """Count it."""
        self.state.sleeps += 1
        self.broadcast({"sleeps": self.state.sleeps})


class Clock(Room):
    """Runs timers and keeps in its state when each ran: ``[name, payload, server ms]``."""

    idle_s = 1.0

    def on_message(self, conn: Connection, message: Any) -> None:
        """Set the timers that the message names, as ``[name, options]``."""
        for name, options in message["set"]:
            self.schedule(name, **options)
        conn.send({"set": len(message["set"])})

    def on_timer(self, name: str, payload: Any) -> None:
        """Write it down and show it."""
        ran = [name, payload, round(self.now() * 1000)]
        self.state.setdefault("ran", []).append(ran)
        self.broadcast({"ran": ran})
        if payload == "fail":
            raise RuntimeError("told to")


class Almanac(Room):
    """Keeps how late each of its timers ran, by this machine's clock: ``[name, ms]``; their payload says when."""

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Set timers: ``[name, Unix s]``."""
        for name, at_s in message:
            self.schedule(name, at=at_s, payload=at_s)

    def on_timer(self, name: str, payload: Any) -> None:
        """Write it down."""
        self.state.setdefault("ran", []).append([name, round((time.time() - payload) * 1000)])


class Brief(Room):
    """Tells everybody of each change of a member, and waits for the dropped only for a second."""

    grace_s = 1.0

    def on_connect(self, conn: Connection) -> None:
        """Tell who came."""
        self.broadcast({"came": conn.user.name})

    def on_drop(self, conn: Connection) -> None:
        """Tell who lost the socket."""
        assert not conn.is_connected
        self.broadcast({"dropped": conn.user.name})

    def on_resume(self, conn: Connection) -> None:
        """Tell who is back."""
        assert conn.is_connected
        self.broadcast({"back": conn.user.name})

    def on_leave(self, conn: Connection) -> None:
        """Tell who is gone."""
        self.broadcast({"gone": conn.user.name})

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Show it to all, and close whom it names."""
        self.broadcast({"said": message})
        for member in self.connections:
            if member.user.name == message.get("kick"):
                member.close(4321, "kicked")


class Snapshot(Room):
    """Counts messages, and gives the count to whom the past is lost."""

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Count it."""
        self.state["count"] = self.state.get("count", 0) + 1
        self.broadcast({"count": self.state["count"]})

    def on_resync(self, conn: Connection) -> None:
        """Send the count so far."""
        self.state["resyncs"] = self.state.get("resyncs", 0) + 1
        conn.send({"snapshot": self.state.get("count", 0)})
