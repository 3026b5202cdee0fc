"""What a program hears of one room: its outputs in order, without holes, or the word that there was one."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from innkeeper.errors import NoAnswer, RedisReplied, RedisUnavailable
from innkeeper.keys import room_keys
from innkeeper.wire import Batch, StreamId, format_id, parse_id, read_batch, read_outlog_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from innkeeper.address import Address
    from innkeeper.topology import Commands, Subscriptions

log = logging.getLogger("innkeeper.outside")

LINGER_S = 5.0
_LOOK_S = 1.0
_AGAIN_S = 0.1
_FILL_COUNT = 64
_KEPT_COUNT = 10_000


class Output(NamedTuple):
    """One output of a room, as committed.

    Attributes:
        id: ``oseq-mark``.
        header: What it is, and for whom: ``text *``, ``close +5`` … (docs/data-model.md). ``resync`` is none of the
            room's: outputs before it are missing here, because history was cut or this program was too slow.
        body: Of ``text`` and ``binary`` what members received.
    """

    id: str
    header: str
    body: bytes

    @property
    def kind(self) -> str:
        """The first word of the header."""
        return self.header.partition(" ")[0]

    def text(self) -> str:
        """Return the body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body as a JSON value; ValueError where it is none."""
        return orjson.loads(self.body)


class Ear:
    """One room's subscription, shared by the requests and tails of one program.

    Args:
        address: The room.
        link: Reads what pub/sub does not bring.
        subscriber: Where it listens; its messages for this room go to :meth:`receive`.
    """

    def __init__(self, address: "Address", link: "Commands", subscriber: "Subscriptions") -> None:
        self.address = address
        self.keys = room_keys(address)
        self.users = 0
        self.calls: dict[bytes, asyncio.Future[bytes]] = {}
        self.tails: set[Callable[[Output], None]] = set()
        self._link = link
        self._subscriber = subscriber
        self._position: StreamId = (0, 0)
        self._news: asyncio.Queue[Batch | None] = asyncio.Queue()
        self._suspect: StreamId | None = None
        self._opened = asyncio.Event()
        self._task = asyncio.create_task(self._listen(), name=f"ear of {address}")

    async def opened(self) -> None:
        """Return when everything that is committed from now on comes here."""
        await self._opened.wait()

    def receive(self, body: bytes) -> None:
        """Take a published batch."""
        self._news.put_nowait(read_batch(body))

    def look(self) -> None:
        """Read what may have been published unheard."""
        self._news.put_nowait(None)

    async def close(self) -> None:
        """Stop listening; whoever waits for an answer gets NoAnswer."""
        self._fail("the connection was closed")
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._subscriber.unsubscribe(self.keys.out)

    async def _listen(self) -> None:
        await self._subscriber.subscribe(self.keys.out)
        last, _ = await self._read("-", 1)
        self._position = last
        self._opened.set()
        while True:
            try:
                async with asyncio.timeout(_LOOK_S):
                    batch = await self._news.get()
            except TimeoutError:
                await self._look_twice()
                continue
            self._suspect = None
            if batch is not None and self._is_known(batch):
                continue
            if batch is not None and self._follows(batch):
                for oseq, output in enumerate(batch.outputs, batch.first):
                    self._take((oseq, int(batch.mark)), *output)
            else:
                await self._catch_up()

    async def _look_twice(self) -> None:
        """Read what the last batch lost on the way had held, if it was missing a second ago too.

        Not at the first sight: a room that was just destroyed has no outlog from before, but its last batch is coming.
        """
        last, _ = await self._read("-", 1)
        if last != self._position and self._news.empty():
            if self._suspect is not None:
                await self._catch_up()
            self._suspect = last

    def _is_known(self, batch: Batch) -> bool:
        """Whether a batch came late, after its outputs were read in the outlog."""
        return batch.last <= self._position[0] and int(batch.mark) == self._position[1]

    def _follows(self, batch: Batch) -> bool:
        is_whole = batch.last - batch.first + 1 == len(batch.outputs)
        return is_whole and parse_id(batch.previous) == self._position

    async def _read(self, start: str, count: int) -> tuple[StreamId, list[tuple[StreamId, bytes, bytes]]]:
        """Return the id of the room's last output, and outputs from one on."""
        while True:
            try:
                last, entries = await self._link.send(
                    (
                        ("HGET", self.keys.meta, "last"),
                        ("XRANGE", self.keys.outlog, start, "+", "COUNT", count),
                    )
                )
                for reply in (last, entries):
                    if isinstance(reply, RedisReplied):
                        raise reply
            except (RedisUnavailable, RedisReplied) as error:
                log.debug("room %s: outputs not read: %s", self.address, error)
                await asyncio.sleep(_AGAIN_S)
                continue
            found = [(parse_id(entry_id), *read_outlog_entry(fields)) for entry_id, fields in entries]
            return parse_id(last) if last else (0, 0), found

    async def _catch_up(self) -> None:
        while True:
            start = format_id(self._position).decode() if self._position[0] else "-"
            last, entries = await self._read(start, _FILL_COUNT)
            if last == self._position:
                return
            if self._position[0]:
                if not entries or entries[0][0] != self._position:
                    self._resync(last)
                    return
                entries = entries[1:]
            for stream_id, header, body in entries:
                if stream_id[0] != self._position[0] + 1:
                    self._resync(last)
                    return
                self._take(stream_id, header, body)
            if len(entries) < _FILL_COUNT - 1:
                if last[0] > self._position[0]:
                    self._resync(last)  # what is said to be there is not
                return

    def _take(self, stream_id: StreamId, header: bytes, body: bytes) -> None:
        self._position = stream_id
        if header.startswith(b"answer "):
            call = self.calls.get(header[7:])
            if call is not None and not call.done():
                call.set_result(body)
        self._tell(Output(format_id(stream_id).decode(), header.decode(), body))

    def _resync(self, last: StreamId) -> None:
        log.warning("room %s: its history was cut", self.address)
        self._position = last
        self._fail("its history was cut meanwhile")
        self._tell(Output(format_id(last).decode(), "resync", b""))

    def _fail(self, why: str) -> None:
        for call in self.calls.values():
            if not call.done():
                call.set_exception(NoAnswer(f"room {self.address}: {why}; what was asked may have been handled"))

    def _tell(self, output: Output) -> None:
        for tell in list(self.tails):
            tell(output)


class Tap:
    """The outputs that one tail has not taken yet; at most 10,000 wait, then they are given up for a ``resync``."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Output] = asyncio.Queue(_KEPT_COUNT)

    def put(self, output: Output) -> None:
        """Take an output."""
        if self._waiting.full():
            while not self._waiting.empty():
                self._waiting.get_nowait()
            output = Output(output.id, "resync", b"")
        self._waiting.put_nowait(output)

    def take(self) -> Output | None:
        """Return the next output if it has come."""
        return None if self._waiting.empty() else self._waiting.get_nowait()

    async def get(self) -> Output:
        """Return the next output."""
        return await self._waiting.get()
