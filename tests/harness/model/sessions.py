"""What becomes of each event of a push, from the tables of docs/protocol.md."""

from collections.abc import Sequence
from typing import NamedTuple

from innkeeper.functions import PushEvent
from innkeeper.wire import InboxEvent

_CAPPED = frozenset({"join", "text", "binary", "request", "post"})


class Row(NamedTuple):
    """A session row: last message number, generation, up, down or closed, and the data of the leave that closed it."""

    last: int
    generation: int
    state: str
    moved: str = ""


def _letter(row: Row | None, event: PushEvent) -> tuple[str, Row | None]:
    """Return the letter of a session's event and the row if it is accepted: the table of the session row."""
    kind, generation = event.kind, event.generation
    if row is None:
        return ("a", Row(0, generation, "up")) if kind == "join" else ("u", None)
    letter, after = "a", row
    if row.state == "closed":
        letter = "d" if kind == "leave" else "c"
    elif kind in ("join", "resume"):
        letter = "a" if generation > row.generation else "o"
        after = Row(row.last, generation, "up")
    elif kind in ("drop", "leave"):
        is_again = kind == "drop" and row.state == "down" and generation == row.generation
        letter = "o" if generation < row.generation else "d" if is_again else "a"
        after = Row(row.last, generation, "down")
        if kind == "leave":
            after = Row(row.last, generation, "closed", event.data.decode())
    elif generation < row.generation:
        letter = "o"
    elif kind == "resync":
        after = Row(row.last, generation, "up")
    elif event.number == row.last + 1:
        after = row._replace(last=event.number)
    else:
        letter = "d" if event.number <= row.last else "g"
    return letter, after if letter == "a" else None


def letters_of(
    pushed: Sequence[PushEvent], clients: dict[str, Row], edge: bytes, start: int, busy_at: int, *, absent: bool
) -> tuple[str, list[InboxEvent], dict[str, Row]]:
    """Return the letters of a new batch, the events it appends (their ids not yet known) and the rows it touches."""
    letters, events, busy = "", list[InboxEvent](), False
    rows: dict[str, Row] = {}
    for event in pushed:
        letter, kind, row = "a", event.kind, None
        if event.session:
            before = rows.get(event.session, clients.get(event.session))
            letter, row = _letter(before, event)
            if letter == "g" and busy:
                letter = "b"
            if kind == "join" and before is not None:
                kind = "resume"
        elif absent and not events and kind == "leave":
            letter = "u"
        if letter == "a" and kind in _CAPPED and (busy or start + len(events) >= busy_at):
            letter, busy = "b", True
        letters += letter
        if letter == "a":
            if row is not None:
                rows[event.session] = row
            iseq = start + len(events) + 1
            session = (event.session.encode(), event.number, event.generation) if event.session else (b"", 0, 0)
            events.append(InboxEvent(b"", iseq, kind.encode(), event.connection.encode(), edge, *session, event.data))
    return letters, events, rows
