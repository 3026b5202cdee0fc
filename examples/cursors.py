"""Shared cursors: everybody sees where everybody points."""

import msgspec

from innkeeper import Connection, Room, on

COLOURS = ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98", "#d35400", "#148f77", "#884ea0")


class Point(msgspec.Struct):
    """A place on the page, as fractions of its width and height."""

    x: float
    y: float


class Cursors(Room):
    """One page; rooms are ``cursors/<any name>``."""

    def on_start(self) -> None:
        """Begin without cursors: they move on, so they are not worth storing."""
        self.points: dict[str, Point] = {}

    def on_connect(self, conn: Connection) -> None:
        """Give a newcomer its colour and show it the others."""
        conn.state = {"colour": self.random.choice(COLOURS)}
        self.on_resync(conn)
        self.broadcast({"type": "count", "count": len(self.connections)}, exclude=conn)

    def on_resync(self, conn: Connection) -> None:
        """Show all there is to one that has missed too much."""
        conn.send({"type": "welcome", "you": conn.id})
        for member in self.connections:
            if member is not conn and member.id in self.points:
                conn.send(self.shown(member))
        conn.send({"type": "count", "count": len(self.connections)})

    @on("point")
    def on_point(self, conn: Connection, point: Point) -> None:
        """Show a cursor to the others."""
        self.points[conn.id] = point
        self.broadcast(self.shown(conn), exclude=conn)

    def on_leave(self, conn: Connection) -> None:
        """Take a cursor away."""
        self.points.pop(conn.id, None)
        self.broadcast({"type": "gone", "id": conn.id})
        self.broadcast({"type": "count", "count": len(self.connections)})

    def shown(self, conn: Connection) -> dict[str, object]:
        """Return what clients draw of a member."""
        point = self.points[conn.id]
        look = {"colour": conn.state["colour"], "name": conn.user.name}
        return {"type": "point", "id": conn.id, "x": point.x, "y": point.y, **look}
