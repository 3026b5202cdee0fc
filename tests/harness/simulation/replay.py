"""A room as it must be: its accepted events, one after another, through what the rooms of a simulation do."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from harness.history import Step
from harness.simulation.record import Accepted
from harness.simulation.rooms import SURE, TICKS
from innkeeper_workers.suspicion import CONVICTED

_MUST_FAIL = ("raise", "wait-raise", "hang")
_SLOW = ("wait", "wait-raise", "hang")


class Replay:
    """Applies all events at once.

    Args:
        events: In the order of the inbox.
        names: Of the connections.
        dead: The fields of the entries of ``dead``.
        deaths: How many workers were killed: fewer than three convict no event.

    Attributes:
        steps: What the room's chronicle must say.
        members: Who must be in, by connection.
        timers: How often each timer that is set must run yet, by name.
        accepted: How many of its sure messages were accepted while it was a member, by name.
        convicted_senders: Of whom a message was put aside, by name: it killed its workers, or chance did three times.
        violations: Events put aside that should not have been, or the other way round.
    """

    def __init__(
        self, events: Sequence[Accepted], names: Mapping[str, str], dead: Sequence[dict[bytes, bytes]], deaths: int
    ) -> None:
        self.steps: list[Step] = []
        self.members: dict[str, str] = {}
        self.accepted: Counter[str] = Counter()
        self.convicted_senders: set[str] = set()
        self.timers: Counter[str] = Counter()
        self.violations: list[str] = []
        self._names = names
        self._dead = Counter(map(_iseq, dead))
        self._convicted = {_iseq(entry) for entry in dead if entry[b"error"].startswith(CONVICTED.encode())}
        self._cut_leaves = {(_iseq(entry), entry[b"error"].split(b":")[0].split()[-1].decode()) for entry in dead}
        for iseq, event in enumerate(events, 1):
            if iseq in self._convicted and deaths < 3 and not self._is_slow(event):
                self.violations.append(f"event {iseq} was convicted after {deaths} deaths of workers")
            self._apply(iseq, event)
        if self._dead:
            self.violations.append(f"dead holds events that are not there: {dict(self._dead)}")

    def _apply(self, iseq: int, event: Accepted) -> None:
        failed = self._dead.pop(iseq, 0)
        match event.kind:
            case "join":
                self._join(iseq, event, failed)
            case "text" if event.connection in self.members:
                self._message(iseq, event, orjson.loads(event.data), failed)
            case "leave" if event.connection in self.members:
                self._expect(iseq, failed, int(self._leave(iseq, event.connection, failed)))
            case "timer":
                self._timer(iseq, orjson.loads(event.data)["name"], failed)
            case "edge-gone":
                gone = [connection for connection, edge in self.members.items() if edge == event.edge]
                self._expect(iseq, failed, sum(self._leave(iseq, connection, 0) for connection in gone))
            case _:
                self._expect(iseq, failed, 0)

    def _is_slow(self, event: Accepted) -> bool:
        """Whether its hook may be cut again and again, by workers that had no time left to put it aside."""
        if event.kind == "text":
            return orjson.loads(event.data)["do"] in _SLOW
        return event.kind != "join"  # the hook of a leave may wait or hang

    def _traits(self, connection: str) -> set[str]:
        return set(self._names.get(connection, "").split("+"))

    def _expect(self, iseq: int, failed: int, expected: int) -> None:
        if failed != expected and iseq not in self._convicted:
            self.violations.append(f"event {iseq} stands {failed} times in dead, {expected} expected")

    def _join(self, iseq: int, event: Accepted, failed: int) -> None:
        if iseq in self._convicted:
            return
        traits = self._traits(event.connection)
        self._expect(iseq, failed, int("raises" in traits))
        if not {"raises", "refused"} & traits:
            self.members[event.connection] = event.edge
            self.steps.append(Step("join", self._names[event.connection]))

    def _message(self, iseq: int, event: Accepted, message: dict[str, Any], failed: int) -> None:
        do, name = message["do"], self._names[event.connection]
        if iseq in self._convicted:
            self.convicted_senders.add(name)
            return
        if do == "wait" and failed == 1:  # time may run out for one that waits
            return
        self._expect(iseq, failed, int(do in _MUST_FAIL))
        if do in SURE:
            self.accepted[name] += 1
            self.steps.append(Step("say", name, message["i"]))
        elif do not in _MUST_FAIL:
            if do == "timer":
                m = message["m"]
                left = TICKS if m % 3 == 0 else 1
                self.timers[f"{name}/{m}/{left}"] = left
            self.steps.append(Step(do, name, message["m"]))

    def _timer(self, iseq: int, name: str, failed: int) -> None:
        """Run a timer: it was set, and has runs left."""
        sender, m, _ = name.split("/")
        if name not in self.timers:
            self.violations.append(f"event {iseq} is of timer {name}, which is not set")
            return
        if iseq in self._convicted:
            if name.endswith("/1"):
                del self.timers[name]
            return
        self._expect(iseq, failed, 0)
        self.steps.append(Step("timer", sender, int(m)))
        self.timers[name] -= 1
        if not self.timers[name]:
            del self.timers[name]

    def _leave(self, iseq: int, connection: str, failed: int) -> bool:
        """Take a member out; return whether its hook failed."""
        del self.members[connection]
        traits = self._traits(connection)
        if {"leave-raises", "leave-hangs"} & traits:
            return True
        if "leave-waits" in traits and (failed or (iseq, connection) in self._cut_leaves):
            return True
        if iseq not in self._convicted:
            self.steps.append(Step("leave", self._names[connection]))
        return False


def _iseq(entry: dict[bytes, bytes]) -> int:
    return int(entry[b"id"].split(b"-")[0])
