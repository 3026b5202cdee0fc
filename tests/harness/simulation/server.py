"""The Redis of a simulation: fakeredis on virtual time, spoken to in RESP over simulated wires."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
from fakeredis import FakeServer
from fakeredis._helpers import NoResponse, SimpleError, SimpleString
from fakeredis._socket._fakesocket import FakeSocket
from fakeredis._socket._resp import convert_to_resp2

from harness.simulation.loop import NOBODY

Fields = list[bytes]
Tap = Callable[["ServerEnd", Fields, Any], None]


class _Ordered:
    """A set that iterates in the order of insertion, so that nothing depends on addresses in memory."""

    def __init__(self) -> None:
        self._items: OrderedDict[Any, None] = OrderedDict()

    def add(self, item: Any) -> None:
        self._items[item] = None

    def discard(self, item: Any) -> None:
        self._items.pop(item, None)

    remove = discard

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)


class _Channels(dict[bytes, _Ordered]):
    def __missing__(self, channel: bytes) -> _Ordered:
        self[channel] = _Ordered()
        return self[channel]


def _drop(data: bytes) -> None:
    del data


class SimulatedRedis:
    """One server: carries out what arrives, in order of arrival; a tap sees every command with its reply.

    Args:
        loop: Its clock; ``time.time`` must follow it too (fakeredis' TIME and expiry read that).
        tap: Called with (connection, command, reply) after each command, whether or not the reply will get anywhere.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tap: Tap) -> None:
        self.loop = loop
        self.tap = tap
        self.fake = FakeServer(server_type="valkey", version=(8, 0))
        self.fake.ssubscribers = _Channels()  # type: ignore[assignment]
        self.blocked: dict[ServerEnd, Callable[[], None]] = {}
        self.is_stopped = False
        self.clock_ahead_s = 0.0  # of the virtual time: what a jump of its machine's clock left
        self._arrived: list[tuple[ServerEnd, bytes]] = []
        self._dirty: dict[ServerEnd, None] = {}
        self._own = ServerEnd(self, "the judge", _drop)

    def ask(self, *words: str | bytes | int) -> Any:
        """Carry out one command at once, beside all wires; for the judge and the hand that breaks things."""
        answer = self.peek(*words)
        self.flush()
        return answer

    def peek(self, *words: str | bytes | int) -> Any:
        """Carry out one command that wakes nobody; also while another is under way."""
        fields = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._own.replies.clear()
        self._own.process_quietly(fields)
        self._own.replies, replies = [], self._own.replies
        assert not isinstance(replies[0], SimpleError), replies[0].value
        return replies[0]

    def feed(self, end: "ServerEnd", data: bytes) -> None:
        """Take bytes that came over a wire."""
        if self.is_stopped:
            self._arrived.append((end, data))
        elif end.is_open:
            end.feed(data)
            self.flush()

    def resume(self) -> None:
        """Go on after a stop."""
        self.is_stopped = False
        arrived, self._arrived = self._arrived, []
        for end, data in arrived:
            self.feed(end, data)

    def flush(self) -> None:
        """Put the replies and messages of one step on their wires."""
        dirty, self._dirty = self._dirty, {}
        for end in dirty:
            if end.replies and end.is_open:
                replies, end.replies = end.replies, []
                end.send(b"".join(map(encode, replies)))

    def mark(self, end: "ServerEnd") -> None:
        """Note that a connection has something to send."""
        self._dirty[end] = None


class ServerEnd(FakeSocket):
    """The server's end of one connection."""

    def __init__(self, redis: SimulatedRedis, name: str, send: Callable[[bytes], None]) -> None:
        super().__init__(redis.fake, 0, client_class=SimulatedRedis)
        self.redis = redis
        self.name = name
        self.send = send
        self.is_open = True
        self.replies: list[Any] = []
        self._queue: list[Fields] = []
        self._reader = hiredis.Reader()

    def put_response(self, msg: Any) -> None:
        """Take a reply or a message to this connection."""
        self.replies.append(msg)
        self.redis.mark(self)

    def feed(self, data: bytes) -> None:
        """Parse bytes and carry out what is complete; behind a blocking command the rest waits."""
        self._reader.feed(data)
        while (fields := self._reader.gets()) is not False:
            self._queue.append(fields)
        self._work()

    def process_quietly(self, fields: Fields) -> None:
        """Carry out a command that the tap does not see."""
        self._process_command(fields)

    def hang_up(self) -> None:
        """Close the connection: its subscriptions and its blocking command end."""
        if not self.is_open:
            return
        self.is_open = False
        self.redis.blocked.pop(self, None)
        fake = self._server
        for channel in [name for name, subscribers in fake.ssubscribers.items() if self in subscribers]:
            fake.ssubscribers[channel].discard(self)
            if not len(fake.ssubscribers[channel]):
                del fake.ssubscribers[channel]
        fake.sockets.remove(self)

    def _work(self) -> None:
        while self._queue and self not in self.redis.blocked and self.is_open:
            fields = self._queue.pop(0)
            before = len(self.replies)
            self._process_command(fields)
            if fields[0] == b"SMEMBERS" and isinstance(self.replies[-1], list):
                self.replies[-1].sort()
            self.redis.tap(self, fields, self.replies[before] if len(self.replies) > before else None)
            if fields[0] == b"ZADD" or b"wake" in fields[-1 if len(fields) < 2 else 1]:
                for look in list(self.redis.blocked.values()):
                    look()

    def _decode_result(self, result: Any) -> Any:
        return result  # errors keep their whole text

    def _blocking(self, timeout: float | None, func: Any, shape: Any = None) -> Any:
        found = func(True)
        if found is not None:
            return found if shape is None else shape(found)
        blocked = self.redis.blocked

        def answer(reply: Any) -> None:
            timer.cancel()
            del blocked[self]
            self.put_response(convert_to_resp2(reply if shape is None else shape(reply)))
            self._work()
            self.redis.flush()

        def look() -> None:
            with self._server.lock:
                reply = func(False)
            if reply is not None:
                answer(reply)

        def give_up() -> None:
            if blocked.get(self) is look:
                answer(None)

        timer = self.redis.loop.call_later(timeout or 1e9, give_up, context=NOBODY)
        blocked[self] = look
        return NoResponse()


def encode(reply: Any) -> bytes:
    """Return a reply as RESP2."""
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, list):
        return b"*%d\r\n%b" % (len(reply), b"".join(map(encode, reply)))
    if isinstance(reply, SimpleString):
        return b"+%b\r\n" % reply.value
    if isinstance(reply, SimpleError):
        return b"-%b\r\n" % reply.value.encode()
    raise TypeError(f"no RESP2 for {reply!r}")
