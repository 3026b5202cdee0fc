"""The timers of one owned room: fired the moment they are due, and in the index before the commit that sets them."""

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from innkeeper.channel import Command, Reply
from innkeeper.errors import FunctionMissing, RedisReplied, RedisUnavailable
from innkeeper.functions import shard_of
from innkeeper.functions.timers import FIRE_AT_ONCE, expect, fire, read_expected, read_fired
from innkeeper.timers import TimerRow, read_row

if TYPE_CHECKING:
    from innkeeper.functions import Claimed
    from innkeeper.turn import Turn
    from innkeeper_workers.owner import Owner

log = logging.getLogger("innkeeper.worker")

_AHEAD_MS = 2_000
"""How much later than due a room may stand in the index while its owner lives and fires: the index is for others."""
_MARGIN_MS = 200  # an entry that passes so soon may just be read by a worker that looks for what is due
_NEAR_S = 3.0  # more than _AHEAD_MS
_RETRY_S = 0.1
_ROUNDING_S = 0.0005  # the server counts whole ms: asked a moment too early, it would fire nothing


class Changes(NamedTuple):
    """What a turn changes of a room's timers: when those it sets are due, and whose it takes out."""

    due_ms: dict[str, int]
    gone: set[str]
    is_end: bool


class Alarm:
    """Fires one owned room's timers. Anybody may fire, so it needs no token; whoever comes late finds nothing to do.

    Args:
        owner: Whose room it is.
        claimed: What the claim answered.
        asked_at_s: When the claim was sent, by the loop's clock.
        ask: Sends a command until there is an answer.
    """

    def __init__(
        self, owner: "Owner", claimed: "Claimed", *, asked_at_s: float, ask: Callable[[Command], Awaitable[Reply]]
    ) -> None:
        self._owner = owner
        self._ask = ask
        self._loop = owner.fleet.loop
        self._has_rows = bool(claimed.timers)
        self._waiting: dict[str, tuple[int, int]] = {}  # name → due ms and serial, of those not fired
        self._queue: list[tuple[int, int, str]] = []  # due ms, serial, name; what is not in _waiting any more is void
        self._serial = 0
        self._ahead_s = claimed.server_us / 1_000_000 - asked_at_s  # the server's clock before the loop's
        self._indexed_ms = 0  # the room's score in the index as last known
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._load(claimed.timers)

    def _load(self, rows: Mapping[bytes, bytes]) -> None:
        for name, row in rows.items():
            try:
                found = read_row(name.decode(), row)
            except ValueError:
                continue  # the activation has said so
            if not (isinstance(found, TimerRow) and found.is_fired):
                self._wait_for(name.decode(), found.due_ms)

    # --- around the owner's work ----------------------------------------------------------------------------------
    async def start(self) -> None:
        """Put the room into the index, whatever has become of its entry, and begin to fire."""
        if self._has_rows:
            await self._expect(self._next_ms)
        self._arm()

    def stop(self) -> None:
        """Fire no more."""
        if self._handle is not None:
            self._handle.cancel()
        if self._task is not None:
            self._task.cancel()

    @property
    def is_near(self) -> bool:
        """Whether a timer is due so soon that putting the room to sleep would only make it late."""
        return bool(self._waiting) and self._next_ms / 1000 - self._now_s < _NEAR_S

    async def before_release(self) -> None:
        """Let the index say exactly when the next timer is due: nobody else will fire it."""
        if self._waiting:
            await self._write(self._next_ms)

    # --- around a commit ------------------------------------------------------------------------------------------
    def changes(self, turn: "Turn") -> Changes | None:
        """Return what a turn changes of the timers; None for nothing."""
        if turn.destroy:
            return Changes({}, set(), is_end=True)
        if not (turn.timers_set or turn.timers_del):
            return None
        due_ms = {name: read_row(name, row).due_ms for name, row in turn.timers_set.items()}
        return Changes(due_ms, set(turn.timers_del), is_end=False)

    async def before(self, changes: Changes) -> None:
        """Put the room into the index before a commit makes its timers true; returns when the index has it."""
        if changes.due_ms:
            due_ms = min(changes.due_ms.values())
            # An entry in the future is read by nobody, so nobody moves it or takes it out.
            if not self._is_ahead or self._indexed_ms > max(due_ms, self._now_ms + _AHEAD_MS):
                await self._expect(due_ms)

    async def after(self, changes: Changes) -> None:
        """Take what a commit has made true."""
        if changes.is_end:
            self._waiting.clear()
        for name in changes.gone:
            self._waiting.pop(name, None)
        for name, due_ms in changes.due_ms.items():
            self._wait_for(name, due_ms)
        self._arm()
        if changes.due_ms and not self._is_ahead:
            # The commit took so long that somebody may have looked before it, and found no timer.
            await self._expect(min(changes.due_ms.values()))

    async def _expect(self, due_ms: int) -> None:
        await self._write(max(due_ms, self._now_ms + _AHEAD_MS))

    async def _write(self, due_ms: int) -> None:
        address = self._owner.address
        (self._indexed_ms,) = read_expected(await self._ask(expect(shard_of(address), [(address, due_ms)])))

    @property
    def _is_ahead(self) -> bool:
        return self._indexed_ms > self._now_ms + _MARGIN_MS

    # --- firing ---------------------------------------------------------------------------------------------------
    @property
    def _now_s(self) -> float:
        """The server's time, as well as it is known."""
        return self._loop.time() + self._ahead_s

    @property
    def _now_ms(self) -> int:
        return int(self._now_s * 1000)

    @property
    def _next_ms(self) -> int:
        """When the next timer is due that is not fired; now where there is none."""
        while self._queue:
            due_ms, serial, name = self._queue[0]
            if self._waiting.get(name) == (due_ms, serial):
                return due_ms
            heapq.heappop(self._queue)
        return self._now_ms

    def _wait_for(self, name: str, due_ms: int) -> None:
        self._serial += 1
        self._waiting[name] = (due_ms, self._serial)
        heapq.heappush(self._queue, (due_ms, self._serial, name))

    def _arm(self, least_s: float = 0.0) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._waiting and self._task is None:
            wait_s = max(self._next_ms / 1000 - self._now_s + _ROUNDING_S, least_s)
            self._handle = self._loop.call_later(wait_s, self._begin)

    def _begin(self) -> None:
        self._handle = None
        self._task = asyncio.create_task(self._fire())

    async def _fire(self) -> None:
        least_s = 0.0
        try:
            await self._fire_due()
        except FunctionMissing:
            await self._owner.fleet.load_functions()
            least_s = _RETRY_S
        except (RedisUnavailable, RedisReplied) as error:
            log.warning("room %s: timers not fired, again: %s", self._owner.address, error)
            least_s = _RETRY_S
        finally:
            self._task = None
        self._arm(least_s)

    async def _fire_due(self) -> None:
        asked = self._due()
        if not asked:
            return
        owner = self._owner
        sent_at_s = self._loop.time()
        command = fire(owner.keys, names=[name for name, _ in asked])
        fired = read_fired((await owner.fleet.link.send((command,)))[0])
        self._ahead_s = fired.server_us / 1_000_000 - (sent_at_s + self._loop.time()) / 2
        meters = owner.fleet.meters
        meters.timers_fired["owner"] += fired.appended
        for name, waiting in asked:
            # Set anew meanwhile: then it waits for its new time, whether the old one was fired or not.
            if waiting[0] <= fired.server_us // 1000 and self._waiting.get(name) == waiting:
                del self._waiting[name]
                meters.timer_late_s.observe(fired.server_us / 1_000_000 - waiting[0] / 1000)
        if fired.appended and not fired.receivers:
            owner.ring([])

    def _due(self) -> list[tuple[str, tuple[int, int]]]:
        """Return what is due now, in order; it goes on waiting until it is known to be fired."""
        now_ms = self._now_ms
        found: list[tuple[str, tuple[int, int]]] = []
        while self._queue and self._queue[0][0] <= now_ms and len(found) < FIRE_AT_ONCE:
            due_ms, serial, name = heapq.heappop(self._queue)
            if self._waiting.get(name) == (due_ms, serial):
                found.append((name, (due_ms, serial)))
        for name, (due_ms, serial) in found:
            heapq.heappush(self._queue, (due_ms, serial, name))
        return found
