"""What one turn changes, and how much may go into one: values and arithmetic, no I/O."""

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from innkeeper.wire import InboxEvent, sendable

TURN_EVENTS: Final = 256
TURN_IN_BYTES: Final = 262_144
TURN_OUT_BYTES: Final = 1_048_576
TRIM_EVERY_COMMITS: Final = 64
TRIM_EVERY_BYTES: Final = 65_536
PRUNE_EVERY_COMMITS: Final = 1000
# Outputs of the last two seconds stay in the outlog whatever its caps say: an edge may just be reading them.
KEEP_OUTPUTS_S: Final = 2.0
KEEP_OUTPUTS_LEAST: Final = 8
KEEP_OUTPUTS_MOST: Final = 10_000
_PIECE_S: Final = 0.25


class DeadEvent(NamedTuple):
    """An event put aside: as it stood in the inbox, with what went wrong."""

    id: bytes
    kind: bytes
    connection: bytes
    data: bytes
    error: str
    traceback: str


def dead_event(event: InboxEvent, error: str, traceback: str = "") -> DeadEvent:
    """Return the record of an event that could not be processed."""
    return DeadEvent(event.id, event.kind, event.connection, event.data, sendable(error), sendable(traceback))


class RecentOutputs:
    """Counts the outputs of the last two seconds, and of half a second more at most, by the caller's clock."""

    def __init__(self) -> None:
        self._count = 0
        self._piece = 0  # of them since the last piece ended: one entry a turn would be 40,000 of a busy worker's
        self._piece_ends_s = -inf
        self._pieces: deque[tuple[float, int]] = deque()

    def add(self, count: int, now_s: float) -> None:
        """Take the outputs of a turn."""
        self._count += count
        self._piece += count
        if now_s >= self._piece_ends_s:
            self._end_piece(now_s)

    def _end_piece(self, now_s: float) -> None:
        self._pieces.append((now_s, self._piece))
        self._piece = 0
        self._piece_ends_s = now_s + _PIECE_S
        while self._pieces[0][0] < now_s - KEEP_OUTPUTS_S:
            self._count -= self._pieces.popleft()[1]

    @property
    def keep_count(self) -> int:
        """How many of the newest outputs must stay."""
        return min(max(self._count + 1, KEEP_OUTPUTS_LEAST), KEEP_OUTPUTS_MOST)


@dataclass(slots=True)
class Turn:
    """All that one turn changes, as the commit wants it; empty parts cost nothing there."""

    consumed: list[bytes] = field(default_factory=list)
    state_set: dict[str, bytes] = field(default_factory=dict)
    state_del: set[str] = field(default_factory=set)
    members_set: dict[str, bytes] = field(default_factory=dict)
    members_del: set[str] = field(default_factory=set)
    timers_set: dict[str, bytes] = field(default_factory=dict)
    timers_del: set[str] = field(default_factory=set)
    sessions_closed: list[str] = field(default_factory=list)
    outbox: list[tuple[str, str, bytes]] = field(default_factory=list)
    dead: list[DeadEvent] = field(default_factory=list)
    outputs: list[tuple[bytes, bytes]] = field(default_factory=list)
    destroy: bool = False
    in_bytes: int = 0
    out_bytes: int = 0
    owed_bytes: int = 0

    def clear(self) -> None:
        """Empty it for the next turn, once its commit has been built."""
        self.consumed = []
        self.outputs = []
        self.in_bytes = self.out_bytes = self.owed_bytes = 0
        if not self.changes_nothing:
            self.state_set = {}
            self.state_del = set()
            self.members_set = {}
            self.members_del = set()
            self.timers_set = {}
            self.timers_del = set()
            self.sessions_closed = []
            self.outbox = []
            self.dead = []
        self.destroy = False

    def consume(self, event: InboxEvent) -> None:
        """Count an event as handled by this turn."""
        self.consumed.append(event.id)
        self.in_bytes += len(event.data)

    def change_state(self, changed: dict[str, bytes], deleted: set[str]) -> None:
        """Add one event's changes of state; later ones win."""
        for key in deleted:
            self.state_set.pop(key, None)
            self.state_del.add(key)
        for key, data in changed.items():
            self.state_del.discard(key)
            self.state_set[key] = data

    def change_member(self, connection: str, row: bytes | None) -> None:
        """Add one change of a member; None removes it."""
        if row is None:
            self.members_set.pop(connection, None)
            self.members_del.add(connection)
        else:
            self.members_del.discard(connection)
            self.members_set[connection] = row

    def change_timer(self, name: str, row: bytes | None) -> None:
        """Add one change of a timer; None removes it."""
        if row is None:
            self.timers_set.pop(name, None)
            self.timers_del.add(name)
        else:
            self.timers_del.discard(name)
            self.timers_set[name] = row

    def end_room(self) -> None:
        """Make this the room's last turn: of its changes only outputs, closed sessions and the outbox stay."""
        self.state_set.clear()
        self.state_del.clear()
        self.members_set.clear()
        self.members_del.clear()
        self.timers_set.clear()
        self.timers_del.clear()
        self.dead.clear()
        self.destroy = True

    def show(self, outputs: list[tuple[bytes, bytes]]) -> None:
        """Add one event's outputs, in order."""
        self.outputs += outputs
        for header, body in outputs:
            self.out_bytes += len(header) + len(body)

    def owe(self, effects: list[tuple[str, str, bytes]]) -> None:
        """Add what one event owes to the outside, in order: kind, target, data."""
        self.outbox += effects
        self.owed_bytes += sum(len(data) for _, _, data in effects)

    @property
    def is_full(self) -> bool:
        """Whether the turn should be committed before the next event."""
        return (
            len(self.consumed) >= TURN_EVENTS
            or self.in_bytes >= TURN_IN_BYTES
            or self.out_bytes + self.owed_bytes >= TURN_OUT_BYTES
            or self.destroy
        )

    @property
    def changes_nothing(self) -> bool:
        """Whether there are only consumed events and outputs."""
        return not (
            self.state_set
            or self.state_del
            or self.members_set
            or self.members_del
            or self.dead
            or self.timers_set
            or self.timers_del
            or self.sessions_closed
            or self.outbox
            or self.destroy
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self.consumed or self.outputs) and self.changes_nothing
