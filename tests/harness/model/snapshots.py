"""Older states of a room, kept beside it on the server, to roll it back to."""

from dataclasses import dataclass

from harness.model.ghost import PARTS, Ghost
from harness.model.history import History
from innkeeper.channel import Command
from innkeeper.keys import RoomKeys

_KEPT = 4


@dataclass(eq=False)
class Snapshot:
    """A moment of the room: where its keys are kept, what they hold, and the last event accepted."""

    number: int
    ghost: Ghost
    history: History
    accepted: int


class Snapshots:
    """The newest few snapshots of one room; going back to one forgets those taken after it."""

    def __init__(self, keys: RoomKeys) -> None:
        self._live = [getattr(keys, part) for part in (*PARTS, "lock")]
        self.taken: list[Snapshot] = []

    def take(self, ghost: Ghost, history: History) -> tuple[Snapshot, list[Command]]:
        """Add one, and return it with the commands that copy the room's keys."""
        del self.taken[: len(self.taken) - _KEPT + 1]
        used = {snapshot.number for snapshot in self.taken}
        number = next(n for n in range(_KEPT) if n not in used)
        snapshot = Snapshot(number, ghost.saved(), history.saved(), ghost.last_iseq)
        self.taken.append(snapshot)
        kept = self._kept(number)
        return snapshot, [("DEL", *kept), *(("COPY", *pair) for pair in zip(self._live, kept, strict=True))]

    def go_back(self, snapshot: Snapshot) -> list[Command]:
        """Forget later ones, and return the commands that make the room's keys what they were."""
        del self.taken[self.taken.index(snapshot) + 1 :]
        kept = self._kept(snapshot.number)
        return [("DEL", *self._live), *(("COPY", *pair) for pair in zip(kept, self._live, strict=True))]

    def every_key(self) -> list[str]:
        """Return all keys of the room, live and kept."""
        return [*self._live, *(key for number in range(_KEPT) for key in self._kept(number))]

    def _kept(self, number: int) -> list[str]:
        return [f"{key}:was{number}" for key in self._live]
