"""What went wrong in a room: compares what each client got with what was sent and with the others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.client import FIRST_INDEX, RoomLoad, counter_of


@dataclass
class Faults:
    """Counts over all clients of all rooms.

    Attributes:
        lost: Deliveries that never came.
        duplicates: Deliveries that came again.
        out_of_order: Deliveries of a sender after a later one of the same sender.
        other_order: Clients that saw the messages of their room in another order than the others.
        wrong_steps: Deliveries of a counter whose number was not the last one + 1.
        closed: Connections the server closed.
    """

    lost: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    other_order: int = 0
    wrong_steps: int = 0
    closed: int = 0

    def add(self, other: "Faults") -> None:
        """Add another count to this one."""
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)


def check_rooms(rooms: Iterable[RoomLoad]) -> Faults:
    """Return the faults of all rooms; call it when nothing is under way any more."""
    total = Faults()
    for room in rooms:
        total.add(_check_room(room))
    return total


def _check_room(room: RoomLoad) -> Faults:
    sent_count = sum(client.sent_count for client in room.clients)
    known = set(room.log)
    followed: dict[int, Faults] = {}
    total = Faults()
    for client in room.clients:
        if client.own is not None:
            total.add(_check_sequence(client.own, sent_count, client.probe_n))
            ours = [payload for payload in dict.fromkeys(client.own) if payload in known]
            got = set(ours)
            total.other_order += ours != [payload for payload in dict.fromkeys(room.log) if payload in got]
        else:
            if client.position not in followed:
                sequence = room.log[: client.position]
                followed[client.position] = _check_sequence(sequence, sent_count, client.probe_n)
            total.add(followed[client.position])
        total.closed += client.closed_with is not None
    return total


def _check_sequence(sequence: Sequence[bytes], sent_count: int, first_n: int) -> Faults:
    distinct_count = len(set(sequence))
    faults = Faults(lost=sent_count - distinct_count, duplicates=len(sequence) - distinct_count)
    last_index: dict[bytes, int] = {}
    last_n = first_n
    for payload in sequence:
        at = payload.index(b'"c":') + 4
        sender, index = payload[at : at + 6], int(payload[at + 11 : at + 21])
        faults.out_of_order += index < last_index.get(sender, FIRST_INDEX)
        last_index[sender] = index
        if first_n:  # the probes were numbered, so these must be
            n = counter_of(payload)
            faults.wrong_steps += n != last_n + 1
            last_n = n
    return faults
