"""The owner of one room: reads its inbox, runs turns, commits them one at a time, gives the room back."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING

from innkeeper import functions
from innkeeper.activation import Activation
from innkeeper.address import Address
from innkeeper.channel import Command
from innkeeper.errors import LeaseLost
from innkeeper.functions import Claimed, Committed
from innkeeper.keys import RoomKeys
from innkeeper.lease import RESUME_WINDOW_MS
from innkeeper.room import Room
from innkeeper.turn import TURN_EVENTS, TURN_OUT_BYTES
from innkeeper.wire import InboxEvent, read_inbox_entry
from innkeeper_workers.alarm import Alarm, Changes
from innkeeper_workers.asking import ask
from innkeeper_workers.courier import Courier
from innkeeper_workers.handler_limit import HandlerLimit
from innkeeper_workers.starting import Starting
from innkeeper_workers.suspicion import CONVICTED, Suspicion
from innkeeper_workers.trimming import Trimming

if TYPE_CHECKING:
    from innkeeper_workers.fleet import Fleet

log = logging.getLogger("innkeeper.worker")

_TURN_S = 0.004  # a turn yields to the other rooms after this long; figures in docs/data-model.md


class Owner:
    """One owned room and the task that runs it.

    The task ends when the room is released, lost or cut; ``fleet`` hears of it. All waiting happens in that task, so
    cancelling it cancels the running hook.
    """

    def __init__(
        self,
        fleet: "Fleet",
        address: Address,
        *,
        keys: RoomKeys,
        room_class: type[Room],
        claimed: Claimed,
        condemned: dict[bytes, str],
        asked_at_s: float,
    ) -> None:
        meta = claimed.meta
        self.fleet = fleet
        self.meters = fleet.meters.kinds[address.kind]
        self.address = address
        self.keys = keys
        self.room_class = room_class
        self.token = claimed.token
        self.version = int(meta.get(b"version", 0))
        self.read_iseq = int(meta.get(b"cursor", 0))
        self.last_id = meta.get(b"last", b"0-0")
        self.known_iseq = claimed.iseq
        self._is_created = b"created" in meta
        self._is_destroyed = False
        self._shown_bytes = int(meta.get(b"bytes", 0))
        self.suspicion = Suspicion(self, claimed)
        self.courier = Courier(self, has_posted=b"posted" in meta)
        self.condemned = condemned
        self.confirmed_at_s = asked_at_s
        self.lease_sent_at_s = asked_at_s
        self.used_at_s, self.busy_s = fleet.loop.time(), 0.0  # busy: in turns so far, without what hooks waited
        self.leaving = ""
        self.is_giving_back = False  # its release is on its way: whether it counts, the answer to that says
        self.successor = ""  # the worker that is to have the room next
        self.wanted = False  # whether the room wants an owner although it was released
        self.inside: InboxEvent | None = None
        self.unsettled: InboxEvent | None = None  # the first one of the turn under way
        self.activation = Activation(
            address, room_class, claimed,
            on_suspend=self._on_suspend, on_resume=self._on_resume, condemned=condemned, meters=self.meters,
        )  # fmt: skip
        self._ask = partial(ask, fleet, address)
        self._alarm = Alarm(self, claimed, asked_at_s=asked_at_s, ask=self._ask)
        self.starting = Starting(self, meta, commit=self._committed, release=self._release, ask=self._ask)
        self.pending: deque[InboxEvent] = deque()
        self._must_read = True
        # An answer of 1 MiB at most: a larger one would keep the link's other replies waiting.
        self._read_count = max(1, min(TURN_EVENTS, TURN_OUT_BYTES // room_class.message_bytes))
        self._waiter: asyncio.Future[None] | None = None
        self._has_news = False
        self._in_flight: asyncio.Future[None] | None = None
        self.limit = HandlerLimit(fleet.loop, self._cut)
        self._trimming = Trimming()
        self.task: asyncio.Task[None] | None = None

    # --- what others tell the owner -------------------------------------------------------------------------------
    def ring(self, events: list[InboxEvent]) -> None:
        """Take the bell's news: events that follow what was read, or none: then the inbox is read."""
        if not events:
            self._must_read = True
        for event in events:
            if event.iseq == self.read_iseq + 1:
                self.pending.append(event)
                self.read_iseq = event.iseq
            elif event.iseq > self.read_iseq:
                self._must_read = True
        self._notify()

    def renewed(self, iseq: int, sent_at_s: float) -> None:
        """Take a confirmed renewal, sent at that moment of the loop's clock; it also tells of lost bells."""
        self.confirmed_at_s = max(self.confirmed_at_s, sent_at_s)
        if iseq > self.read_iseq:
            self._must_read = True
            self.known_iseq = iseq
        self._notify()

    def leave(self, why: str) -> None:
        """Ask the owner to give the room back: ``idle`` (if nothing is pending) or ``handover`` (in any case)."""
        self.leaving = why
        self._notify()

    def _notify(self) -> None:
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing has happened for the class's ``idle_s``."""
        return (
            not self.pending and self.inside is None and self._in_flight is None
            and self.fleet.loop.time() - self.used_at_s > self.room_class.idle_s
            and not self._alarm.is_near and not self.courier.holds
        )  # fmt: skip

    def drop(self, why: str) -> None:
        """Stop at once: seal the running hook and cancel it. The token is not given back."""
        self.activation.seal(why)
        if self.task is not None:
            self.task.cancel()

    # --- the task -------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Own the room until it is released.

        Raises:
            LeaseLost: A commit or read showed that the room's history is not ours any more.
        """
        try:
            await self._announce(self.last_id)  # the owner before may have died between commit and announcement
            self.courier.start()
            if is_fresh := self._is_created:  # what on_start does is not committed yet; else the first event creates it
                await self.starting.run()
            await self._alarm.start()
            while True:
                if self._must_read and not self.pending:
                    await self._read()
                if self.pending and self.leaving != "handover":
                    await self._turn()
                    is_fresh = False
                elif self.leaving:
                    if await self._release():
                        return
                elif is_fresh:
                    await self._committed()
                    is_fresh = False
                else:
                    await self._wait_for_news()
        finally:
            self.suspicion.end_trial()
            self._alarm.stop()
            self.courier.stop()
            self.limit.stop()
            if self._in_flight is not None:
                self._in_flight.cancel()

    async def _wait_for_news(self) -> None:
        self._has_news = False
        if self._must_read:
            return
        self._waiter = self.fleet.loop.create_future()
        await self._waiter
        self._waiter = None

    async def _read(self) -> None:
        self._must_read = False
        entries = await self._ask(
            ("XRANGE", self.keys.inbox, f"{self.read_iseq + 1}-0", "+", "COUNT", self._read_count)
        )
        for entry_id, fields in entries:
            event = read_inbox_entry(entry_id, fields)
            if event.iseq <= self.read_iseq:
                continue
            if event.iseq != self.read_iseq + 1:
                raise LeaseLost(str(self.address), "gap in the inbox")
            self.pending.append(event)
            self.read_iseq = event.iseq
        self._must_read = self._must_read or len(entries) == self._read_count

    async def _turn(self) -> None:
        """Run pending events into one turn, then commit it."""
        loop, stage = self.fleet.loop, self.fleet.stage
        if not self.starting.is_done and not self.activation.concerns_nobody(self.pending[0]):
            await self.starting.run()
        first = self.unsettled = self.pending[0]
        marked = first.iseq <= self.suspicion.marked_iseq
        alone = self.fleet.setbacks.is_alone(self.address, first.iseq)
        now_s = loop.time()
        if marked:
            await self._try_marked()
        else:
            if not stage.enter(self, now_s):
                await stage.wait(self, alone=False)
                now_s = loop.time()
            await self._handle_pending(now_s + _TURN_S if self.starting.is_done and not alone else 0.0)
        stage.leave(self)
        self.used_at_s = loop.time()
        if self.leaving == "idle":
            self.leaving = ""  # it is in use again
        self.meters.turn_s.observe(self.used_at_s - now_s)
        self.busy_s += self.used_at_s - now_s
        if self._in_flight is not None:
            await self._in_flight
            self._in_flight = None
        if (answer := self._commit()) is not None:
            await answer
        self.suspicion.end_trial()
        self.unsettled = None

    async def _handle_pending(self, until_s: float) -> None:
        while True:
            event = self.inside = self.pending.popleft()
            if event.id in self.condemned:
                self.activation.condemn(event, self.condemned.pop(event.id))
            elif (rest := self.activation.handle(event)) is not None:
                await rest
            self.inside = None
            is_over = not self.pending or self.leaving == "handover" or self.activation.turn.is_full
            if is_over or self.fleet.loop.time() >= until_s:
                return

    async def _try_marked(self) -> None:
        """Handle the next event, a marked one, alone; or put it aside where too many workers died of it."""
        suspicion, convicted = self.suspicion, self.pending[0]
        if await suspicion.convicts():
            self.pending.popleft()
            reason = f"{CONVICTED}, {suspicion.strikes + 1} of them"
            self.activation.condemn(convicted, self.condemned.pop(convicted.id, reason))
        else:
            await suspicion.begin_trial(lambda: self._committed(even_empty=True, tries=True))
            await self._handle_pending(0.0)
        suspicion.strikes = 0

    async def _committed(self, *, even_empty: bool = False, tries: bool = False) -> None:
        if (answer := self._commit(even_empty=even_empty, tries=tries)) is not None:
            await answer

    def _on_suspend(self) -> None:
        """A hook waits: commit what earlier events did, and see that it ends."""
        if self.inside is None:
            return  # on_start has its own limit
        self.suspicion.end_trial()  # it may take long, and others wait
        self.limit.start(self.room_class.handler_s)
        if self._in_flight is not None and self._in_flight.done() and self._in_flight.exception() is None:
            self._in_flight = None
        if self._in_flight is None and not self.activation.is_partial and (answer := self._commit()) is not None:
            self._in_flight = asyncio.ensure_future(answer)
            self._in_flight.add_done_callback(self._early_commit_done)

    def _on_resume(self) -> None:
        self.busy_s -= self.limit.stop()

    def _early_commit_done(self, task: asyncio.Future[None]) -> None:
        """The commit under a waiting hook was refused: the hook's room is lost, stop it."""
        if not task.cancelled() and isinstance(task.exception(), LeaseLost):
            self.drop("the room was lost to another owner")

    def _cut(self) -> None:
        event = self.inside
        why = f"the handler took longer than {self.room_class.handler_s:g} s"
        log.error("room %s: %s, cut", self.address, why)
        if event is None:
            self.fleet.cut(self, self.condemned)
        elif event.kind == b"edge-gone" and self.activation.leaving:
            # Many members leave by this event: only the one whose hook hangs is spared its hook next time.
            self.fleet.cut(self, {**self.condemned, self.activation.leaving.encode(): why})
        else:
            self.fleet.cut(self, {**self.condemned, event.id: why})

    # --- Redis ----------------------------------------------------------------------------------------------------
    def _commit(self, *, even_empty: bool = False, tries: bool = False) -> Awaitable[None] | None:
        """Build the commit of the turn so far, and return what to await for its answer; None where it is empty.

        The turn is the next one's from here on. Awaiting resends the commit unchanged until there is an answer.

        Raises:
            LeaseLost: (when awaited) Refused; nothing was written.
        """
        turn = self.activation.turn
        if turn.is_empty and not even_empty:
            return None
        fleet = self.fleet
        sent_at_s = fleet.loop.time()
        keep_outputs = self._trimming.keep_count(self.version + 1, turn, sent_at_s)
        self.meters.committing(turn)
        extend = sent_at_s - self.lease_sent_at_s > fleet.times.renew_ms / 2000
        if extend:
            self.lease_sent_at_s = sent_at_s
        command = functions.commit(
            self.keys,
            token=self.token,
            version=self.version,
            worker=fleet.incarnation,
            lease_ms=fleet.times.lease_ms if extend else 0,
            keep_outputs=keep_outputs,
            turn=turn,
            shown_bytes=self._shown_bytes,
            created=self.starting.is_done and not self._is_created,
            marked=self.suspicion.marked_iseq > 0,
            tries=tries,
            shown=not fleet.is_replicated,
        )
        self._is_created = (self.starting.is_done or self._is_created) and not turn.destroy
        self._shown_bytes = turn.out_bytes + (0 if turn.destroy else self._shown_bytes)
        if turn.destroy:  # whatever comes now wants a fresh room: claim it anew
            self._is_destroyed, self.leaving = True, "handover"
        if self.suspicion.marked_iseq and turn.consumed:
            self.suspicion.committed(turn.consumed[-1])
        timers, owes, buries = self._alarm.changes(turn), bool(turn.outbox), bool(turn.dead)
        turn.clear()
        return self._confirm(command, sent_at_s, timers, owes=owes, buries=buries, extend=extend)

    async def _confirm(
        self, command: Command, sent_at_s: float, timers: Changes | None, *, owes: bool, buries: bool, extend: bool
    ) -> None:
        if timers is not None:
            await self._alarm.before(timers)
        if owes or buries:
            await self.courier.note(owes=owes, buries=buries)
        committed = functions.read_committed(await self._ask(command, self.fleet.commit_link))
        if not isinstance(committed, Committed):
            self.fleet.meters.refused_commits += 1
            log.warning("room %s: commit refused (%s) under token %s", self.address, committed, self.token)
            raise LeaseLost(str(self.address), committed)
        self.meters.commit_s.observe(self.fleet.loop.time() - sent_at_s)
        if owes:
            self.courier.owes()
        await self._announce(committed.last_id)
        self.version += 1
        if extend:
            self.confirmed_at_s = max(self.confirmed_at_s, sent_at_s)
        if timers is not None:
            await self._alarm.after(timers)

    async def _announce(self, last_id: bytes) -> None:
        """Show the edges what was committed since the last announcement, where commit may not: a replica has it now."""
        if not self.fleet.is_replicated:
            return
        await self._ask(functions.announce(self.keys, token=self.token, previous=self.last_id, last=last_id))
        self.last_id = last_id

    async def _release(self) -> bool:
        """Give the room back; False where it turned out to have backlog after all."""
        if self._in_flight is not None:
            await self._in_flight
            self._in_flight = None
        why = self.leaving
        if self.activation.runs_hook_at_sleep and not self._is_destroyed:
            await self._put_to_sleep()
            why = "handover"  # an instance that has run on_sleep is not used any more
        await self._alarm.before_release()
        self._has_news, self.is_giving_back = False, True
        reply = await self._ask(
            functions.release(
                self.keys,
                token=self.token,
                worker=self.fleet.incarnation,
                force=why == "handover",
                window_ms=RESUME_WINDOW_MS,
            )
        )
        released = functions.read_released(reply)
        if released.backlog or self._has_news or self.courier.holds:
            self.wanted = True  # something came while it was given back, or is still owed
        if released.ours:
            self.leaving, self.is_giving_back = "", False
            self._must_read = True
            return False
        return True

    async def _put_to_sleep(self) -> None:
        try:
            async with asyncio.timeout(self.room_class.handler_s):
                await self.activation.sleep()
        except TimeoutError:
            log.warning("room %s: on_sleep took longer than %g s, cut", self.address, self.room_class.handler_s)
        await self._committed()
