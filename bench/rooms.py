"""The rooms of the benchmark: the same as bench/baseline.py serves from memory."""

from typing import Any

from innkeeper import Connection, Room


class Echo(Room):
    """Sends each message to all."""

    kind = "echo"

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Broadcast it."""
        self.broadcast(message)


class Counter(Room):
    """Numbers each message with a count kept in the durable state."""

    kind = "counter"

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Count and broadcast."""
        count = self.state.get("n", 0) + 1
        self.state["n"] = count
        self.broadcast({"n": count, **message})


class RawEcho(Room):
    """Sends each frame to all as it came."""

    kind = "rawecho"
    codec = "raw"

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Broadcast it."""
        self.broadcast(message)
