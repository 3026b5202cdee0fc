"""A program's way to the rooms: connections to Redis, and what it sends counted once."""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from weakref import WeakValueDictionary

import orjson

from innkeeper import keys
from innkeeper.address import Address, parse_address
from innkeeper.boot import check_redis
from innkeeper.channel import Reply
from innkeeper.errors import NoAnswer, RedisReplied, RedisUnavailable, RoomBusy
from innkeeper.functions.posts import PostEvent, post
from innkeeper.keys import room_keys
from innkeeper.lease import DEFAULT_TIMES
from innkeeper.options import DEFAULT_REDIS_URL, without_password
from innkeeper.outside.ear import LINGER_S, Ear
from innkeeper.outside.patience import Value, patiently, push
from innkeeper.outside.room import OutsideRoom
from innkeeper.topology import Commands, Subscriptions, Where, open_link, open_subscriber
from innkeeper.waking import wake
from innkeeper.wire import PROGRAM

if TYPE_CHECKING:
    from innkeeper.outside.sync import SyncInnkeeper

log = logging.getLogger("innkeeper.outside")

_TIMEOUT_S = 10.0
_KINDS_S = 2.0
_DEFAULT_BACKLOG_COUNT = 10_000


class KindFacts(NamedTuple):
    """What workers say of a kind of room."""

    message_bytes: int
    backlog_count: int
    request_s: float | None


