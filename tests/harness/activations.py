"""One room instance without Redis: events in, turns out."""

from typing import Any

import orjson

from innkeeper import Room
from innkeeper.activation import Activation
from innkeeper.address import Address
from innkeeper.functions import Claimed
from innkeeper.turn import Turn
from innkeeper.wire import InboxEvent


class Stage:
    """An activation of a room class, with events numbered on from ``iseq``."""

    def __init__(
        self,
        room_class: type[Room],
        *,
        state: dict[str, Any] | None = None,
        members: dict[str, bytes] | None = None,
        timers: dict[str, bytes] | None = None,
        iseq: int = 0,
        cursor: int = 0,
        created: bool = True,
    ) -> None:
        claimed = Claimed(
            token="1:1",  # noqa: S106 - no password
            meta={b"cursor": b"%d" % cursor, **({b"created": b"1"} if created else {})},
            state={key.encode(): orjson.dumps(value) for key, value in (state or {}).items()},
            members={key.encode(): row for key, row in (members or {}).items()},
            timers={key.encode(): row for key, row in (timers or {}).items()},
            iseq=iseq,
            server_us=1,
        )
        self.calls: list[str] = []
        self.activation = Activation(
            Address(room_class.kind, "x"),
            room_class,
            claimed,
            on_suspend=lambda: self.calls.append("suspend"),
            on_resume=lambda: self.calls.append("resume"),
        )
        self.iseq = 0

    def event(self, kind: str, connection: str = "c1", data: bytes = b"", edge: str = "e1") -> InboxEvent:
        """Return the room's next event."""
        self.iseq += 1
        entry_id = b"%d-%d" % (self.iseq, self.iseq)
        return InboxEvent(entry_id, self.iseq, kind.encode(), connection.encode(), edge.encode(), b"", 0, 0, data)

    def take_turn(self) -> Turn:
        """Return the turn so far and start another, as a commit would."""
        return take_turn(self.activation)

    async def handle(self, kind: str, connection: str = "c1", data: bytes = b"", edge: str = "e1") -> Turn:
        """Run one event; return its turn."""
        await self.run(kind, connection, data, edge)
        return self.take_turn()

    async def run(self, kind: str, connection: str = "c1", data: bytes = b"", edge: str = "e1") -> None:
        """Run one event of a turn."""
        rest = self.activation.handle(self.event(kind, connection, data, edge))
        if rest is not None:
            await rest

    async def join(self, connection: str = "c1", *, name: str = "u", edge: str = "e1") -> Turn:
        """Let a connection join; return its turn."""
        return await self.handle("join", connection, orjson.dumps({"user": [name, name]}), edge)

    async def say(self, value: Any, connection: str = "c1") -> Turn:
        """Send a JSON message; return its turn."""
        return await self.handle("text", connection, orjson.dumps(value))

    @property
    def members(self) -> list[str]:
        """The ids of the members, in order."""
        return list(self.activation.context.members)


def take_turn(activation: Activation) -> Turn:
    """Return an activation's turn so far and start another, as a commit would."""
    turn, activation._hooks.turn = activation.turn, Turn()
    return turn


async def staged(room_class: type[Room], **options: Any) -> Stage:
    """Return a stage whose room is started."""
    stage = Stage(room_class, **options)
    await stage.activation.start()
    stage.take_turn()
    return stage


def row(join: int, edge: str = "e1", state: Any = None) -> bytes:
    """Return a row of ``members``."""
    return orjson.dumps({"join": join, "edge": edge, "session": "", "user": ["u", "u"], "state": state})
