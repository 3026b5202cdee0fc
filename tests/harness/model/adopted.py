"""The room as it is found, where an act broke the laws and only the promises count."""

from harness.model.ghost import PARTS, Ghost, Output
from harness.model.sessions import Row
from innkeeper.channel import Reply
from innkeeper.wire import InboxEvent, read_inbox_entry


def adopted(found: list[Reply], ttls: list[Reply], *, listening: bool) -> Ghost:
    """Return a ghost that holds what :func:`looks` and :func:`expiry_looks` found."""
    hashes = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in found[:5]]
    meta, state, members, timers, sessions = hashes
    lock, inbox, tail, outlog, log_tail, outbox, dead = found[5:]
    iseq = int(sessions.pop(b"#", b"0"))
    room = Ghost(
        meta, state, members, timers, lock=lock or b"", hash=iseq if found[4] else None,
        at=int(sessions.pop(b"@", b"0")), outbox=outbox, dead=dead, listening=listening,
        expiring=frozenset(part for part, left in zip(PARTS, ttls, strict=True) if left >= 0),
    )  # fmt: skip
    for name, row in sessions.items():
        kind, _, who = name.decode().partition(":")
        words = row.decode().split(" ")[:3]
        if kind == "e":
            room.edges[who] = " ".join(words)
        else:
            room.clients[who] = Row(int(words[0]), int(words[1]), words[2])
    events = [read_inbox_entry(*entry) for entry in reversed(tail)]
    top = events[-1].iseq if events else iseq
    unknown = [InboxEvent(b"", n, b"", b"", b"", b"", 0, 0, b"") for n in range(1, top - len(events) + 1)]
    room.events, room.has_inbox = [*unknown, *events], top > 0
    room.first = min(top - inbox, room.cursor if meta else room.committed_copy) + 1
    room.holes = top - room.first + 1 - inbox
    outputs = [Output(entry_id, fields[1], fields[3], int(fields[5])) for entry_id, fields in reversed(log_tail)]
    room.log = [Output(b"", b"", b"", 0)] * (outlog - len(outputs)) + outputs
    return room
