"""What truly happened in Redis: every act with its reply, heard by anybody or not; a stale write shows at once."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from fakeredis._helpers import SimpleError

from harness.simulation.server import Fields, ServerEnd
from innkeeper.functions import Committed, read_committed, read_pushed
from innkeeper.functions.timers import read_fired
from innkeeper.wire import read_inbox_entry

_KEYS_AT = 3
_COUNTS_AT = 9  # among a commit's words after the token
_FALSE_REFUSALS = ("input", "gap")


@dataclass
class Accepted:
    """One event in an inbox."""

    id: str
    kind: str
    connection: str
    edge: str
    data: bytes


@dataclass
class RoomRecord:
    """The history of one room.

    Attributes:
        events: From iseq 1 on.
        outputs: Header and body, from oseq 1 on.
        token: Of the owner; empty when there is none.
        fired: Timers that have fired: name and id.
        committed: Commits that were carried out, as hashes of all that was sent.
        let_in_at_s: When the join of a connection was committed.
        refused_at_s: When it last refused an event because its backlog was full.
    """

    events: list[Accepted] = field(default_factory=list)
    outputs: list[tuple[bytes, bytes]] = field(default_factory=list)
    token: str = ""
    version: int = 0
    let_in_at_s: dict[str, float] = field(default_factory=dict)
    refused_at_s: float = -1.0
    released: set[str] = field(default_factory=set)
    fired: set[tuple[str, str]] = field(default_factory=set)
    committed: set[int] = field(default_factory=set)


def _blind(*words: object) -> Any:
    raise AssertionError(f"no server to ask {words}")


class Record:
    """Taps a server.

    Args:
        clock: Says when.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.rooms: defaultdict[str, RoomRecord] = defaultdict(RoomRecord)
        self.bitten: Counter[str] = Counter()
        self.violations: list[str] = []
        self.peek: Callable[..., Any] = _blind  # a look into the server
        self.buried: dict[str, str] = {}  # incarnations that heard of their death, and their processes

    def tap(self, end: ServerEnd, fields: Fields, reply: Any) -> None:
        """Take one command with its reply."""
        if fields[0] != b"FCALL":
            return
        act = fields[1].decode().rsplit("_", 1)[0].removeprefix("inn_")
        if isinstance(reply, SimpleError):
            self.bitten[f"{act} answered {reply.value.split()[0]}"] += 1
            return
        if act == "heartbeat":
            incarnation = fields[_KEYS_AT + 1].decode()
            if reply[0] == 0 and incarnation != "-":  # that one asks for the time
                self.bitten["declared dead"] += 1
                self.buried[incarnation] = end.name.split("#")[0]
            return
        handler = getattr(self, f"_{act}", None)
        if handler is not None:
            room = fields[_KEYS_AT].split(b"}")[0].split(b"{")[1].decode()
            handler(room, self.rooms[room], fields[_KEYS_AT + int(fields[2]) :], reply)

    def _push(self, room: str, record: RoomRecord, args: Fields, reply: Any) -> None:
        pushed = read_pushed(reply)
        letters, iseq = pushed.letters, pushed.first_iseq
        edge, stamp = args[0].decode().split(" ")[0], ""
        self.bitten["events refused as busy"] += letters.count("b")
        if "b" in letters:
            record.refused_at_s = self._clock()
        if iseq and iseq <= len(record.events):
            self.bitten["pushes sent again"] += 1
        for n, letter in enumerate(letters):
            if letter == "a":
                words, data = args[1 + 2 * n : 3 + 2 * n]
                kind, connection, *_ = words.decode().split(" ")
                event = Accepted(stamp, kind, connection, edge, data)
                self._accept(room, record, iseq, event)
                iseq += 1

    def _reap_edge(self, room: str, record: RoomRecord, args: Fields, reply: Any) -> None:
        if reply[0] == 1:
            self.bitten["edges reaped in a room"] += 1
            event = Accepted("", "edge-gone", "-", args[0].decode(), b"")
            self._accept(room, record, len(record.events) + 1, event)

    def _fire(self, room: str, record: RoomRecord, args: Fields, reply: Any) -> None:
        """Take the events that timers have made; each setting of a timer fires once, when its time has come."""
        del args
        fired = read_fired(reply)
        self.bitten["timers fired"] += fired.appended
        if not fired.appended:
            return
        entries = self.peek("XREVRANGE", f"inn:{{{room}}}:inbox", "+", "-", "COUNT", fired.appended)
        for entry_id, fields in reversed(entries):
            event = read_inbox_entry(entry_id, fields)
            self._accept(room, record, event.iseq, Accepted("", event.kind.decode(), "-", "", event.data))
            timer = orjson.loads(event.data)
            if timer["due"] * 1000 > event.time_us:
                self.violations.append(f"{room}: timer {timer} fired early, at {event.time_us}")
            if (timer["name"], timer["id"]) in record.fired:
                self.violations.append(f"{room}: timer {timer} fired again")
            record.fired.add((timer["name"], timer["id"]))

    def _accept(self, room: str, record: RoomRecord, iseq: int, event: Accepted) -> None:
        if iseq <= len(record.events):
            if record.events[iseq - 1] != event:
                self.violations.append(f"{room}: two events have the number {iseq}: {record.events[iseq - 1]}, {event}")
        elif iseq == len(record.events) + 1:
            record.events.append(event)
        else:
            self.violations.append(f"{room}: event {iseq} follows event {len(record.events)}")

    def _claim(self, room: str, record: RoomRecord, args: Fields, reply: Any) -> None:
        del room, args
        if reply[0] != 1:
            self.bitten["claims of a held room"] += 1
            return
        token = reply[1].decode()
        if token in record.released or token == record.token:
            self.bitten["claims sent again"] += 1
            return
        self.bitten["takeovers"] += bool(record.token)
        record.token = token

    def _commit(self, room: str, record: RoomRecord, args: Fields, reply: Any) -> None:
        token, *words = args[0].decode().split(" ")
        version, consumed, counts = int(words[0]), int(words[2]), words[_COUNTS_AT:]
        committed = read_committed(reply)
        if not isinstance(committed, Committed):
            if hash(tuple(args)) in record.committed:
                self.bitten["late copies of commits refused"] += 1  # from a connection that was given up
                return
            self.bitten[f"commits refused: {committed}"] += 1
            if committed in _FALSE_REFUSALS or token == record.token:
                self.violations.append(f"{room}: the owner's commit was refused: {committed}")
            return
        if token != record.token:
            self.violations.append(f"{room}: stale write: {token} committed, the room belongs to {record.token!r}")
        if version == record.version - 1:
            self.bitten["commits sent again"] += 1
            return
        if version != record.version:
            self.violations.append(f"{room}: version {version} committed over {record.version}")
        record.version = version + 1
        record.committed.add(hash(tuple(args)))
        outputs = args[1 + consumed + sum(map(int, filter(None, counts))) :]
        record.outputs += zip(outputs[::2], outputs[1::2], strict=True)
        for header in outputs[::2]:
            if header.startswith(b"join "):
                record.let_in_at_s[header.split(b" ")[2].decode()] = self._clock()

    def _renew(self, room: str, record: RoomRecord, args: Fields, reply: Any) -> None:
        del room, record, args
        self.bitten["renewals refused"] += reply[0] == 0

    def _release(self, room: str, record: RoomRecord, args: Fields, reply: Any) -> None:
        del room
        token = args[0].decode()
        if reply[0] == 1:
            self.bitten["releases sent again" if token in record.released else "releases"] += 1
            record.released.add(token)
            if record.token == token:
                record.token = ""
        elif reply[0] == 2:
            self.bitten["releases refused for backlog"] += 1
