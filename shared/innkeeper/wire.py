"""The texts that travel through Redis, as values: inbox entries, the bell's news, outputs and published batches.

Pure: no I/O, no clock. The Lua acts write these forms; this module reads them (and builds what workers write).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

# A NamedTuple's own constructor takes three times as long as this; it counts where every message makes one.
_new = tuple.__new__

Live = TypeVar("Live")

# An id of a stream, as (number, second part): iseq and µs in the inbox, oseq and mark in the outlog.
StreamId = tuple[int, int]


def parse_id(text: bytes) -> StreamId:
    """Return an id written ``number-number``."""
    number, _, second = text.partition(b"-")
    return int(number), int(second)


def format_id(stream_id: StreamId) -> bytes:
    """Return an id as Redis writes it."""
    return b"%d-%d" % stream_id


def sendable(text: str) -> str:
    """Return a text as UTF-8 can write it: what it cannot (lone surrogates, out of JSON or file names) is escaped."""
    return text.encode(errors="backslashreplace").decode()


class InboxEvent(NamedTuple):
    """One event as it stands in an inbox; id is ``iseq-server µs``, number and generation count in sessions only."""

    id: bytes
    iseq: int
    kind: bytes
    connection: bytes
    edge: bytes
    session: bytes
    number: int
    generation: int
    data: bytes

    @property
    def time_us(self) -> int:
        """The server's time when the event was accepted, in µs."""
        return parse_id(self.id)[1]


PROGRAM = b"x-"
"""How the source of what a program (no room, no edge) sends begins."""

_NEWS_WORDS = 5
_NO_SESSION = (b"", 0, 0)


def read_news(body: bytes) -> list[InboxEvent]:
    """Return the events that a bell carries; none means: look into the inbox, as where another version wrote them."""
    if not body:
        return []
    try:
        return _read_news(body)
    except ValueError:
        return []


def _read_news(body: bytes) -> list[InboxEvent]:
    index, _, data = body.partition(b"\n")
    events, at = [], 0
    for words in index.split(b"|"):
        parts = words.split(b" ")
        event_id, edge, size, kind, connection = parts[:_NEWS_WORDS]
        session, number, generation = parts[_NEWS_WORDS:] or _NO_SESSION
        iseq = int(event_id[: event_id.index(b"-")])
        end = at + int(size)
        event = (event_id, iseq, kind, connection, edge, session, int(number), int(generation), data[at:end])
        events.append(_new(InboxEvent, event))
        at = end
    return events


def read_inbox_entry(entry_id: bytes, fields: Sequence[bytes]) -> InboxEvent:
    """Return one entry of XRANGE on an inbox (id and flat fields)."""
    row = dict(zip(fields[::2], fields[1::2], strict=True))
    return InboxEvent(
        entry_id, int(entry_id.partition(b"-")[0]), row.get(b"t", b""), row.get(b"c", b""), row.get(b"e", b""),
        row.get(b"s", b""), int(row.get(b"n", 0)), int(row.get(b"g", 0)), row.get(b"d", b""),
    )  # fmt: skip


# --- outputs -----------------------------------------------------------------------------------------------------
# An output is (header, body). The header is "verb address": "text *" to all, "text -5,9" to all but the joins 5 and
# 9, "text +5" to join 5 alone; verbs text, binary and close ("close +5", body "4000 reason"). "join 5 c1" says that
# connection c1 is live as join 5; "refuse c1" that it is not (body as close); "answer q1" answers request q1. Of
# sessions "join 5 c1 2" names the generation too, "join 5 c1 3 back" a resume, "resync 5 c1 3" the point from which
# that connection receives anew; "error *" and "error +5" are frames of errors, which sessions get apart from the room's
# own outputs.

TEXT_TO_ALL = b"text *"
BINARY_TO_ALL = b"binary *"
ERROR_TO_ALL = b"error *"


def address_all(excluded: Iterable[int]) -> bytes:
    """Return the address of everybody but the joins named."""
    numbers = ",".join(map(str, sorted(excluded)))
    return f"-{numbers}".encode() if numbers else b"*"


