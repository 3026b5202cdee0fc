"""The frames of ``innkeeper.v1``, as values: hellos and numbered messages up, numbered outputs and controls down.

Pure: no I/O, no clock. A session's id is a hash of its secret and its user: Redis never holds what a thief could use.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import orjson

from innkeeper.wire import StreamId, format_id, is_addressed, parse_id, read_close, read_outlog_entry
from innkeeper_edge.frames import encode_binary, encode_text

V1: Final = "innkeeper.v1"
RAW: Final = "innkeeper.raw"
"""Means no more than none does; for browsers that carry a token in the list: some name of it has to be answered."""
BEAT_S: Final = 20
"""A client that was silent for this long is sent something, so that it can tell a dead line from a quiet room."""
HELLO_S: Final = 5.0
"""How long a client may take for its first frame, and for its hello to another room."""
_PREFIX_BYTES: Final = 24
_TOKEN_FRAME_BYTES: Final = 4_200

Parting = tuple[int, str] | str
"""How a room parts with a socket: it is closed with code and reason, or goes to another room."""

_SECRET = re.compile(r"[0-9a-f]{32}")
_LAST = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})")
_TEXT_MESSAGE = re.compile(rb"([1-9][0-9]{0,15}) ")
_MOST = 2**53
_NUMBER_BYTES = 8
_ROW_WORDS = 4  # of the session row of a session that was not moved


def frame_bytes(message_bytes: int) -> int:
    """Return how large a client's frame may be where a message may have so many bytes; a new token fits always."""
    return max(message_bytes + _PREFIX_BYTES, _TOKEN_FRAME_BYTES)


class Hello(NamedTuple):
    """The first frame of a client: which session it is, its connection attempt, and what it saw last.

    ``last`` is None for a new session, or one whose hello was never answered.
    """

    session: str
    connection: str
    generation: int
    last: StreamId | None


def read_hello(payload: bytes, user_id: str) -> Hello | None:
    """Return a hello, None where a frame is none.

    Args:
        payload: Of a text frame.
        user_id: Whose socket it is: with somebody else's secret it is another session, one that does not exist.
    """
    try:
        frame = orjson.loads(payload[1:]) if payload[:1] == b"!" else None
    except orjson.JSONDecodeError:
        return None
    hello = frame.get("hello") if isinstance(frame, dict) else None
    if not isinstance(hello, dict):
        return None
    secret, generation, last = hello.get("secret"), hello.get("generation"), hello.get("last")
    if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
        return None
    if type(generation) is not int or not 1 <= generation < _MOST:
        return None
    if last is not None and not (isinstance(last, str) and _LAST.fullmatch(last)):
        return None
    session = hashlib.sha256(f"{secret}\0{user_id}".encode()).hexdigest()[:32]
    connection = "c-" + hashlib.sha256(f"conn{session}".encode()).hexdigest()[:12]
    return Hello(session, connection, generation, parse_id(last.encode()) if last else None)


def read_token(payload: bytes) -> str | None:
    """Return the new token that a text frame brings, None where a frame brings none."""
    try:
        frame = orjson.loads(payload[1:]) if payload[:1] == b"!" else None
    except orjson.JSONDecodeError:
        return None
    token = frame.get("token") if isinstance(frame, dict) else None
    return token if isinstance(token, str) else None


def read_message(payload: bytes, *, is_text: bool) -> tuple[int, bytes] | None:
    """Return a message's number and payload, None for a frame that is no message."""
    if is_text:
        match = _TEXT_MESSAGE.match(payload)
        return (int(match[1]), payload[match.end() :]) if match else None
    number = int.from_bytes(payload[:_NUMBER_BYTES], "big")
    if len(payload) < _NUMBER_BYTES or not 1 <= number < _MOST:
        return None
    return number, payload[_NUMBER_BYTES:]


def control(**fields: Any) -> bytes:
    """Return the finished frame of a control."""
    return encode_text(b"!" + orjson.dumps(fields))


