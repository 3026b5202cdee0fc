"""The texts that travel through Redis read back as what was written (the Lua side is tested in integration)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innkeeper import wire
from innkeeper.wire import Batch, InboxEvent, parse_id, read_batch, read_inbox_entry, read_news, read_outlog_entry

words = st.from_regex(rb"[A-Za-z0-9_-]{1,20}", fullmatch=True)
numbers = st.integers(0, 2**48)
events = st.builds(
    lambda iseq, micros, kind, connection, edge, session, number, generation, data: InboxEvent(
        b"%d-%d" % (iseq, micros), iseq, kind, connection, edge, session, number, generation, data
    ),
    numbers, numbers, words, words, words, words | st.just(b""), numbers, numbers,
    st.binary(max_size=200),
)  # fmt: skip
headers = st.from_regex(rb"[a-z]{1,6} [*+,0-9a-z-]{1,20}", fullmatch=True)


@given(numbers, numbers)
def test_ids_round_trip(number: int, second: int) -> None:
    """An id written is the id read, and orders as its number."""
    assert parse_id(wire.format_id((number, second))) == (number, second)


@given(st.lists(events, max_size=8))
def test_news_round_trip(sent: list[InboxEvent]) -> None:
    """Events written as push does read back the same, whatever bytes the payloads hold."""
    sent = [event if event.session else event._replace(number=0, generation=0) for event in sent]
    of_session = [(e.session, b"%d" % e.number, b"%d" % e.generation) if e.session else () for e in sent]
    rows = [(e.id, e.edge, b"%d" % len(e.data), e.kind, e.connection) for e in sent]
    index = b"|".join(b" ".join(row + session) for row, session in zip(rows, of_session, strict=True))
    body = index + b"\n" + b"".join(e.data for e in sent) if sent else b""
    assert read_news(body) == sent


def test_an_empty_ring_has_no_events() -> None:
    """An empty body says: look into the inbox; so does one that cannot be read, as another version writes it."""
    assert read_news(b"") == []
    assert read_news(b"5-1795481190857253 text c-1 e-1 - 0 0 2\n{}") == []
    assert read_news(b"5 e-1 2 text c-1\n{}") == []


@given(events)
def test_inbox_entries_round_trip(event: InboxEvent) -> None:
    """An entry's flat fields read back as the event, in any order of fields, unknown ones ignored."""
    pairs = [(b"t", event.kind), (b"c", event.connection), (b"e", event.edge), (b"d", event.data), (b"new", b"x")]
    if event.session:
        pairs += [(b"s", event.session), (b"n", b"%d" % event.number), (b"g", b"%d" % event.generation)]
    else:
        event = event._replace(number=0, generation=0)
    flat = [part for pair in reversed(pairs) for part in pair]
    assert read_inbox_entry(event.id, flat) == event
    assert event.time_us == parse_id(event.id)[1]


@given(words, numbers, numbers, numbers, st.lists(st.tuples(headers, st.binary(max_size=100)), max_size=8))
def test_batches_round_trip(
    mark: bytes, first: int, last: int, cursor: int, outputs: list[tuple[bytes, bytes]]
) -> None:
    """A batch written as commit does reads back the same, bodies with bars and line ends included."""
    index = b"|".join(b"%b|%d" % (header, len(body)) for header, body in outputs)
    body = b"7-9 %b %d %d %d\n%b\n" % (mark, first, last, cursor, index) + b"".join(body for _, body in outputs)
    assert read_batch(body) == Batch(b"7-9", mark, first, last, cursor, outputs)


def test_outlog_entries() -> None:
    """An outlog entry reads back as header and body, its byte count aside."""
    assert read_outlog_entry([b"h", b"text *", b"d", b"\x00", b"b", b"7"]) == (b"text *", b"\x00")


@pytest.mark.parametrize(
    ("made", "header"),
    [
        (wire.output_header(binary=False, address=wire.address_all(())), b"text *"),
        (wire.output_header(binary=True, address=wire.address_all(())), b"binary *"),
        (wire.output_header(binary=False, address=wire.address_all((9, 5))), b"text -5,9"),
        (wire.output_header(binary=True, address=wire.address_only(5)), b"binary +5"),
        (wire.join_output(5, b"c-1"), (b"join 5 c-1", b"")),
        (wire.close_output(5, 4000, "go away"), (b"close +5", b"4000 go away")),
        (wire.refuse_output(b"c-1", 4403, "members only"), (b"refuse c-1", b"4403 members only")),
    ],
)
def test_outputs(made: object, header: object) -> None:
    """Headers are as the module's text says; edges read exactly these."""
    assert made == header
    assert (wire.TEXT_TO_ALL, wire.BINARY_TO_ALL) == (b"text *", b"binary *")


@given(st.integers(1000, 4999), st.text(max_size=40))
def test_closes_round_trip(code: int, reason: str) -> None:
    """Code and reason of a close read back, spaces and all."""
    assert wire.read_close(wire.close_output(1, code, reason)[1]) == (code, reason)
