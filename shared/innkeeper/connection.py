"""One member of a room, as hooks see it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from innkeeper import wire
from innkeeper.address import parse_address
from innkeeper.compact import compact
from innkeeper.errors import StateInvalid, StateTooLarge
from innkeeper.state import encode, to_json
from innkeeper.tags import Tags

if TYPE_CHECKING:
    from innkeeper.context import RoomContext

_ROW_BYTES = 16_384
_REASON_BYTES = 120  # RFC 6455 leaves 123 for the reason of a close frame


class User(NamedTuple):
    """Who a connection belongs to. Without authentication both come from the client and prove nothing."""

    id: str
    name: str


class Connection:
    """A socket that joined the room. It outlives workers: after a takeover an equal object stands for it.

    Attributes:
        id: Public and stable, for clients of ``innkeeper.v1`` over all sockets of a session; not a secret.
        user: Who it belongs to.
        is_connected: False between ``on_drop`` and ``on_resume`` (or ``on_leave``); always True without a session.
    """

    __slots__ = (
        "_context",
        "_parting",
        "_row",
        "_state",
        "_tags",
        "edge",
        "generation",
        "id",
        "is_connected",
        "join",
        "session",
        "user",
    )

    def __init__(
        self,
        context: "RoomContext",
        connection_id: str,
        *,
        join: int,
        edge: str,
        user: User,
        session: str,
        generation: int = 0,
    ) -> None:
        self._context = context
        self.id = connection_id
        self.user = user
        self.join = join
        self.edge = edge
        self.session = session
        self.generation = generation
        self.is_connected = True
        self._parting: tuple[int, str] | str | None = None
        self._state: Any = None
        self._tags = Tags()
        self._row = b""

    @property
    def state(self) -> Any:
        """A small durable value of this connection's own: None at first, any JSON; nested changes are noticed."""
        self._context.check_open()
        self._context.touched.add(self)
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        self._context.check_open()
        self._context.touched.add(self)
        self._state = value

    @property
    def tags(self) -> Tags:
        """Its tags: a durable set, to change in place; see ``broadcast(tags=)`` and ``get_connections(tag)``."""
        self._context.check_open()
        self._context.touched.add(self)
        return self._tags

    @tags.setter
    def tags(self, tags: Iterable[str]) -> None:
        if isinstance(tags, str):
            raise TypeError(f"conn.tags = {tags!r}: it is a set of texts, one text would be a set of its letters")
        self._context.check_open()
        self._context.touched.add(self)
        self._tags = Tags(tags)

    def has_tag(self, tag: str) -> bool:
        """Return whether it has a tag."""
        return tag in self._tags

    def send(self, value: Any) -> None:
        """Send to this connection alone; takes effect in the commit.

        Raises:
            OutputInvalid: The room's codec cannot send this value.
        """
        self._context.send(value, wire.address_only(self.join))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket, in order after what was sent before; ``on_leave`` follows as for every leave.

        Args:
            code: 1000, or 3000-4999. Clients of ours come back by themselves after 4500-4999 only.
            reason: At most 120 bytes of UTF-8.
        """
        if code != 1000 and not 3000 <= code <= 4999:  # noqa: PLR2004 - RFC 6455's ranges
            raise ValueError(f"close code {code}: use 1000 or 3000-4999")
        if len(reason.encode()) > _REASON_BYTES:
            raise ValueError(f"close reason of {len(reason.encode())} bytes: at most {_REASON_BYTES}")
        self._context.add(wire.close_output(self.join, code, reason))
        if self.session:  # its socket may be gone just now: then the next one is closed
            self._context.touched.add(self)
            self._parting = (code, reason)

    @property
    def parting(self) -> tuple[int, str] | str | None:
        """What the room has done with it at last: closed it (code and reason), moved it (where); for sessions only."""
        return self._parting

    def move(self, target: str) -> None:
        """Take the socket to another room (``kind/name``) without closing it; takes effect in the commit.

        Here ``on_leave`` follows as for every leave, there the same socket joins. What its client sends meanwhile goes
        to the other room. A client of innkeeper.v1 begins a new session there, so its ``conn.id`` is another one.

        Raises:
            InvalidAddress: The target is no address.
        """
        address = str(parse_address(target))
        self._context.add(wire.move_output(self.join, address))
        if self.session:  # its socket may be gone just now: then it moves when it is back
            self._context.touched.add(self)
            self._parting = address

    def __repr__(self) -> str:
        return f"<Connection {self.id} {self.user.name!r} in {self._context.address}>"

    def changed_row(self) -> bytes | None:
        """Return the member's row if it differs from the one stored, else None; :meth:`settle` takes it as stored.

        Raises:
            StateInvalid: ``conn.state`` is not JSON.
            StateTooLarge: It would take more than 16 KiB.
        """
        row = self.to_row()
        if len(row) > _ROW_BYTES:
            raise StateTooLarge(f"conn.state of {self.id}, tags included, is over {_ROW_BYTES} bytes: use self.state")
        return None if row == self._row else row

    def settle(self, row: bytes) -> None:
        """Take a row as stored."""
        self._row = compact(row)

    def undo(self) -> None:
        """Restore the state as stored."""
        fields = orjson.loads(self._row) if self._row else {}
        self._state = fields.get("state")
        self._tags = Tags(fields.get("tags", ()))
        self._parting = _parting(fields)

    def to_row(self) -> bytes:
        """Return the row of ``members``: join iseq, edge, session, user, state."""
        tags = self._tags
        if any(not isinstance(tag, str) for tag in tags):
            raise StateInvalid(f"conn.tags of {self.id}: tags are text")
        state = self._state
        return to_json(
            {
                "join": self.join,
                "edge": self.edge,
                "session": self.session,
                "user": list(self.user),
                "state": None if state is None else orjson.Fragment(encode(state, f"conn.state of {self.id}")),
                **({"tags": sorted(tags)} if tags else {}),
                **({"gen": self.generation} if self.session else {}),
                **({} if self.is_connected else {"up": False}),
                **({"move" if isinstance(self._parting, str) else "close": self._parting} if self._parting else {}),
            },
            f"conn.state of {self.id}",
        )

    @classmethod
    def from_row(cls, context: "RoomContext", connection_id: str, row: bytes) -> "Connection":
        """Return the connection that a row of ``members`` describes."""
        fields = orjson.loads(row)
        connection = cls(
            context,
            connection_id,
            join=fields["join"],
            edge=fields["edge"],
            user=User(*fields["user"]),
            session=fields.get("session", ""),
            generation=fields.get("gen", 0),
        )
        connection.is_connected = fields.get("up", True)
        connection._parting = _parting(fields)
        connection._state = fields["state"]
        connection._tags = Tags(fields.get("tags", ()))
        connection._row = row
        return connection


def _parting(fields: dict[str, Any]) -> tuple[int, str] | str | None:
    close, move = fields.get("close"), fields.get("move")
    return (close[0], close[1]) if close else move
