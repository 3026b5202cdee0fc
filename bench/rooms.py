"""The rooms of the benchmark: the same as bench/baseline.py serves from memory."""

from typing import Any

from innkeeper import Connection, Room


class Echo(Room):
    """Sends each message to all."""

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Broadcast it."""
        self.broadcast(message)


class Counter(Room):
    """Numbers each message with a count kept in the durable state."""

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Count and broadcast."""
        count = self.state.get("n", 0) + 1
        self.state["n"] = count
        message["n"] = count
        self.broadcast(message)


class Rawecho(Room):
    """Sends each frame to all as it came."""

    codec = "raw"

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Broadcast it."""
        self.broadcast(message)
