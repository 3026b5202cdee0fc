"""Rooms between which sockets move, for tests."""

from typing import Any

from innkeeper import Connection, Room


class Hall(Room):
    """Notes who came and went; ``{"n": …}`` is noted and shown to all.

    ``{"go": target}`` takes the sender there, ``{"take": target}`` all others.
    """

    def on_connect(self, conn: Connection) -> None:
        """Note and greet."""
        self.note(f"+{conn.id}")
        conn.send({"in": self.name, "you": conn.id})

    def on_message(self, conn: Connection, message: Any) -> None:
        """Move the sender, or note the message."""
        if "go" in message:
            conn.send({"going": message["go"]})
            conn.move(message["go"])
        elif "take" in message:
            for other in self.connections:
                if other is not conn:
                    other.move(message["take"])
        else:
            self.note(f"{conn.id} {message['n']}")
            self.broadcast({"at": self.name, "n": message["n"]})

    def on_leave(self, conn: Connection) -> None:
        """Note."""
        self.note(f"-{conn.id}")

    def note(self, line: str) -> None:
        """Add a line to what is stored."""
        self.state.setdefault("lines", []).append(line)


class Small(Hall):
    """The same for small messages, and few members."""

    message_bytes = 100
    max_connections = 1
