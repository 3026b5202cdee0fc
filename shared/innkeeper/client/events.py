"""What a client sees happen, in order."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Opened:
    """Connected.

    Attributes:
        resumed: False for a session's first time.
        connection_id: This connection's public id in the room (``conn.id``); a resume keeps it.
    """

    resumed: bool
    connection_id: str


@dataclass(frozen=True, slots=True)
class Message:
    """An output of the room.

    Attributes:
        value: A JSON value, or bytes of a binary message; in raw rooms str or bytes.
        seq: Its number in the room. Numbers grow, with gaps (outputs to others), until a :class:`Resync`.
    """

    value: Any
    seq: int


@dataclass(frozen=True, slots=True)
class Resync:
    """Outputs were missed: what follows is the room's snapshot.

    Attributes:
        new_session: The room knows this client no more and met it anew: the snapshot is ``on_connect``'s. Otherwise
            it is ``on_resync``'s.
    """

    new_session: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """The room has taken this client to another one: what follows is of that, beginning with its ``on_connect``.

    Attributes:
        room: Its address, ``kind/name``.
    """

    room: str


@dataclass(frozen=True, slots=True)
class Down:
    """The connection is gone; the next attempt is made after ``wait_s`` seconds."""

    code: int
    reason: str
    wait_s: float
    attempt: int


@dataclass(frozen=True, slots=True)
class Problem:
    """The room could not do something.

    Attributes:
        code: ``handler_failed``, ``handler_timeout``, ``invalid_json``, ``room_unavailable``, ``out_of_order``; or
            ``not_json``: an output that is none, in a client told that the room's codec is JSON.
        number: The number of the message that this is about, or None.
        detail: What else the room said.
    """

    code: str
    number: int | None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Closed:
    """The end: this client does not come back by itself."""

    code: int
    reason: str


Event = Opened | Message | Resync | Moved | Down | Problem | Closed