def address_only(*joins: int) -> bytes:
    """Return the address of these joins, of one at least."""
    return b"+" + b",".join([b"%d" % join for join in joins])


def is_addressed(address: bytes, join: int) -> bool:
    """Return whether an output's address means this join."""
    if address == b"*":
        return True
    named = b"%d" % join in address[1:].split(b",")
    return named if address[:1] == b"+" else not named


def addressed(address: bytes, live: Mapping[int, Live]) -> list[Live]:
    """Return those of the live, by their joins, that an output's address means."""
    if address[:1] == b"+":
        found = (live.get(int(number)) for number in address[1:].split(b","))
        return [member for member in found if member is not None]
    excluded = {int(number) for number in address[1:].split(b",")} if address[:1] == b"-" else set()
    return [member for join, member in live.items() if join not in excluded]


def output_header(*, binary: bool, address: bytes) -> bytes:
    """Return the header of a frame that goes to an address."""
    return (b"binary " if binary else b"text ") + address


def error_header(address: bytes) -> bytes:
    """Return the header of an error frame that goes to an address."""
    return b"error " + address


def join_output(join: int, connection: bytes, generation: int = 0) -> tuple[bytes, bytes]:
    """Return the mark from which on a connection receives; ``generation`` is that of a session, 0 without."""
    return (
        b"join %d %b %d" % (join, connection, generation) if generation else b"join %d %b" % (join, connection)
    ), b""


def resume_output(join: int, connection: bytes, generation: int) -> tuple[bytes, bytes]:
    """Return the mark of a session that came back: it receives what it has missed, and all from here on."""
    return b"join %d %b %d back" % (join, connection, generation), b""


def resync_output(join: int, connection: bytes, generation: int) -> tuple[bytes, bytes]:
    """Return the mark from which on a session receives anew, because its past cannot be had."""
    return b"resync %d %b %d" % (join, connection, generation), b""


def move_output(join: int, target: str) -> tuple[bytes, bytes]:
    """Return the order to take the socket of one join to another room, ``kind/name``."""
    return b"move +%d" % join, target.encode()


def close_output(join: int, code: int, reason: str) -> tuple[bytes, bytes]:
    """Return the order to close the socket of one join."""
    return b"close +%d" % join, f"{code} {reason}".encode()


def refuse_output(connection: bytes, code: int, reason: str, generation: int = 0) -> tuple[bytes, bytes]:
    """Return the order to close a socket whose join, or whose session's resume, was refused."""
    name = b"%b %d" % (connection, generation) if generation else connection
    return b"refuse " + name, f"{code} {reason}".encode()


def answer_output(request: bytes, answer: bytes) -> tuple[bytes, bytes]:
    """Return the answer to a request; it is for whoever waits for that id."""
    return b"answer " + request, answer


def read_close(body: bytes) -> tuple[int, str]:
    """Return code and reason from the body of a close or refuse."""
    code, _, reason = body.partition(b" ")
    return int(code), reason.decode()


class Batch(NamedTuple):
    """What one commit published (or a part of it): the outputs first … last, and the id of the one before them.

    Outputs missing although first <= last means: too large for pub/sub, read them in the outlog.
    """

    previous: bytes
    mark: bytes
    first: int
    last: int
    cursor: int
    outputs: list[tuple[bytes, bytes]]


def read_batch(body: bytes) -> Batch:
    """Return a published message as a batch."""
    line, index, data = body.split(b"\n", 2)
    previous, mark, first, last, cursor = line.split(b" ")
    outputs: list[tuple[bytes, bytes]] = []
    words, at = index.split(b"|"), 0
    if len(words) == 2:  # noqa: PLR2004 - one output, so all the data is its
        outputs.append((words[0], data))
    elif index:
        for header, size in zip(words[::2], words[1::2], strict=True):
            end = at + int(size)
            outputs.append((header, data[at:end]))
            at = end
    return _new(Batch, (previous, mark, int(first), int(last), int(cursor), outputs))


def read_outlog_entry(fields: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the output in one outlog entry (flat fields)."""
    row = dict(zip(fields[::2], fields[1::2], strict=True))
    return row[b"h"], row[b"d"]
