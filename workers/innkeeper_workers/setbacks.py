"""Events on which the task of a room fails again and again, though no hook did: they are put aside."""

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from innkeeper.activation import summary_of
from innkeeper.errors import LeaseLost, RedisReplied, RedisUnavailable

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper_workers.owner import Owner

FAILURES: Final = 3
"""How often a room's task may fail on one event in one worker."""

_TRACE_LINES = 50
# What says nothing about an event: the room is somebody else's, Redis refused, or the worker must end.
_NO_FAULT = (LeaseLost, RedisReplied, RedisUnavailable, MemoryError)


@dataclass(slots=True)
class _Setback:
    event_id: bytes
    failures: int
    read_iseq: int


class Setbacks:
    """What one worker remembers of rooms whose tasks have failed.

    What a task fails on may be any event of its turn. So the next task runs the events read until then one by one: the
    one that is to blame is known then.
    """

    def __init__(self) -> None:
        self._rooms: dict[Address, _Setback] = {}

    def is_alone(self, address: "Address", iseq: int) -> bool:
        """Return whether a room's event has to have a turn of its own."""
        setback = self._rooms.get(address)
        if setback is None:
            return False
        if iseq > setback.read_iseq:
            del self._rooms[address]
            return False
        return True

    def ended(self, owner: "Owner", error: BaseException | None) -> dict[bytes, str] | None:
        """Hear that a room's task has ended.

        Returns:
            None where it did not fail on an event. Else the room is claimed anew, and this is what to put aside then:
            the event by its id, with the error and below it the traceback, once it has failed often enough.
        """
        event, before = owner.unsettled, self._rooms.pop(owner.address, None)
        if event is None or error is None or isinstance(error, _NO_FAULT):
            return None
        failures = before.failures + 1 if before is not None and before.event_id == event.id else 1
        read_iseq = max(owner.read_iseq, before.read_iseq if before is not None else 0)
        self._rooms[owner.address] = _Setback(event.id, failures, read_iseq)
        return {event.id: _told(error, failures)} if failures >= FAILURES else {}


def _told(error: BaseException, failures: int) -> str:
    lines = "".join(traceback.format_exception(error)).splitlines(keepends=True)[-_TRACE_LINES:]
    return f"the room failed on it {failures} times: {' '.join(summary_of(error).split())}\n{''.join(lines)}"