def at(position: StreamId) -> str:
    """Return an outlog id as clients know it."""
    return format_id(position).decode()


def text_frame(oseq: int, body: bytes) -> bytes:
    """Return the finished frame of a text output."""
    return encode_text(b"%d %b" % (oseq, body))


def binary_frame(oseq: int, body: bytes) -> bytes:
    """Return the finished frame of a binary output."""
    return encode_binary(oseq.to_bytes(_NUMBER_BYTES, "big") + body)


def error_frame(position: StreamId, body: bytes) -> bytes:
    """Return the finished frame of an error that the room wrote: it has no number, so it carries its place."""
    return encode_text(b'!%b,"at":"%b"}' % (body[:-1], format_id(position)))


def frame_of(verb: bytes, position: StreamId, body: bytes) -> bytes | None:
    """Return the finished frame of an output, None where its verb shows nothing."""
    if verb == b"text":
        return text_frame(position[0], body)
    if verb == b"binary":
        return binary_frame(position[0], body)
    return error_frame(position, body) if verb == b"error" else None


def read_parting(verb: bytes, body: bytes) -> Parting:
    """Return what a ``close`` or a ``move`` says."""
    return body.decode() if verb == b"move" else read_close(body)


def read_moved(row: bytes | None) -> tuple[int, str] | None:
    """Return how many messages a session that was moved has left in its room, and where it went; None for others."""
    words = (row or b"").split(b" ")
    return (int(words[0]), words[3].decode()) if len(words) > _ROW_WORDS else None


class Replay(NamedTuple):
    """What a client has missed: the id before it, (id, frame) of each output, and the parting that ends it, if any."""

    at: StreamId
    frames: list[tuple[StreamId, bytes]]
    parting: Parting | None


def replay(
    entries: Sequence[tuple[bytes, Sequence[bytes]]],
    *,
    last: StreamId | None,
    mark: StreamId,
    join: int,
    connection: str,
) -> Replay | None:
    """Return what a session has missed; None where the outlog does not hold all of it.

    Args:
        entries: The outlog from ``last`` (or its beginning) to ``mark``, as XRANGE answers.
        last: What the client saw last; None: nothing yet, so it gets everything since its join.
        mark: The output that says that it is back.
        join: Its join, by iseq.
        connection: Its public id.
    """
    ids = [parse_id(entry_id) for entry_id, _ in entries]
    if not ids or ids[-1] != mark or (last is not None and ids[0] != last):
        return None
    if ids[-1][0] - ids[0][0] != len(ids) - 1:
        return None
    outputs = [read_outlog_entry(fields) for _, fields in entries]
    begin = b"join %d %b " % (join, connection.encode())
    # A client that claims to have seen less than its join sees nothing from before it.
    joined = [n for n, (header, _) in enumerate(outputs) if header.startswith(begin) and not header.endswith(b" back")]
    if last is None and not joined:
        return None
    start = joined[-1] if joined else 0
    frames: list[tuple[StreamId, bytes]] = []
    for position, (header, body) in zip(ids[start + 1 :], outputs[start + 1 :], strict=True):
        verb, _, address = header.partition(b" ")
        if verb in (b"close", b"move") and is_addressed(address, join):
            return Replay(ids[start], frames, read_parting(verb, body))
        if verb in (b"text", b"binary", b"error") and is_addressed(address, join):
            frame = frame_of(verb, position, body)
            assert frame is not None  # noqa: S101 - these verbs show something
            frames.append((position, frame))
    return Replay(ids[start], frames, None)


def quiet_end(entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> Iterator[StreamId]:
    """Yield the ids of the outlog's last entries that are followed by marks alone, the newest first."""
    for entry_id, fields in reversed(entries):
        yield parse_id(entry_id)
        if not read_outlog_entry(fields)[0].startswith((b"join ", b"resync ")):
            return
