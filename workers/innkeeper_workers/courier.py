"""The courier of one owned room: brings what its outbox holds to other rooms, each once, in order for each target."""

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import orjson

from innkeeper import keys
from innkeeper.address import Address, InvalidAddress, parse_address
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.functions.dead import note_dead
from innkeeper.functions.posts import OUTBOX_LOOK_MS, Posted, PostEvent, note_outbox, post, read_posted
from innkeeper.keys import room_keys
from innkeeper.turn import TURN_EVENTS, TURN_IN_BYTES
from innkeeper.wire import parse_id
from innkeeper_workers.asking import ask

if TYPE_CHECKING:
    from innkeeper_workers.owner import Owner

log = logging.getLogger("innkeeper.worker")

_HOLDS_S = 60.0
_AGAIN_FIRST_S = 0.01
_AGAIN_MOST_S = 1.0
_READ_FIRST = 16
_READ_MOST = 256
_KEPT_COUNT = 10_000
_KEPT_BYTES = 33_554_432
_DEFAULT_BACKLOG_COUNT = 10_000
_JOBS = "~jobs"  # the one lane for rq's queue: no room is named so


class Owed(NamedTuple):
    """One entry of an outbox."""

    id: bytes
    kind: str
    data: bytes
    target: str = ""


class Courier:
    """Reads the outbox of a room, and serves each target by a task of its own: one that is full holds up no other.

    Nothing of it is truth. An entry leaves the outbox when its target has it; a courier that dies before that leaves it
    to the next owner's, and the target knows what it has had. Cancelling is safe at every point.

    Args:
        owner: Whose room it is.
        has_posted: Whether the room ever owed anything.
    """

    def __init__(self, owner: "Owner", *, has_posted: bool) -> None:
        self._owner = owner
        self._has_news = has_posted
        self._noted_until_s = 0.0
        self._read_from = "-"
        self._read_count = _READ_FIRST
        self._kept_count = self._kept_bytes = 0
        self._has_room = asyncio.Event()
        self._lanes: dict[str, deque[Owed]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_reading = False

    @property
    def holds(self) -> bool:
        """Whether the room should be kept because something is on its way; not for longer than a minute."""
        is_working = bool(self._tasks)
        return is_working and self._owner.fleet.loop.time() - self._owner.used_at_s < _HOLDS_S

    @property
    def waiting_count(self) -> int:
        """How many entries of the outbox it has read and not yet delivered."""
        return self._kept_count

    async def note(self, *, owes: bool, buries: bool) -> None:
        """See that the indexes name the room before a commit that adds to its outbox, or puts events aside.

        One note of an outbox counts for the commits of the next seconds: nothing falls out of that index before its
        time has come.
        """
        fleet, address = self._owner.fleet, self._owner.address
        if buries:
            await ask(fleet, address, note_dead(address, now_ms=fleet.redis_time_ms))
        if owes and fleet.loop.time() >= self._noted_until_s:
            until_s = fleet.loop.time() + OUTBOX_LOOK_MS / 2000
            await ask(fleet, address, note_outbox(address))
            self._noted_until_s = until_s

    def owes(self) -> None:
        """Deliver what was just committed."""
        self._has_news = True
        self.start()

    def start(self) -> None:
        """Deliver what an earlier owner left, if the room ever owed anything."""
        if self._has_news and not self._is_reading:
            self._is_reading = True
            self._spawn(self._read(), "outbox")

    def stop(self) -> None:
        """Stop at once; the next owner's courier goes on."""
        for task in self._tasks:
            task.cancel()

    def _spawn(self, work: "asyncio._CoroutineLike[None]", what: str) -> None:
        task = asyncio.create_task(work, name=f"room {self._owner.address}: {what}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: its courier failed", task.get_name(), exc_info=error)

    # --- the outbox -----------------------------------------------------------------------------------------------
    async def _read(self) -> None:
        owner = self._owner
        try:
            while self._has_news:
                self._has_news = False
                asked = self._read_count
                entries = await ask(
                    owner.fleet, owner.address,
                    ("XRANGE", owner.keys.outbox, self._read_from, "+", "COUNT", asked),
                )  # fmt: skip
                size = 0
                for entry_id, fields in entries:
                    row = dict(zip(fields[::2], fields[1::2], strict=True))
                    self._read_from = f"({entry_id.decode()}"
                    size += len(row[b"data"])
                    self._hand(Owed(entry_id, row[b"type"].decode(), row[b"data"], row[b"target"].decode()))
                self._read_count = max(1, asked // 2) if size > TURN_IN_BYTES else min(asked * 2, _READ_MOST)
                self._has_news = self._has_news or len(entries) == asked
                while self._kept_count >= _KEPT_COUNT or self._kept_bytes >= _KEPT_BYTES:
                    self._has_room.clear()
                    await self._has_room.wait()
        finally:
            self._is_reading = False

    def _hand(self, owed: Owed) -> None:
        target = owed.target if owed.kind == "post" else _JOBS
        self._kept_count += 1
        self._kept_bytes += len(owed.data)
        lane = self._lanes.get(target)
        if lane is not None:
            lane.append(owed)
            return
        self._lanes[target] = deque((owed,))
        self._spawn(self._serve(target), f"to {target}")

    # --- one target -----------------------------------------------------------------------------------------------
    async def _serve(self, target: str) -> None:
        lane, wait_s = self._lanes[target], _AGAIN_FIRST_S
        try:
            backlog_count = await self._backlog_count(target)
            while lane:
                taken = await self._try(target, _piece(lane), backlog_count)
                for _ in range(taken):
                    self._kept_count -= 1
                    self._kept_bytes -= len(lane.popleft().data)
                self._has_room.set()
                if taken:
                    wait_s = _AGAIN_FIRST_S
                else:
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, _AGAIN_MOST_S)
        finally:
            del self._lanes[target]

    async def _try(self, target: str, piece: list[Owed], backlog_count: int) -> int:
        """Deliver a piece; return how many of it are delivered and out of the outbox."""
        owner = self._owner
        if target == _JOBS:
            return await self._hand_in(piece[0])
        try:
            address = parse_address(target)
        except InvalidAddress as error:  # nothing of ours writes such
            log.error("room %s: %d post(s) dropped: %s", owner.address, len(piece), error)  # noqa: TRY400 - no trace
            taken = len(piece)
        else:
            try:
                posted = await self._post(address, piece, backlog_count)
                if posted.wants_owner:
                    await owner.fleet.wake((address,))
            except (RedisUnavailable, RedisReplied) as error:
                log.warning("room %s: not delivered to %s yet: %s", owner.address, target, error)
                return 0
            taken = posted.taken_count
            owner.fleet.meters.posts += taken
        if taken:
            await ask(owner.fleet, owner.address, ("XDEL", owner.keys.outbox, *(owed.id for owed in piece[:taken])))
        return taken

    async def _hand_in(self, owed: Owed) -> int:
        """Put a job into rq's queue, or take it out again; return 1 where that is done."""
        owner = self._owner
        try:
            await owner.fleet.desk.serve(str(owner.address), owed.kind, owed.target, owed.data)
        except Exception as error:  # noqa: BLE001 - of rq, of its client, or where rq cannot be imported
            log.warning("room %s: a job is not in the queue yet: %s", owner.address, error)
            return 0
        owner.fleet.meters.jobs += 1
        await ask(owner.fleet, owner.address, ("XDEL", owner.keys.outbox, owed.id))
        return 1

    async def _post(self, address: Address, piece: list[Owed], backlog_count: int) -> Posted:
        owner, mark = self._owner, parse_id(piece[0].id)[1]
        events = [PostEvent(parse_id(owed.id)[0], owed.kind, owed.data) for owed in piece]
        command = post(
            room_keys(address), source=str(owner.address), mark=mark, backlog_count=backlog_count, events=events
        )
        return read_posted(await ask(owner.fleet, owner.address, command, owner.fleet.commit_link))

    async def _backlog_count(self, target: str) -> int:
        """Return how many events may wait at the target: what its class says, here or in another worker."""
        if target == _JOBS:
            return 0
        kind = target.partition("/")[0]
        if kind in self._owner.fleet.rooms:
            return self._owner.fleet.rooms[kind].backlog_count
        row = await ask(self._owner.fleet, self._owner.address, ("HGET", keys.KINDS, kind))
        return int(orjson.loads(row)["backlog_count"]) if row is not None else _DEFAULT_BACKLOG_COUNT


def _piece(lane: deque[Owed]) -> list[Owed]:
    """Return what one post may carry of a lane: entries of one mark, 256 of them, 256 KiB."""
    mark, size, piece = parse_id(lane[0].id)[1], 0, list[Owed]()
    for owed in lane:
        if len(piece) == TURN_EVENTS or size >= TURN_IN_BYTES or parse_id(owed.id)[1] != mark:
            break
        piece.append(owed)
        size += len(owed.data)
    return piece
