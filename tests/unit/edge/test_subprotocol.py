"""The frames of innkeeper.v1 as values: who a hello is, which message a frame is, and what a replay shows."""

import re
from typing import Any

import orjson
import pytest

from innkeeper import wire
from innkeeper_edge import subprotocol
from innkeeper_edge.frames import encode_binary, encode_text
from innkeeper_edge.subprotocol import Hello, read_hello, read_message

SECRET = "0123456789abcdef" * 2


def hello(**fields: Any) -> bytes:
    """Return a hello with some fields changed."""
    return b"!" + orjson.dumps({"hello": {"secret": SECRET, "generation": 1, "last": None} | fields})


def known(payload: bytes, user_id: str = "") -> Hello:
    """Return a hello that must be one."""
    found = read_hello(payload, user_id)
    assert found is not None
    return found


def test_a_session_is_its_secret_and_its_user() -> None:
    """The id is a hash of both: a stolen secret in another user's hands is another session; none shows the secret."""
    mine = known(hello(), "ann")
    assert re.fullmatch("[0-9a-f]{32}", mine.session)
    assert re.fullmatch("c-[0-9a-f]{12}", mine.connection)
    assert known(hello(generation=7, last="5-6"), "ann")[:2] == mine[:2]
    assert known(hello(generation=7, last="5-6"), "ann")[2:] == (7, (5, 6))
    thief, other = known(hello(), "eve"), known(hello(secret="f" * 32), "ann")
    assert len({mine.session, thief.session, other.session}) == 3
    assert len({mine.connection, thief.connection, other.connection}) == 3
    assert SECRET[:8] not in mine.session


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"!",
        b"hello",
        b"!null",
        b"![]",
        b'!{"hello":null}',
        b'!{"ping":1}',
        b'!{"hello":{}} x',
        b"!\xff",
        hello(secret=1),
        hello(secret=SECRET.upper()),
        hello(secret=SECRET + "0"),
        hello(generation=0),
        hello(generation=True),
        hello(generation=1.5),
        hello(generation="1"),
        hello(generation=2**53),
        hello(last=5),
        hello(last="5"),
        hello(last="5-"),
        hello(last="05-6"),
        hello(last="5-6-7"),
        hello(last="-5-6"),
        hello(last="99999999999999999-1"),
        hello(last=""),
    ],
)
def test_what_is_no_hello(payload: bytes) -> None:
    """Anything but a secret of 32 hex digits, a whole generation from 1, and an outlog id or null is refused."""
    assert read_hello(payload, "") is None


def test_a_hello_may_say_more() -> None:
    """Fields of a newer client are no error."""
    assert read_hello(hello(new=1), "") == read_hello(hello(), "")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"1 x", (1, b"x")),
        (b"12  x y", (12, b" x y")),
        (b"3 ", (3, b"")),
        (b"1", None),
        (b"0 x", None),
        (b"01 x", None),
        (b"-1 x", None),
        (b" 1 x", None),
        (b"x 1", None),
        (b"", None),
        (b'!{"hello":{}}', None),
        (b"12345678901234567 x", None),
    ],
)
def test_text_messages(payload: bytes, message: tuple[int, bytes] | None) -> None:
    """A number from 1 without leading zeros, one blank, the payload as it is."""
    assert read_message(payload, is_text=True) == message


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\0\0\0\0\0\0\1\2\xff", (258, b"\xff")),
        (b"\0\0\0\0\0\0\0\1", (1, b"")),
        (b"\0\0\0\0\0\0\0\0x", None),
        (b"\0\0\0\1", None),
        (b"", None),
        (b"\xff" * 9, None),
    ],
)
def test_binary_messages(payload: bytes, message: tuple[int, bytes] | None) -> None:
    """Eight bytes of number, big-endian and from 1, then the payload."""
    assert read_message(payload, is_text=False) == message


def test_frames_down() -> None:
    """Outputs carry their number, controls begin with an exclamation mark, and an error carries its place."""
    assert subprotocol.text_frame(7, b'{"a":1}') == encode_text(b'7 {"a":1}')
    assert subprotocol.binary_frame(258, b"x") == encode_binary(b"\0\0\0\0\0\0\1\2x")
    assert subprotocol.control(ack=5, applied=4) == encode_text(b'!{"ack":5,"applied":4}')
    assert subprotocol.error_frame((7, 9), b'{"error":"x"}') == encode_text(b'!{"error":"x","at":"7-9"}')


Entry = tuple[bytes, list[bytes]]


