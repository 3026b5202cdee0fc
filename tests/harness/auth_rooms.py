"""Rooms that look at whose connection it is."""

from typing import Any

from innkeeper import Connection, Request, Room, User


class Vault(Room):
    """Lets in who is not barred, and says who it was that spoke."""

    grace_s = 5.0

    @classmethod
    async def authorize(cls, user: User, name: str) -> bool:
        """Keep the barred out, and everybody out of the room that is closed."""
        if name == "broken":
            raise OSError("the list of members is away")
        return user.name != "barred" and name != "closed"

    def on_connect(self, conn: Connection) -> None:
        """Say who it is."""
        conn.send({"you": list(conn.user)})

    def on_message(self, conn: Connection, message: Any) -> None:
        """Send it to all, or move who says so."""
        if message == "move":
            conn.move("vault/inner")
        elif message == "out":
            conn.move("lounge/x")
        else:
            self.broadcast({"from": conn.user.id, "said": message})

    def on_request(self, request: Request) -> Any:
        """Say what came."""
        return {
            "you": list(request.user),
            "headers": dict(request.headers),
            "query": dict(request.query),
            "size": len(request.body),
        }


class Lounge(Vault):
    """Another kind of room."""
