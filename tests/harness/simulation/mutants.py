"""Deliberately broken edges and workers: each takes away one thing that a promise stands on."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from innkeeper import functions
from innkeeper.activation.hooks import Hooks
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.functions import Committed
from innkeeper.timetable import Timetable
from innkeeper_edge.chain import Chain, Verdict
from innkeeper_edge.edge import Edge
from innkeeper_edge.feed import Feed
from innkeeper_edge.ingress import Ingress, _drop
from innkeeper_workers.alarm import Alarm
from innkeeper_workers.owner import Owner
from innkeeper_workers.pulse import Pulse
from innkeeper_workers.timers import LookOut

Mutate = Callable[[pytest.MonkeyPatch], None]
_WORDS_AT = 7  # of a push: edge, batch and more


def _nothing(*_: object) -> None:
    pass


def edge_sees_no_holes(patch: pytest.MonkeyPatch) -> None:
    """A fresh subscription is none, and what comes after a hole is delivered as if there were no hole."""
    judge = Chain.judge

    def careless(self: Chain, batch: Any, *, young: bool) -> Verdict:
        verdict = judge(self, batch, young=young)
        return Verdict.APPEND if verdict is Verdict.FILL and batch.outputs else verdict

    patch.setattr(Chain, "judge", careless)
    patch.setattr(Edge, "_on_fresh", _nothing)


def edge_forgets_what_it_had(patch: pytest.MonkeyPatch) -> None:
    """A batch that comes a second time is delivered a second time."""
    judge = Chain.judge

    def forgetful(self: Chain, batch: Any, *, young: bool) -> Verdict:
        verdict = judge(self, batch, young=young)
        return Verdict.APPEND if verdict is Verdict.REPEAT else verdict

    patch.setattr(Chain, "judge", forgetful)


def edge_trusts_pubsub(patch: pytest.MonkeyPatch) -> None:
    """Neither a fresh subscription nor the sweep makes the edge look for what it missed."""
    patch.setattr(Edge, "_on_fresh", _nothing)
    patch.setattr(Feed, "look", _nothing)


def edge_joins_before_it_listens(patch: pytest.MonkeyPatch) -> None:
    """A join is pushed while the subscription and the position are still on their way."""

    async def at_once(self: Feed) -> None:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.sleep(0)

    patch.setattr(Feed, "opened", at_once)


def _renumbered(words: str, batch: int) -> str:
    edge, _, *more = words.split(" ")
    return " ".join((edge, str(batch), *more))


def edge_numbers_resends_anew(patch: pytest.MonkeyPatch) -> None:
    """A push without an answer is sent again under a new batch number."""

    async def send(self: Ingress, commands: list[Any]) -> list[Any]:
        while True:
            try:
                return await self._edge.link.send(commands)
            except RedisUnavailable:
                await asyncio.sleep(0.02)
                self._batch += 1
                commands = [
                    (*c[:_WORDS_AT], _renumbered(c[_WORDS_AT], self._batch), *c[_WORDS_AT + 1 :]) for c in commands
                ]

    patch.setattr(Ingress, "_send", send)


def edge_drops_what_redis_refused(patch: pytest.MonkeyPatch) -> None:
    """A push answered with an error is taken as done."""
    answered = Ingress._answered

    def careless(self: Ingress, inlet: Any, batch: Any, reply: Any) -> bool:
        if isinstance(reply, RedisReplied) and "EDGE_CLOSED" not in str(reply):
            _drop(batch.events)
            return False
        return answered(self, inlet, batch, reply)

    patch.setattr(Ingress, "_answered", careless)


def worker_believes_the_bell(patch: pytest.MonkeyPatch) -> None:
    """An event from the bell is taken although one before it was not."""

    def ring(self: Owner, events: list[Any]) -> None:
        if not events:
            self._must_read = True
        for event in events:
            if event.iseq > self.read_iseq:
                self.pending.append(event)
                self.read_iseq = event.iseq
        self._notify()

    patch.setattr(Owner, "ring", ring)


def worker_takes_silence_for_yes(patch: pytest.MonkeyPatch) -> None:
    """A commit without an answer is not sent again but taken as done."""
    confirm = Owner._confirm

    async def hopeful(self: Owner, command: Any, sent_at_s: float, timers: Any, **rest: bool) -> None:
        try:
            committed = functions.read_committed((await self.fleet.link.send((command,)))[0])
        except RedisUnavailable:
            self.version += 1
            return
        except RedisReplied:
            await confirm(self, command, sent_at_s, timers, **rest)
            return
        if isinstance(committed, Committed):
            self.version += 1
            self.confirmed_at_s = max(self.confirmed_at_s, sent_at_s if rest["extend"] else 0.0)
        else:
            await confirm(self, command, sent_at_s, timers, **rest)

    patch.setattr(Owner, "_confirm", hopeful)


def worker_keeps_what_failed(patch: pytest.MonkeyPatch) -> None:
    """What a hook did before it raised is not undone."""
    patch.setattr(Hooks, "undo", _nothing)


def worker_lets_dead_edges_be(patch: pytest.MonkeyPatch) -> None:
    """Nobody reaps the members of an edge that is gone."""

    async def nobody(self: Pulse) -> None:
        pass

    patch.setattr(Pulse, "_watch_edges", nobody)


def worker_never_looks_out(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks for timers of rooms that have no owner."""

    async def nothing_due(self: LookOut) -> float:
        del self
        return 0.25

    patch.setattr(LookOut, "look", nothing_due)


def owner_keeps_timers_to_itself(patch: pytest.MonkeyPatch) -> None:
    """The index does not learn of timers."""

    async def nowhere(self: Alarm, due_ms: int) -> None:
        del self, due_ms

    patch.setattr(Alarm, "_write", nowhere)


def worker_runs_a_timer_and_keeps_it(patch: pytest.MonkeyPatch) -> None:
    """A timer that has run is fired again, because its row is set anew as it was."""
    patch.setattr(Timetable, "advance", Timetable.rearm)


# What is broken, and the faults that should show it.
MUTANTS: tuple[tuple[Mutate, tuple[str, ...]], ...] = (
    (edge_sees_no_holes, ("cut_pubsub",)),
    (edge_forgets_what_it_had, ("cut_pubsub",)),
    (edge_trusts_pubsub, ("hold", "cut_pubsub")),
    (edge_joins_before_it_listens, ("slow",)),
    (edge_numbers_resends_anew, ("drop_reply",)),
    (edge_drops_what_redis_refused, ("forget_functions",)),
    (worker_believes_the_bell, ("cut_pubsub",)),
    (worker_takes_silence_for_yes, ("slow", "cut")),
    (worker_keeps_what_failed, ()),
    (worker_lets_dead_edges_be, ("kill_edge",)),
    (worker_never_looks_out, ()),
    (owner_keeps_timers_to_itself, ()),
    (worker_runs_a_timer_and_keeps_it, ()),
)