class Innkeeper:
    """The rooms of one Redis, for a program that is neither edge nor worker.

    ::

        async with Innkeeper.connect("redis://127.0.0.1:6379/0") as inn:
            await inn.room("chat/lobby").post({"text": "hello"})

    One instance serves a whole program: it may be used by many tasks of one event loop.

    Args:
        url: As ``--redis`` of the commands: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or
            ``redis+cluster://``.
        timeout_s: How long a call tries, where it does not say itself.
    """

    def __init__(self, url: str = DEFAULT_REDIS_URL, *, timeout_s: float = _TIMEOUT_S) -> None:
        if not 0 < timeout_s < float("inf"):
            raise ValueError(f"timeout_s = {timeout_s!r}: seconds above 0")
        self.timeout_s = timeout_s
        self._url = url
        self._source = f"{PROGRAM.decode()}{secrets.token_hex(8)}"
        self._numbers = itertools.count(1)
        self._turns: WeakValueDictionary[Address, asyncio.Lock] = WeakValueDictionary()
        self._kinds: dict[str, tuple[float, KindFacts | None]] = {}
        self._where: Where | None = None
        self._link: Commands | None = None
        self._subscriber: Subscriptions | None = None
        self._ears: dict[Address, Ear] = {}
        self._by_channel: dict[bytes, Ear] = {}
        self._lingering: dict[Ear, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed: asyncio.Future[None] | None = None

    @classmethod
    def connect(cls, url: str = DEFAULT_REDIS_URL, *, timeout_s: float = _TIMEOUT_S) -> Self:
        """Return the rooms at a URL, to be entered by ``async with``; arguments as of the class."""
        return cls(url, timeout_s=timeout_s)

    @staticmethod
    def connect_sync(url: str = DEFAULT_REDIS_URL, *, timeout_s: float = _TIMEOUT_S) -> "SyncInnkeeper":
        """Return the same without ``await``, to be entered by ``with``: for scripts and threads."""
        from innkeeper.outside.sync import SyncInnkeeper  # noqa: PLC0415 - it stands on this module

        return SyncInnkeeper(url, timeout_s=timeout_s)

    # --- life -----------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Connect.

        Raises:
            RedisUnusable: Nobody answers at the URL, or it is no Redis that Innkeeper runs on; the text says why.
        """
        if self._link is not None:
            return
        timeout_s = DEFAULT_TIMES.redis_timeout_ms / 1000
        self._where = await check_redis(self._url, timeout_s=timeout_s, shown=without_password(self._url))
        self._closed = asyncio.get_running_loop().create_future()
        self._link = open_link(self._where, timeout_s=timeout_s, name="program", on_unready=self._reopen)

    async def close(self) -> None:
        """Disconnect; tails end, and whoever waits for an answer gets an error."""
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)
        await asyncio.sleep(0)  # they hear it before their ears go
        for timer in self._lingering.values():
            timer.cancel()
        self._lingering.clear()
        for ear in list(self._ears.values()):
            await ear.close()
        self._ears.clear()
        self._by_channel.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._subscriber is not None:
            await self._subscriber.close()
        if self._link is not None:
            await self._link.close()
        self._link = self._subscriber = self._where = self._closed = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def room(self, address: str) -> OutsideRoom:
        """Return a room by its address, ``kind/name``.

        Raises:
            InvalidAddress: It is none.
        """
        return OutsideRoom(self, parse_address(address))

    @property
    def link(self) -> Commands:
        """What carries commands.

        Raises:
            RuntimeError: Not connected (any more).
        """
        if self._link is None:
            raise RuntimeError("not connected: use `async with Innkeeper.connect(url) as inn`")
        return self._link

    async def unless_closed(self, waiting: Coroutine[Any, Any, Value]) -> Value:
        """Return what comes of something, unless the connection is closed first: then StopAsyncIteration."""
        closed = self._closed
        task = asyncio.ensure_future(waiting)
        try:
            if closed is not None:
                await asyncio.wait((task, closed), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise StopAsyncIteration
        finally:
            task.cancel()

    # --- what is read ---------------------------------------------------------------------------------------------
    async def read(self, *command: str) -> Reply:
        """Return the answer to a command that only reads, trying until the timeout.

        Raises:
            RedisUnavailable: No answer.
        """
        return await patiently(lambda: self.link.call(*command), self.timeout_s)

    async def kind(self, name: str) -> KindFacts | None:
        """Return what workers say of a kind, as of the last two seconds; None where none ever served it."""
        now_s = asyncio.get_running_loop().time()
        read_s, known = self._kinds.get(name, (-_KINDS_S, None))
        if now_s - read_s < _KINDS_S and known is not None:
            return known
        row = await self.read("HGET", keys.KINDS, name)
        fields = orjson.loads(row) if row is not None else None
        found = fields and KindFacts(fields["message_bytes"], fields["backlog_count"], fields.get("request_s"))
        self._kinds[name] = (now_s, found)
        return found

    # --- what is sent ---------------------------------------------------------------------------------------------
    async def send(
        self, address: Address, kind: str, data: bytes, *, connection: str = "-", timeout_s: float | None = None
    ) -> None:
        """Have a room accept an event, once; sent again unchanged until it is answered.

        One event is on its way to each room: so none overtakes another, and what was given up cannot come later.

        Raises:
            RoomBusy: As :meth:`OutsideRoom.post`.
            RedisUnavailable: Likewise.
        """
        facts = await self.kind(address.kind)
        cap = facts.backlog_count if facts is not None else _DEFAULT_BACKLOG_COUNT
        turn = self._turns.get(address)
        if turn is None:
            turn = self._turns[address] = asyncio.Lock()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (self.timeout_s if timeout_s is None else timeout_s)
        try:
            async with asyncio.timeout_at(until_s):
                await turn.acquire()
        except TimeoutError:
            text = f"room {address}: what this program sent before is not accepted yet; this was not sent"
            raise RoomBusy(text) from None
        try:
            events = [PostEvent(next(self._numbers), kind, data, connection)]
            command = post(room_keys(address), source=self._source, mark=0, backlog_count=cap, events=events)

            async def attempt() -> bool:
                posted = await push(self.link, address, command)
                if not posted.taken_count:
                    raise RoomBusy(f"room {address}: {cap} events wait for it already; it was not accepted")
                return posted.wants_owner

            if await patiently(attempt, until_s - loop.time()):
                self._spawn(self._wake(address))
        finally:
            turn.release()

    async def ask(self, address: Address, kind: str, data: bytes, *, timeout_s: float) -> bytes:
        """Have a room handle an event and return its answer.

        Raises:
            NoAnswer: Not in time, or history was cut.
            RoomBusy: As :meth:`send`.
            RedisUnavailable: Likewise.
        """
        ear = self.hold(address)
        call = f"q-{secrets.token_hex(6)}"
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        ear.calls[call.encode()] = answer
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(until_s):
                await ear.opened()
            await self.send(address, kind, data, connection=call, timeout_s=until_s - loop.time())
            async with asyncio.timeout_at(until_s):
                return await answer
        except TimeoutError:
            text = f"room {address}: no answer within {timeout_s:g} s; it may have been handled, or may still be"
            raise NoAnswer(text) from None
        finally:
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # taken notice of, whatever ended this
            del ear.calls[call.encode()]
            self.release(ear)

    async def _wake(self, address: Address) -> None:
        try:
            await wake(self.link, [address])
        except (RedisUnavailable, RedisReplied) as error:
            log.debug("room %s: not woken, a sweep will do it: %s", address, error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what is heard --------------------------------------------------------------------------------------------
    def hold(self, address: Address) -> Ear:
        """Return a room's ear, made if need be; it stays until each holder has called :meth:`release`."""
        assert self.link is not None  # noqa: S101 - raises where not connected
        if self._subscriber is None:
            assert self._where is not None  # noqa: S101 - connected
            self._subscriber = open_subscriber(
                self._where, on_message=self._on_message, on_fresh=self._on_fresh, name="outputs"
            )
        ear = self._ears.get(address)
        if ear is None:
            ear = self._ears[address] = Ear(address, self.link, self._subscriber)
            self._by_channel[ear.keys.out.encode()] = ear
        ear.users += 1
        if ear in self._lingering:
            self._lingering.pop(ear).cancel()
        return ear

    def release(self, ear: Ear) -> None:
        """Hold an ear no longer; it listens on for some seconds, for the next request."""
        ear.users -= 1
        if not ear.users and self._ears.get(ear.address) is ear:
            loop = asyncio.get_running_loop()
            self._lingering[ear] = loop.call_later(LINGER_S, self._let_go, ear)

    def _let_go(self, ear: Ear) -> None:
        del self._lingering[ear], self._ears[ear.address], self._by_channel[ear.keys.out.encode()]
        self._spawn(ear.close())

    def _on_message(self, channel: bytes, body: bytes) -> None:
        if ear := self._by_channel.get(channel):
            ear.receive(body)

    def _on_fresh(self, channel: bytes) -> None:
        if ear := self._by_channel.get(channel):
            ear.look()

    def _reopen(self) -> None:
        if self._subscriber is not None:
            self._subscriber.reopen()
