"""A ticking game: twenty times a second everybody moves, and who reaches the coin gets a point."""

from typing import Literal

from msgspec import Struct

from innkeeper import Connection, Room, on

WIDTH, HEIGHT, STEP = 40, 24, {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TICKS_HZ = 20
MOVE_EVERY_TICKS = 2


class Steer(Struct):
    """Where a player wants to go."""

    to: Literal["left", "right", "up", "down"]


class Player(Struct):
    """A player on the field."""

    x: int
    y: int
    to: str = "right"
    points: int = 0


class Field(Struct):
    """The state of the game."""

    players: dict[str, Player] = {}
    coin: tuple[int, int] = (5, 5)
    tick: int = 0


class Arena(Room[Field]):
    """One field; rooms are ``arena/<any name>``."""

    max_connections = 32

    def on_connect(self, conn: Connection) -> None:
        """Put a player somewhere; the first one starts the clock."""
        if not self.state.players:
            self.schedule("tick", every=1 / TICKS_HZ)
        at = self.random.randrange(WIDTH), self.random.randrange(HEIGHT)
        self.state.players[conn.id] = Player(*at)
        conn.send({"type": "welcome", "you": conn.id, "width": WIDTH, "height": HEIGHT})

    @on("steer")
    def on_steer(self, conn: Connection, steer: Steer) -> None:
        """Turn a player."""
        self.state.players[conn.id].to = steer.to

    def on_timer(self, name: str, payload: object) -> None:  # noqa: ARG002 - the hook's signature
        """Move everybody, and show the field."""
        field = self.state
        field.tick += 1
        if field.tick % MOVE_EVERY_TICKS == 0:
            for player in field.players.values():
                dx, dy = STEP[player.to]
                player.x, player.y = (player.x + dx) % WIDTH, (player.y + dy) % HEIGHT
                if (player.x, player.y) == field.coin:
                    player.points += 1
                    field.coin = self.random.randrange(WIDTH), self.random.randrange(HEIGHT)
        players = {member.id: self.shown(member) for member in self.connections if member.id in field.players}
        self.broadcast({"type": "field", "tick": field.tick, "coin": field.coin, "players": players})

    def shown(self, conn: Connection) -> list[object]:
        """Return what clients draw of a player."""
        player = self.state.players[conn.id]
        return [player.x, player.y, player.points, conn.user.name]

    def on_leave(self, conn: Connection) -> None:
        """Take a player away; the last one stops the clock."""
        self.state.players.pop(conn.id, None)
        if not self.state.players:
            self.cancel("tick")
