"""Clients of a room in memory: what they send becomes events, what reaches them is kept."""

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from innkeeper.testing.harness import RoomHarness


class Closed(NamedTuple):
    """How a socket was closed."""

    code: int
    reason: str


class Client:
    """A socket in a room, made by :meth:`RoomHarness.join`.

    Attributes:
        id: Of its connection, as ``conn.id`` in the room.
        name: As ``conn.user.name`` in the room.
        received: All it got: JSON values, and bytes of binary frames; in raw rooms str and bytes.
        closed: How the room, or the edge, closed it; None while it is open.
        moved: The room that it was taken to (``conn.move``); empty while it was not.
        has_left: Whether it is gone by itself.
    """

    def __init__(self, harness: "RoomHarness", connection_id: str, name: str) -> None:
        self.id = connection_id
        self.name = name
        self.received: list[Any] = []
        self.closed: Closed | None = None
        self.moved = ""
        self.has_left = False
        self.join = 0
        self._harness = harness
        self._taken_count = 0

    async def send(self, value: Any) -> None:
        """Send a message and run the room until nothing is left to do.

        Args:
            value: A JSON value, or bytes for a binary frame; in raw rooms str or bytes.

        Raises:
            RuntimeError: The socket is not open.
            Exception: Whatever on_create or on_start raise; the message waits for the next call.
        """
        if isinstance(value, bytes) or self._harness.room_class.codec == "raw":
            await self.send_frame(value)
        else:
            await self.send_frame(orjson.dumps(value).decode())

    async def send_frame(self, frame: str | bytes) -> None:
        """Send a frame as it is, also one that is no JSON; see :meth:`send`."""
        if not isinstance(frame, str | bytes):
            raise TypeError(f"a frame is str or bytes, not {type(frame).__name__}")
        if not self.is_open:
            raise RuntimeError(f"{self!r} cannot send: its socket is not open")
        await self._harness._take(self, frame)  # noqa: SLF001 - the two are one

    def take(self) -> list[Any]:
        """Return what was received since the last take."""
        taken = self.received[self._taken_count :]
        self._taken_count = len(self.received)
        return taken

    @property
    def is_open(self) -> bool:
        """Whether it is a member of the room whose socket is open."""
        return self.join > 0 and self.closed is None and not self.has_left and not self.moved

    def __repr__(self) -> str:
        how = f"closed {self.closed.code}" if self.closed else "open" if self.is_open else "gone"
        return f"<Client {self.id} {self.name!r} {how}>"