def log(*outputs: tuple[bytes, bytes], first: int = 5, marks: dict[int, int] | None = None) -> list[Entry]:
    """Return outlog entries from a number on, of mark 9 unless said otherwise."""
    return [
        (b"%d-%d" % (n, (marks or {}).get(n, 9)), [b"h", header, b"d", body, b"b", b"0"])
        for n, (header, body) in enumerate(outputs, first)
    ]


BACK = wire.resume_output(3, b"c-x", 2)
JOINED = wire.join_output(3, b"c-x", 1)


def test_a_replay_shows_what_was_addressed() -> None:
    """From after the last id to the mark: what is for all, for this join, or not for others; other marks included."""
    entries = log(
        (b"text *", b"seen"),
        (b"text *", b"a"),
        (b"text +4", b"not mine"),
        (b"text -3,4", b"not mine"),
        (b"binary +1,3", b"b"),
        (b"text -4", b"c"),
        wire.join_output(8, b"c-y"),
        (b"move +8", b"a/b"),
        (b"error +3", b'{"error":"e"}'),
        BACK,
        marks={5: 8, 6: 8},
    )
    found = subprotocol.replay(entries, last=(5, 8), mark=(14, 9), join=3, connection="c-x")
    assert found is not None
    assert (found.at, found.parting) == ((5, 8), None)
    assert found.frames == [
        ((6, 8), subprotocol.text_frame(6, b"a")),
        ((9, 9), subprotocol.binary_frame(9, b"b")),
        ((10, 9), subprotocol.text_frame(10, b"c")),
        ((13, 9), subprotocol.error_frame((13, 9), b'{"error":"e"}')),
    ]


def test_a_replay_ends_with_a_close() -> None:
    """Where the room has closed the connection meanwhile, it gets what came before that, and the close."""
    entries = log((b"text *", b"seen"), (b"text *", b"a"), wire.close_output(3, 4321, "bye"), (b"text *", b"b"), BACK)
    found = subprotocol.replay(entries, last=(5, 9), mark=(9, 9), join=3, connection="c-x")
    assert found is not None
    assert (len(found.frames), found.parting) == (1, (4321, "bye"))


def test_a_replay_ends_with_a_move() -> None:
    """Where the room has moved the connection meanwhile, it gets what came before that, and where it goes."""
    entries = log((b"text *", b"seen"), (b"text *", b"a"), wire.move_output(3, "hall/b"), (b"text *", b"b"), BACK)
    found = subprotocol.replay(entries, last=(5, 9), mark=(9, 9), join=3, connection="c-x")
    assert found is not None
    assert (len(found.frames), found.parting) == (1, "hall/b")


def test_rows_of_moved_sessions() -> None:
    """Only the row of a session that was moved says where, and how many messages stayed."""
    assert subprotocol.read_moved(b"7 2 closed hall/b 1700") == (7, "hall/b")
    assert [subprotocol.read_moved(row) for row in (None, b"7 2 closed 1700", b"7 2 up 1700")] == [None] * 3


@pytest.mark.parametrize("last", [None, (5, 9)])
def test_nothing_from_before_the_join(last: tuple[int, int] | None) -> None:
    """Who has seen nothing yet, or claims to have seen less than the join, begins at the join."""
    entries = log((b"text *", b"secret"), (b"text *", b"secret"), JOINED, (b"text +3", b"hi"), BACK)
    found = subprotocol.replay(entries, last=last, mark=(9, 9), join=3, connection="c-x")
    assert found is not None
    assert (found.at, [position for position, _ in found.frames]) == ((7, 9), [(8, 9)])


@pytest.mark.parametrize(
    ("entries", "last", "mark"),
    [
        ([], (5, 9), (6, 9)),
        (log((b"text *", b"x"), BACK), (5, 8), (6, 9)),
        (log((b"text *", b"x"), BACK), (4, 9), (6, 9)),
        (log((b"text *", b"x"), (b"text *", b"x")), (5, 9), (7, 9)),
        (log((b"text *", b"x"), BACK), None, (6, 9)),
        ([*log((b"text *", b"x")), *log(BACK, first=7)], (5, 9), (7, 9)),
    ],
)
def test_what_the_outlog_does_not_hold(
    entries: list[Entry], last: tuple[int, int] | None, mark: tuple[int, int]
) -> None:
    """No entry of that id, one of another mark, a hole, no mark at the end, no join: there is no replay."""
    assert subprotocol.replay(entries, last=last, mark=mark, join=3, connection="c-x") is None


def test_a_client_that_missed_nothing() -> None:
    """The last id is right before the mark: an empty replay."""
    found = subprotocol.replay(log((b"text *", b"x"), BACK), last=(5, 9), mark=(6, 9), join=3, connection="c-x")
    assert found == subprotocol.Replay((5, 9), [], None)
