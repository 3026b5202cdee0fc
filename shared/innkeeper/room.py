"""The class users write: a room, fed one event at a time, the only one allowed to change its state."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from innkeeper import codec as codecs
from innkeeper import wire
from innkeeper.address import KIND_PATTERN, Address
from innkeeper.connection import Connection, User
from innkeeper.errors import OutputInvalid, TurnClosed
from innkeeper.state import State
from innkeeper.turn import TURN_OUT_BYTES


class Event(NamedTuple):
    """What ``on_error`` learns of the event that failed."""

    id: str
    kind: str
    connection: Connection | None
    data: bytes


class Connections:
    """All members of a room, in the order they joined; iterate, ``len()``, ``get(id)``."""

    def __init__(self, members: Mapping[str, Connection]) -> None:
        self._members = members

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, connection: object) -> bool:
        return isinstance(connection, Connection) and self._members.get(connection.id) is connection

    def get(self, connection_id: str) -> Connection | None:
        """Return the member with this id, or None."""
        return self._members.get(connection_id)


class RoomContext:
    """What a room's methods work on: its state, its members, and what the running event has asked for so far."""

    def __init__(self, address: Address, codec_name: str, state: State) -> None:
        self.address = address
        self.codec = codec_name
        self.state = state
        self.members: dict[str, Connection] = {}
        self.outputs: list[tuple[bytes, bytes]] = []
        self.touched: set[Connection] = set()
        self.sealed = ""

    def check_open(self) -> None:
        """Raise TurnClosed where the running hook's turn was cut."""
        if self.sealed:
            raise TurnClosed(f"room {self.address}: {self.sealed}")

    def add(self, output: tuple[bytes, bytes]) -> None:
        """Take an output of the running event."""
        self.check_open()
        self.outputs.append(output)

    def send(self, value: Any, address: bytes) -> None:
        """Encode a value and take it as an output to an address."""
        binary, payload = self._encode(value)
        self.outputs.append((wire.output_header(binary=binary, address=address), payload))

    def send_to_all(self, value: Any) -> None:
        """Encode a value and take it as an output to everybody."""
        binary, payload = self._encode(value)
        self.outputs.append((wire.BINARY_TO_ALL if binary else wire.TEXT_TO_ALL, payload))

    def _encode(self, value: Any) -> tuple[bool, bytes]:
        self.check_open()
        binary, payload = codecs.encode(self.codec, value)
        if len(payload) > TURN_OUT_BYTES:
            raise OutputInvalid(f"an output of {len(payload)} bytes: at most {TURN_OUT_BYTES}")
        return binary, payload


class Room:
    """Subclass it and define the hooks you need; each room name is one live instance, wherever its worker is.

    Hooks may be sync or async; a sync hook must not block. What a hook asks for (state, broadcasts, closes) takes
    effect in one commit or, if the hook raises, not at all. Attributes you set yourself live as long as the instance.

    Attributes:
        kind: The first part of the address; the class's name in lower case unless set.
        codec: ``"json"`` (values; bytes stay binary frames) or ``"raw"`` (str and bytes as they came).
        message_bytes: The largest message taken from a client (64 KiB; at most 1 MiB).
        backlog_count: Messages and joins that may wait for this room before senders are slowed down.
        state_bytes: The largest state (1 MiB), keys and JSON values together.
        handler_s: Seconds an async hook may take before it is cut.
        idle_s: Seconds without events after which the instance is put to sleep; sockets stay.
    """

    kind: ClassVar[str] = ""
    codec: ClassVar[codecs.Codec] = "json"
    message_bytes: ClassVar[int] = 65_536
    backlog_count: ClassVar[int] = 10_000
    state_bytes: ClassVar[int] = 1_048_576
    handler_s: ClassVar[float] = 30.0
    idle_s: ClassVar[float] = 10.0

    _context: RoomContext

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" not in cls.__dict__:
            cls.kind = re.sub(r"[^a-z0-9_-]", "", cls.__name__.lower()).lstrip("_-0123456789")
        if not KIND_PATTERN.fullmatch(cls.kind):
            raise ValueError(f"{cls.__name__}.kind = {cls.kind!r}: it must match [a-z][a-z0-9_-]{{0,31}}")
        if cls.codec not in ("json", "raw"):
            raise ValueError(f'{cls.__name__}.codec = {cls.codec!r}: "json" or "raw"')
        if not 1 <= cls.message_bytes <= 1_048_576:  # noqa: PLR2004 - the documented hard cap
            raise ValueError(f"{cls.__name__}.message_bytes = {cls.message_bytes}: 1 to 1,048,576")
        backlog_count: object = cls.backlog_count  # users write what they like
        if not isinstance(backlog_count, int) or backlog_count < 1:
            raise ValueError(f"{cls.__name__}.backlog_count = {backlog_count!r}: a whole number from 1")

    # --- what the framework calls ---------------------------------------------------------------------------------
    def on_create(self) -> Any:
        """Run once, before the room's first event ever; what it does is committed with that event."""

    def on_start(self) -> Any:
        """Run each time an instance is made, before any event."""

    def on_connect(self, conn: Connection) -> Any:
        """Run when a connection joins; raising refuses it (close code 4403), then it was never a member."""

    def on_message(self, conn: Connection, message: Any) -> Any:
        """Run for each message of a member."""

    def on_leave(self, conn: Connection) -> Any:
        """Run exactly once for each member that is gone, after it was taken out of ``self.connections``."""

    def on_error(self, error: Exception, event: Event) -> Any:
        """Run after a hook raised and its event was undone."""

    # --- what you call --------------------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """The room's own part of its address."""
        return self._context.address.name

    @property
    def state(self) -> State:
        """The durable state: a mapping of text to JSON values, written key by key with the commit."""
        self._context.check_open()
        return self._context.state

    @property
    def connections(self) -> Connections:
        """The members."""
        return Connections(self._context.members)

    def broadcast(self, value: Any, *, exclude: Connection | Iterable[Connection] = ()) -> None:
        """Send to all members, in one order that everybody sees; takes effect in the commit.

        Args:
            value: What the codec can send.
            exclude: A member, or several, that do not get it.

        Raises:
            OutputInvalid: The room's codec cannot send this value.
        """
        if exclude == ():
            self._context.send_to_all(value)
        else:
            excluded = (exclude,) if isinstance(exclude, Connection) else exclude
            self._context.send(value, wire.address_all(conn.join for conn in excluded))


__all__ = ["Connection", "Connections", "Event", "Room", "RoomContext", "User"]
