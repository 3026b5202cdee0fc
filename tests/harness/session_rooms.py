"""Rooms for the clients of innkeeper.v1, in real workers."""

from typing import Any

from innkeeper import Connection, Room


class Diary(Room):
    """Numbers every message it applies and notes who came and went, so that anything wrong shows at every client."""

    def on_connect(self, conn: Connection) -> None:
        """Greet the newcomer with the number so far."""
        self.state.setdefault("n", 0)
        self._note("came", conn)
        conn.send({"welcome": self.state["n"]})

    def on_message(self, conn: Connection, message: Any) -> None:
        """Number it and show it to all; bytes come back as they are, nonsense raises."""
        if isinstance(message, bytes):
            self.broadcast(message)
            return
        self.state["n"] += 1
        self.broadcast({"n": self.state["n"], "from": conn.user.name, "i": message["i"]})

    def on_resync(self, conn: Connection) -> None:
        """Give who missed something the number so far."""
        conn.send({"snapshot": self.state["n"]})

    def on_drop(self, conn: Connection) -> None:
        """Note that somebody lost the socket."""
        self._note("dropped", conn)

    def on_resume(self, conn: Connection) -> None:
        """Note that somebody is back."""
        self._note("resumed", conn)

    def on_leave(self, conn: Connection) -> None:
        """Note that somebody is gone."""
        self._note("left", conn)

    def _note(self, what: str, conn: Connection) -> None:
        self.state.setdefault("notes", []).append([what, conn.user.name])


class Hasty(Diary):
    """The same, without much patience for who is away."""

    grace_s = 0.5


class Doors(Room):
    """Closes who says so, and ends when somebody says so; too small for long words."""

    message_bytes = 100
    grace_s = 0.0

    def on_message(self, conn: Connection, message: Any) -> None:
        """Do as told."""
        self.state["heard"] = self.state.get("heard", 0) + 1
        if message == "close me":
            conn.close(4321, "bye")
        elif message == "end":
            self.destroy()


class Rawdiary(Room):
    """Sends back what it gets, in raw mode."""

    codec = "raw"

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Send text back as text, bytes as bytes."""
        self.broadcast(message)
