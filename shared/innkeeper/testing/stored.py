"""What Redis holds of one room, in memory: an inbox, and commits that are refused without the newest token."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from innkeeper.address import Address
from innkeeper.errors import LeaseLost
from innkeeper.functions import Claimed
from innkeeper.turn import DeadEvent, Turn
from innkeeper.wire import InboxEvent


@dataclass(frozen=True)
class Commit:
    """One commit as the room made it: what it consumed and all that it changed, as bytes.

    Attributes:
        events: The inbox entries it consumed; none where only on_sleep did something.
        state_set: Keys of the state it wrote, with their JSON.
        state_del: Keys it deleted.
        members_set: Members it wrote, by connection id.
        members_del: Members that left.
        timers_set: Timers it wrote, by name.
        timers_del: Timers it deleted.
        outputs: What it sent: headers and bodies, in order (``innkeeper.wire``).
        outbox: What it owes to the outside: kind, target, data.
        dead: Events that failed in it.
        is_end: Whether it ended the room (``destroy()``).
    """

    events: tuple[InboxEvent, ...]
    state_set: dict[str, bytes]
    state_del: frozenset[str]
    members_set: dict[str, bytes]
    members_del: frozenset[str]
    timers_set: dict[str, bytes]
    timers_del: frozenset[str]
    outputs: tuple[tuple[bytes, bytes], ...]
    outbox: tuple[tuple[str, str, bytes], ...]
    dead: tuple[DeadEvent, ...]
    is_end: bool

    @property
    def state(self) -> dict[str, Any]:
        """The values of the state that it wrote."""
        return {key: orjson.loads(data) for key, data in self.state_set.items()}

    def to_turn(self) -> Turn:
        """Return it as the turn that it was, for ``innkeeper.functions.commit``."""
        return Turn(
            [event.id for event in self.events], dict(self.state_set), set(self.state_del), dict(self.members_set),
            set(self.members_del), dict(self.timers_set), set(self.timers_del), [], list(self.outbox), list(self.dead),
            list(self.outputs), self.is_end,
        )  # fmt: skip


class StoredRoom:
    """One room as it is stored. Tokens and versions fence as in Redis.

    Attributes:
        commits: All that counted, in order.
        iseq: The number of the last event.
        is_created: Whether its on_create is done.

    Args:
        address: The room.
        state: What an earlier version of the room has stored; None for a room that was never there.
    """

    def __init__(self, address: Address, state: Mapping[str, Any] | None) -> None:
        self.address = address
        self.is_created = state is not None
        self.state = {key: orjson.dumps(value) for key, value in (state or {}).items()}
        self.members: dict[str, bytes] = {}
        self.timers: dict[str, bytes] = {}
        self.outbox: list[tuple[str, str, bytes]] = []
        self.dead: list[DeadEvent] = []
        self.commits: list[Commit] = []
        self.inbox: deque[InboxEvent] = deque()
        self.iseq = 0
        self._token = ""
        self._version = 0
        self._epoch = 0

    def push(self, kind: str, connection: str, data: bytes, *, now_us: int) -> InboxEvent:
        """Append an event to the inbox."""
        self.iseq += 1
        entry_id = b"%d-%d" % (self.iseq, now_us)
        event = InboxEvent(entry_id, self.iseq, kind.encode(), connection.encode(), b"e-test", b"", 0, 0, data)
        self.inbox.append(event)
        return event

    def claim(self, *, now_us: int) -> tuple[Claimed, int]:
        """Make a new owner; return what it starts from, and the version. Commits of the owner before are refused."""
        self._epoch += 1
        self._token = f"{self._epoch}:{self._epoch}"
        return Claimed(
            token=self._token,
            meta={b"created": b"1"} if self.is_created else {},
            state={key.encode(): data for key, data in self.state.items()},
            members={key.encode(): row for key, row in self.members.items()},
            timers={key.encode(): row for key, row in self.timers.items()},
            iseq=self.iseq,
            server_us=now_us,
        ), self._version

    def commit(self, turn: Turn, *, token: str, version: int, created: bool) -> Commit:
        """Make a turn true, all of it or nothing.

        Raises:
            LeaseLost: The token or version is not the newest, or the events are not the next ones.
        """
        if token != self._token:
            raise LeaseLost(str(self.address), "token")
        if version != self._version:
            raise LeaseLost(str(self.address), "version")
        events = tuple(self.inbox)[: len(turn.consumed)]
        if [event.id for event in events] != turn.consumed:
            raise LeaseLost(str(self.address), "input")
        commit = Commit(
            events, dict(turn.state_set), frozenset(turn.state_del), dict(turn.members_set),
            frozenset(turn.members_del), dict(turn.timers_set), frozenset(turn.timers_del), tuple(turn.outputs),
            tuple(turn.outbox), tuple(turn.dead), turn.destroy,
        )  # fmt: skip
        if turn.destroy:
            for rows in (self.state, self.members, self.timers, self.dead):
                rows.clear()
        for stored, changed, deleted in (
            (self.state, commit.state_set, commit.state_del),
            (self.members, commit.members_set, commit.members_del),
            (self.timers, commit.timers_set, commit.timers_del),
        ):
            stored.update(changed)
            for key in deleted:
                stored.pop(key, None)
        self.outbox += commit.outbox
        self.dead += commit.dead
        for _ in events:
            self.inbox.popleft()
        self.is_created = (self.is_created or created) and not turn.destroy
        self._version += 1
        self.commits.append(commit)
        return commit

    def fire(self, *, until_us: int) -> tuple[int, str, bytes] | None:
        """Mark the timer that is due first up to a moment as fired; return when it is due, its name, and its event."""
        due: list[tuple[int, str, dict[str, Any]]] = []
        for name, row in self.timers.items():
            fields = orjson.loads(row)
            if not fields.get("fired") and fields["due"] * 1000 <= until_us:
                due.append((fields["due"] * 1000, name, fields))
        if not due:
            return None
        due_us, name, fields = min(due, key=lambda each: each[:2])
        self.timers[name] = orjson.dumps({**fields, "fired": True})
        return due_us, name, orjson.dumps({"name": name, "id": fields["id"], "due": fields["due"]})
