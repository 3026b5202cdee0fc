"""Many rooms over one pair of connections: commands on one, what is published on the other.

The rooms' coroutines are driven by hand, one round trip for all of them per round. There is no event loop and no clock,
so a room's run depends on its seed alone, whatever runs beside it.
"""

import socket
from collections.abc import Coroutine, Generator, Iterable, Sequence
from typing import Any, NamedTuple

import hiredis

from innkeeper.channel import Command, Reply, pack
from innkeeper.errors import from_reply

Run = Coroutine["Request", "Answer", None]

_PING = pack(("PING",))
_WAIT_S = 30


class Request(NamedTuple):
    """What a room wants from one round: ``expected`` packed commands, after (un)subscribing to ``channels``."""

    data: bytes
    expected: int
    channels: Sequence[Command] = ()

    def __await__(self) -> Generator["Request", "Answer", "Answer"]:
        """Wait for the answer."""
        return (yield self)


class Answer(NamedTuple):
    """The replies in order (errors as values), and what was published meanwhile as (channel, message)."""

    replies: list[Reply]
    heard: list[tuple[bytes, bytes]]


class _Wire:
    """A blocking connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader: Any = hiredis.Reader(replyError=from_reply)

    def read(self) -> Reply:
        """Return the next reply."""
        while (reply := self.reader.gets()) is False:
            data = self.socket.recv(262_144)
            if not data:
                raise ConnectionError("the server closed the connection")
            self.reader.feed(data)
        return reply


class Line:
    """The two connections to a server."""

    def __init__(self, port: int) -> None:
        self._commands = _Wire(port)
        self._ears = _Wire(port)
        self._heard: dict[bytes, list[tuple[bytes, bytes]]] = {}

    def close(self) -> None:
        """Close both."""
        self._commands.socket.close()
        self._ears.socket.close()

    def call(self, *command: str | bytes | int) -> Reply:
        """Carry out one command on its own; an error is raised."""
        self._commands.socket.sendall(pack(command))
        reply = self._commands.read()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def run(self, rooms: Iterable[tuple[bytes, Run]], *, width: int) -> Iterable[tuple[bytes, Exception | None]]:
        """Run rooms, ``width`` at a time, and yield each one's tag with the error that ended it, or None.

        The tag stands between the braces of the room's channels.
        """
        waiting = iter(rooms)
        active: list[tuple[bytes, Run, Request]] = []
        while True:
            while len(active) < width and (room := next(waiting, None)) is not None:
                active.append((*room, room[1].send(None)))  # type: ignore[arg-type]
            if not active:
                return
            answers = self._round([(tag, request) for tag, _, request in active])
            going: list[tuple[bytes, Run, Request]] = []
            for (tag, run, _), answer in zip(active, answers, strict=True):
                try:
                    going.append((tag, run, run.send(answer)))
                except StopIteration:
                    yield tag, None
                except Exception as error:  # noqa: BLE001 - whatever ends a run is its verdict
                    yield tag, error
            active = going

    def _round(self, requests: list[tuple[bytes, Request]]) -> list[Answer]:
        changes = [pack(command) for _, request in requests for command in request.channels]
        if changes:
            self._listen(b"".join(changes), len(changes))
        self._commands.socket.sendall(b"".join([request.data for _, request in requests]))
        replies = [[self._commands.read() for _ in range(request.expected)] for _, request in requests]
        # What the commands published was written to the ears before their replies: all of it stands before the pong.
        self._listen(_PING, 1)
        heard, self._heard = self._heard, {}
        return [Answer(reply, heard.get(tag, [])) for (tag, _), reply in zip(requests, replies, strict=True)]

    def _listen(self, data: bytes, count: int) -> None:
        """Send commands to the ears and wait for that many confirmations, keeping messages."""
        self._ears.socket.sendall(data)
        while count:
            reply = self._ears.read()
            if isinstance(reply, list) and reply[0] == b"smessage":
                _, channel, message = reply
                tag = channel[channel.index(b"{") + 1 : channel.index(b"}")]
                self._heard.setdefault(tag, []).append((channel, message))
            else:
                count -= 1
