"""How much a worker has to do: the row that it publishes every second in ``inn:load``, and the reading of all rows."""

from collections.abc import Mapping

import msgspec

FRESH_MS = 3_500
"""A row older than this says nothing any more: its worker is cut off, or gone."""

FORGOTTEN_MS = 60_000
"""A row older than this is deleted by whoever reads it."""


class Load(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One worker's row.

    Attributes:
        at_ms: Server ms when it was measured.
        rooms: Rooms that it owns or is about to own.
        cpu: Share of one core that its process used in the last seconds, 1 being all of it.
        loop_lag_ms: The latest that its event loop came to something that was due, in the last second.
        events_s: Events a second of all its rooms, of the last seconds.
        kinds: The kinds that it serves.
        max_rooms: It takes no more; 0: no limit.
        rebalance: Whether it gives rooms to others and gets rooms from others.
        draining: It hands all its rooms over and ends.
        slow: Of rooms whose hook has waited for more than a second, the longest ones: the number and kind of its event,
            and since which server ms.
    """

    at_ms: int
    rooms: int
    cpu: float
    loop_lag_ms: float
    events_s: float
    kinds: tuple[str, ...]
    max_rooms: int = 0
    rebalance: bool = True
    draining: bool = False
    slow: dict[str, tuple[int, str, int]] = {}

    @property
    def places(self) -> float:
        """How many rooms more it would take."""
        return self.max_rooms - self.rooms if self.max_rooms else float("inf")


def write_load(load: Load) -> bytes:
    """Return a row as it stands in ``inn:load``."""
    return msgspec.json.encode(load)


def read_loads(rows: Mapping[bytes, bytes]) -> dict[str, Load]:
    """Return the rows of ``inn:load`` by incarnation; one that cannot be read (of another version) is left out."""
    loads = {}
    for name, row in rows.items():
        try:
            loads[name.decode()] = msgspec.json.decode(row, type=Load)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return loads
