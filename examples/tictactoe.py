"""Tic-tac-toe: players wait in a lobby, are matched two by two, and the same socket goes on in their match."""

from msgspec import Struct, field

from innkeeper import Connection, Room, on

LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


class Lobby(Room):
    """Where players wait; everybody uses the room ``lobby/main``."""

    def on_connect(self, conn: Connection) -> None:
        """Match a newcomer with who waits, or let it wait."""
        others = (member for member in self.connections if member is not conn and member.is_connected)
        waiting = [member for member in others if not member.has_tag("moving")]
        if not waiting:
            conn.send({"type": "waiting"})
            return
        match = f"match/{self.new_id()}"
        for player in (waiting[0], conn):
            player.tags.add("moving")
            player.move(match)

    def on_resync(self, conn: Connection) -> None:
        """Tell one that has missed too much that it waits still."""
        conn.send({"type": "waiting"})


class Game(Struct):
    """The state of a match."""

    board: list[str] = field(default_factory=lambda: [""] * 9)
    players: dict[str, str] = {}  # connection to "X" or "O"
    turn: str = "X"
    winner: str = ""


class Cell(Struct):
    """A move: which of the nine cells."""

    cell: int


class Match(Room[Game]):
    """One game of two; rooms are made by the lobby."""

    max_connections = 2

    def on_connect(self, conn: Connection) -> None:
        """Give a player its mark; with two of them the game begins."""
        mark = "O" if "X" in self.state.players.values() else "X"
        self.state.players[conn.id] = mark
        conn.send({"type": "you", "mark": mark})
        self.show()

    def on_resync(self, conn: Connection) -> None:
        """Show the game to one that has missed too much."""
        conn.send({"type": "you", "mark": self.state.players[conn.id]})
        self.show()

    @on("play")
    def on_play(self, conn: Connection, move: Cell) -> None:
        """Put a mark where the rules allow it."""
        game = self.state
        mark = game.players[conn.id]
        if len(self.connections) < 2 or game.winner or mark != game.turn:  # noqa: PLR2004 - a game of two
            conn.send({"type": "error", "text": "it is not your turn"})
            return
        if not 0 <= move.cell < len(game.board) or game.board[move.cell]:
            conn.send({"type": "error", "text": "that cell is taken"})
            return
        game.board[move.cell] = mark
        game.turn = "O" if mark == "X" else "X"
        if any(all(game.board[n] == mark for n in line) for line in LINES):
            game.winner = mark
        elif all(game.board):
            game.winner = "nobody"
        self.show()

    def on_leave(self, conn: Connection) -> None:
        """Let who stays win, and take it back to the lobby."""
        mark = self.state.players.pop(conn.id, "")
        if not self.state.winner:
            self.state.winner = "O" if mark == "X" else "X"
            self.show()
        if not len(self.connections):
            self.destroy()

    @on("again")
    def on_again(self, conn: Connection, _message: object) -> None:
        """Go back to the lobby for another game."""
        conn.move("lobby/main")

    def show(self) -> None:
        """Show the game to both."""
        game = self.state
        begun = len(self.connections) == 2  # noqa: PLR2004 - a game of two
        self.broadcast({"type": "game", "board": game.board, "turn": game.turn, "winner": game.winner, "begun": begun})
