"""A chat room: the last hundred messages are kept, everybody sees who is in."""

from typing import Any

from innkeeper import Connection, Room


class Chat(Room):
    """One room of the chat; rooms are ``chat/<any name>``."""

    def on_connect(self, conn: Connection) -> None:
        """Show a newcomer the history and everybody the new list of members."""
        conn.send({"type": "history", "messages": self.state.get("history", [])})
        self.show_members()

    def on_message(self, conn: Connection, message: Any) -> None:
        """Keep a message and show it to everybody."""
        said = {"type": "message", "from": conn.user.name, "text": str(message["text"])}
        history = self.state.setdefault("history", [])
        history.append(said)
        del history[:-100]
        self.broadcast(said)

    def on_leave(self, conn: Connection) -> None:  # noqa: ARG002 - the hook's signature
        """Show everybody who is still there."""
        self.show_members()

    def show_members(self) -> None:
        """Send the names of all members to all members."""
        self.broadcast({"type": "members", "names": sorted(member.user.name for member in self.connections)})
