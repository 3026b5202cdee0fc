"""What a room's keys must hold after each act, from the laws of docs/protocol.md; and whether they do.

Every act that reaches the server is judged here in the order in which the server carried it out: its answer, what it
published, and what stands in the keys afterwards.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from harness.model import acts
from harness.model.history import Violation, hold
from harness.model.published import judge_bell, judge_out
from harness.model.sessions import Row, letters_of
from innkeeper import functions
from innkeeper.channel import Command, Reply
from innkeeper.errors import EdgeClosed
from innkeeper.functions import Pushed
from innkeeper.keys import RoomKeys
from innkeeper.wire import InboxEvent, parse_id, read_inbox_entry

Pairs = dict[bytes, bytes]

HASHES = ("meta", "state", "members", "timers", "sessions")
PARTS = (*HASHES, "inbox", "outlog", "outbox", "dead")
_INBOX_TAIL = 8
_OUTLOG_TAIL = 24


def looks(keys: RoomKeys) -> list[Command]:
    """Return the commands whose answers :meth:`Ghost.compare` takes."""
    hashes: list[Command] = [("HGETALL", getattr(keys, part)) for part in HASHES]
    return [
        *hashes,
        ("GET", keys.lock),
        ("XLEN", keys.inbox),
        ("XREVRANGE", keys.inbox, "+", "-", "COUNT", _INBOX_TAIL),
        ("XLEN", keys.outlog),
        ("XREVRANGE", keys.outlog, "+", "-", "COUNT", _OUTLOG_TAIL),
        ("XLEN", keys.outbox),
        ("XLEN", keys.dead),
    ]


def expiry_looks(keys: RoomKeys) -> list[Command]:
    """Return the commands whose answers :meth:`Ghost.compare_expiry` takes."""
    return [("PTTL", getattr(keys, part)) for part in PARTS]


class Output(NamedTuple):
    """An outlog entry: id, header, body, bytes of all outputs before its turn."""

    id: bytes
    header: bytes
    body: bytes
    before: int


@dataclass
class Ghost:
    """The room as it must be. ``log[log_at:]`` stands in the outlog.

    The inbox holds the events from iseq ``first`` on, but for ``holes`` committed ones: a turn of a single event takes
    it out, longer turns leave theirs to the next trimming.
    """

    meta: Pairs = field(default_factory=dict)
    state: Pairs = field(default_factory=dict)
    members: Pairs = field(default_factory=dict)
    timers: Pairs = field(default_factory=dict)
    edges: dict[str, str] = field(default_factory=dict)  # name → "batch first letters" or "closed 0 -"
    clients: dict[str, Row] = field(default_factory=dict)
    hash: int | None = None
    at: int = 0  # the cursor's copy, by which push counts
    lock: bytes = b""
    events: list[InboxEvent] = field(default_factory=list)
    first: int = 1
    holes: int = 0
    has_inbox: bool = False
    log: list[Output] = field(default_factory=list)
    log_at: int = 0
    outbox: int = 0
    dead: int = 0
    expiring: frozenset[str] = frozenset()
    committed: acts.Commit | None = None
    listening: bool = False
    inbox_tail: list[Any] = field(default_factory=list)  # as compared last: most acts leave it alone
    outlog_tail: list[Any] = field(default_factory=list)
    trimming: int = 0  # the last act was a commit that trims, keeping this many outputs

    def saved(self) -> "Ghost":
        """Return a copy, for a roll-back to this moment."""
        return replace(
            self, meta=self.meta.copy(), state=self.state.copy(), members=self.members.copy(),
            timers=self.timers.copy(), edges=self.edges.copy(), clients=self.clients.copy(), events=self.events[:],
            log=self.log[:],
        )  # fmt: skip

    def vanished(self) -> "Ghost":
        """Return the room after the resume window: what was to expire is gone."""
        if "inbox" in self.expiring:
            return Ghost(listening=self.listening)
        room = replace(self, log_at=len(self.log), expiring=frozenset())
        if "meta" in self.expiring:  # an empty room that was pushed to: only what was pushed is still there
            room.meta, room.log, room.log_at = {}, [], 0
        if "sessions" in self.expiring:
            room.hash, room.edges, room.clients = None, {}, {}
        return room

    # --- what follows from the rest -----------------------------------------------------------------------------------
    @property
    def token(self) -> str:
        """The token stored, empty if there is none."""
        return self.meta.get(b"token", b"").decode()

    @property
    def cursor(self) -> int:
        """The committed part of the inbox."""
        return int(self.meta.get(b"cursor", b"0"))

    @property
    def last_iseq(self) -> int:
        """The number of the last event: stored, or the inbox's last id."""
        if self.hash is not None:
            return self.hash
        return len(self.events) if self.has_inbox else 0

    @property
    def committed_copy(self) -> int:
        """The cursor's copy, by which push counts."""
        return self.last_iseq if self.hash is None else self.at

    def _exists(self, part: str) -> bool:
        streams = {"inbox": self.has_inbox, "outlog": self.log_at < len(self.log), "outbox": self.outbox > 0,
                   "dead": self.dead > 0, "sessions": self.hash is not None}  # fmt: skip
        return streams[part] if part in streams else bool(getattr(self, part))

    # --- the acts -----------------------------------------------------------------------------------------------------
    def judge(self, act: acts.Act, reply: Reply, out: list[bytes], bell: list[bytes]) -> str:
        """Check an act's answer and what it published, and take its effect; say in a word what became of it."""
        self.trimming = 0
        if not isinstance(act, acts.Commit):
            hold("only a commit shows outputs", out, [])
        if not isinstance(act, acts.Push | acts.Reap):
            hold("only new events ring the bell", bell, [])
        match act:
            case acts.Push():
                return self._push(act, reply, bell)
            case acts.Claim():
                return self._claim(act, reply)
            case acts.Commit():
                return self._commit(act, reply, out)
            case acts.Release():
                return self._release(act, reply)
            case acts.Renew():
                return self._renew(act, reply)
            case acts.Reap():
                return self._reap(act, reply, bell)

    def _push(self, act: acts.Push, reply: Reply, bell: list[bytes]) -> str:
        row = self.edges.get(act.edge)
        if act.silent or (row or "").startswith("closed"):
            judge_bell(bell, rung=False)
            hold("a dead edge pushes nothing", type(reply), EdgeClosed)
            return "closed"
        rung = bool(self.lock) and self.listening
        receivers = int(rung)
        batch, first, letters = row.split(" ") if row else ("-1", "0", "")
        before = int(batch) if row else 0  # by which the edge notices a cut history
        pushed = functions.read_pushed(reply)
        if act.batch == int(batch):
            judge_bell(bell, rung=rung)
            hold("a batch counts once: same answer", pushed, Pushed(letters, int(first), self.lock, receivers, before))
            return "repeat"
        if act.batch < int(batch):
            judge_bell(bell, rung=False)
            letters = "o" * len(act.events)
            hold("a batch counts once: older ones are old", pushed, Pushed(letters, 0, self.lock, 1, before))
            return "old"
        start, absent = self.last_iseq, self.hash is None and not self.last_iseq
        letters, events, clients = letters_of(
            act.events, self.clients, act.edge.encode(), start, self.committed_copy + act.backlog_count, absent=absent
        )
        if absent and not events:
            judge_bell(bell, rung=False)
            hold("push letters", pushed, Pushed(letters, 0, self.lock, 0, before))
            return "void"
        hold("push letters", pushed, Pushed(letters, start + 1 if events else 0, self.lock, receivers, before))
        self.clients |= clients
        self.edges[act.edge] = f"{act.batch} {start + 1 if events else 0} {letters}"
        self._append(start, events)
        judge_bell(bell, rung=rung, events=events)
        return "new"

    def _append(self, start: int, events: list[InboxEvent]) -> None:
        self.at, self.hash = self.committed_copy, start + len(events)
        self.events += events
        self.has_inbox = self.has_inbox or bool(events)
        self.expiring -= {"inbox", "sessions"}

    def _claim(self, act: acts.Claim, reply: Reply) -> str:
        stored, mark = self.token.rpartition(":")[2], str(act.mark)
        epoch = int(self.meta.get(b"epoch", b"0"))
        if mark in (stored, self.meta.get(b"released", b"-").decode()):
            token = f"{epoch}:{mark}"
            if stored == mark:
                self.lock = f"{act.worker}:{token}".encode()
            self._claimed(token, reply)
            return "again"
        others = int(self.listening) - act.own_subscriptions
        if self.lock and (self.lock != act.seen or others > 0):
            hold("a claim evicts only the lock seen", reply[:2], [0, self.lock])
            hold("claim counts the bell's listeners", reply[3], others)
            return "held"
        word = "stolen" if self.lock else "owned"
        start, cursor = self.last_iseq, self.cursor if b"cursor" in self.meta else self.committed_copy
        start = max(start, cursor) if self.hash is None else start
        self._trim_inbox(cursor)
        if start < cursor or start - cursor != len(self.events) - self.first + 1:
            raise Violation("no contradictions", f"# {start}, cursor {cursor}, inbox {self.first}..{len(self.events)}")
        self.hash, self.at = start, cursor
        word += self._suspect(start, cursor, act.worker.encode())
        token = f"{epoch + 1}:{mark}"
        self.meta |= {
            b"token": token.encode(), b"epoch": b"%d" % (epoch + 1), b"worker": act.worker.encode(),
            b"cursor": b"%d" % cursor, b"version": self.meta.get(b"version", b"0"),
            b"last": self.meta.get(b"last", b"0-0"),
        }  # fmt: skip
        self.meta.pop(b"released", None)
        self.lock = f"{act.worker}:{token}".encode()
        self.expiring = frozenset()
        self._claimed(token, reply)
        return word

    def _suspect(self, last: int, cursor: int, worker: bytes) -> str:
        """Mark the backlog of an owner that did not release; count its death against the event that it tried."""
        tried = self.meta.pop(b"try", b"-1")
        if not self.token or last <= cursor:
            self.meta.pop(b"strikes", None)
            self.meta.pop(b"marked", None)
            return ""
        struck = int(tried) == cursor + 1 and self.meta[b"worker"] != worker
        strikes = int(self.meta.get(b"strikes", b"0")) + struck
        self.meta |= {b"strikes": b"%d" % strikes, b"marked": b"%d" % last}
        return " unclean, struck" if struck else " unclean"

    def _claimed(self, token: str, reply: Reply) -> None:
        hold("a right claim counts", reply[0], 1)
        parts: list[Any] = [reply[0], reply[1], *(_pairs(part) for part in reply[2:6]), int(reply[6])]
        wanted = [1, token.encode(), self.meta, self.state, self.members, self.timers, self.last_iseq]
        if self.hash is None:
            wanted[-1] = self.cursor
        hold("a claim answers the room as stored", parts, wanted)

    def refusals(self, act: acts.Commit) -> set[bytes]:
        """Return the reasons for which a commit may be refused; none: it must count."""
        if not self.token or act.token != self.token:
            return {b"token"}
        if act.version != int(self.meta[b"version"]):
            return {b"version"}
        reasons, consumed = set(), act.turn.consumed
        for n, entry_id in enumerate(consumed, 1):
            iseq = parse_id(entry_id)[0]
            # Of committed events nobody knows whether they stand there still.
            if not self.cursor < iseq <= len(self.events) or self.events[iseq - 1].id != entry_id:
                reasons.add(b"input")
            if iseq != self.cursor + n:
                reasons.add(b"gap")
        if consumed and parse_id(consumed[-1])[0] - parse_id(consumed[0])[0] >= len(consumed):
            reasons.add(b"input")
        return reasons

    def _commit(self, act: acts.Commit, reply: Reply, out: list[bytes]) -> str:
        refusals, version = self.refusals(act), int(self.meta.get(b"version", b"0"))
        if refusals == {b"version"} and version == act.version + 1:
            hold("only outputs just stored are shown", out, [])
            hold("a commit counts once: same answer", reply, self.meta[b"last"])
            if self.committed is not act:
                raise Violation("a commit counts once", "another one was taken for its repeat")
            return "repeat"
        if refusals:
            hold("only outputs just stored are shown", out, [])
            if reply not in refusals:
                raise Violation("a wrong commit is refused", f"answered {reply!r}, must be refused for {refusals}")
            return f"refused {reply.decode()}"
        previous, old_cursor, mark = self.meta[b"last"], self.cursor, act.token.rpartition(":")[2].encode()
        self._change(act)
        self._show(act, mark)
        hold("a right commit counts", reply, self.meta[b"last"])
        judge_out(out, act.turn.outputs, previous=previous, mark=mark, cursors=(old_cursor, self.cursor))
        self.committed = act
        return "destroyed" if act.turn.destroy else "committed"

    def _change(self, act: acts.Commit) -> None:
        """Take what a turn changes in hashes and streams, but for its outputs and counters."""
        turn, meta = act.turn, self.meta
        if turn.destroy:
            self.state, self.members, self.timers, self.log_at, self.dead = {}, {}, {}, len(self.log), 0
            meta.pop(b"created", None)
            meta[b"bytes"] = b"0"
        elif act.created:
            meta.setdefault(b"created", b"1")
        _apply(self.state, turn.state_set, turn.state_del)
        _apply(self.members, turn.members_set, turn.members_del)
        _apply(self.timers, turn.timers_set, turn.timers_del)
        for session in self.clients.keys() & turn.sessions_closed:
            self.clients[session] = self.clients[session]._replace(state="closed", moved="")
        self.dead += len(turn.dead)
        posted = int(meta.get(b"posted", b"0")) + len(turn.outbox)
        if posted:
            meta[b"posted"] = b"%d" % posted
        self.outbox += len(turn.outbox)

    def _show(self, act: acts.Commit, mark: bytes) -> None:
        """Take a turn's outputs, and move version, cursor, suspicion and lease on."""
        turn, meta = act.turn, self.meta
        before, oseq = int(meta.get(b"bytes", b"0")), parse_id(meta[b"last"])[0]
        for header, body in turn.outputs:
            oseq += 1
            meta[b"last"] = b"%d-%b" % (oseq, mark)
            self.log.append(Output(meta[b"last"], header, body, before))
        total = before + sum(len(header) + len(body) for header, body in turn.outputs)
        self.at = cursor = self.cursor + len(turn.consumed)
        meta |= {b"version": b"%d" % (act.version + 1), b"cursor": b"%d" % cursor, b"bytes": b"%d" % total}
        if cursor >= int(meta.get(b"marked", b"0")):
            for field_name in (b"try", b"strikes", b"marked"):
                meta.pop(field_name, None)
        elif turn.consumed:
            meta.pop(b"try", None)
            meta[b"strikes"] = b"0"
        if act.tries and not turn.destroy and b"marked" in meta:
            meta[b"try"] = b"%d" % (cursor + 1)
        if act.extends:
            self.lock = f"{act.worker}:{act.token}".encode()
        if act.keep_outputs:
            self.trimming = act.keep_outputs
            self._trim_inbox(cursor)
        elif len(turn.consumed) == 1:
            self.holes += 1

    def _trim_inbox(self, cursor: int) -> None:
        self.first, self.holes = max(self.first, cursor + 1), 0

    def _release(self, act: acts.Release, reply: Reply) -> str:
        backlog = max(self.last_iseq - self.cursor, 0)
        if not self.token and self.meta.get(b"released", b"-").decode() == act.token.rpartition(":")[2]:
            hold("a release counts once: same answer", reply, [1, backlog])
            return "repeat"
        if not self.token or self.token != act.token:
            hold("only the owner releases", reply, [0, b"token"])
            return "refused"
        if backlog and not act.force:
            hold("no release with backlog", reply, [2, backlog])
            return "backlog"
        hold("release answer", reply, [1, backlog])
        self.meta |= {b"token": b"", b"released": act.token.rpartition(":")[2].encode()}
        if self.lock == f"{act.worker}:{act.token}".encode():
            self.lock = b""
        self._trim_inbox(self.cursor)
        if backlog:
            return "handed over"
        parts = {"outlog"} if self.members else {"outlog", "sessions"}
        if not (self.members or self.state or self.timers or self.dead or self.outbox):
            parts = set(PARTS)
        self.expiring = frozenset(part for part in parts if self._exists(part))
        return "released empty" if "meta" in self.expiring else "released"

    def _renew(self, act: acts.Renew, reply: Reply) -> str:
        if not self.token or act.token != self.token:
            hold("only the owner renews", reply, [0, b"token"])
            return "refused"
        hold("renew answer", reply, [1, b"%d" % (self.hash or 0)])
        self.lock = f"{act.worker}:{act.token}".encode()
        return "renewed"

    def _reap(self, act: acts.Reap, reply: Reply, bell: list[bytes]) -> str:
        rung = bool(self.lock) and self.listening
        judge_bell(bell, rung=rung)
        if self.edges.get(act.edge, "").startswith("closed"):
            hold("an edge is reaped once", reply, [0, self.lock, int(rung)])
            return "again"
        hold("reap answer", reply, [1, self.lock, int(rung)])
        start = self.last_iseq
        gone = InboxEvent(b"", start + 1, b"edge-gone", b"-", act.edge.encode(), b"", 0, 0, b"")
        self._append(start, [gone])
        self.edges[act.edge] = "closed 0 -"
        return "reaped"

    # --- what the keys hold -------------------------------------------------------------------------------------------
    def compare(self, replies: list[Reply]) -> None:
        """Compare with what :func:`looks` found."""
        meta, state, members, timers, sessions, lock, inbox, tail, outlog, log_tail, outbox, dead = replies
        hold("meta", _pairs(meta), self.meta)
        hold("state", _pairs(state), self.state)
        hold("members", _pairs(members), self.members)
        hold("timers", _pairs(timers), self.timers)
        self._compare_sessions(_pairs(sessions))
        hold("lock", lock or b"", self.lock)
        if self.lock and not self.lock.endswith(b":" + self.token.encode()):
            raise Violation("a lock names the stored token", f"{self.lock!r} {self.token}")
        self._compare_inbox(inbox, tail)
        self._compare_outlog(outlog, log_tail)
        hold("outbox", outbox, self.outbox)
        hold("dead", dead, self.dead)

    def _compare_sessions(self, found: Pairs) -> None:
        if self.hash is None:
            hold("sessions", found, {})
            return
        hold("backlog: #", found.pop(b"#", b""), b"%d" % self.hash)
        hold("backlog: @", found.pop(b"@", b""), b"%d" % self.at)
        rows = {name.decode(): row.rpartition(b" ")[0].decode() for name, row in found.items()}
        wanted = {f"e:{edge}": row for edge, row in self.edges.items()}
        wanted |= {
            f"s:{name}": f"{row.last} {row.generation} {row.state} {row.moved}".rstrip()
            for name, row in self.clients.items()
        }
        hold("sessions", rows, wanted)

    def _compare_inbox(self, length: int, tail: list[Any]) -> None:
        hold("backlog: inbox", length, len(self.events) - self.first + 1 - self.holes)
        if self.hash is not None:
            hold("backlog: inbox reaches #", len(self.events), self.hash)
        if tail == self.inbox_tail:
            return
        self.inbox_tail = tail
        for entry_id, fields in tail:
            event = read_inbox_entry(entry_id, fields)
            wanted = self.events[event.iseq - 1]
            if not wanted.id:  # new: the server chose the second part of its id
                wanted = wanted._replace(id=b"%d-%b" % (wanted.iseq, entry_id.partition(b"-")[2]))
                self.events[event.iseq - 1] = wanted
            hold("inbox", event, wanted)

    def _compare_outlog(self, length: int, tail: list[Any]) -> None:
        held, least = len(self.log) - self.log_at, max(self.trimming, 0)
        if self.trimming and length < held:
            kept = self.log[self.log_at :]
            size = int(self.meta[b"bytes"]) - kept[0].before  # with its whole turn
            if length < min(least, held) or (held <= max(1000, least) and size <= 262_144):
                raise Violation("outlog trimmed too far", f"{held} outputs of {size} bytes cut to {length}")
            self.log_at = len(self.log) - length
        hold("outlog length", length, len(self.log) - self.log_at)
        if tail == self.outlog_tail:
            return
        self.outlog_tail = tail
        for n, (entry_id, fields) in enumerate(tail, 1):
            _, header, _, body, _, total = fields
            hold("outlog", Output(entry_id, header, body, int(total)), self.log[-n])

    def compare_expiry(self, replies: list[Reply]) -> None:
        """Compare with what :func:`expiry_looks` found: nothing that is still needed may expire."""
        found = {part for part, left in zip(PARTS, replies, strict=True) if left >= 0}
        hold("expiry", found, set(self.expiring))
        owed = set(PARTS) if self.token else {"inbox", "sessions"} if self.last_iseq > self.committed_copy else set()
        if found & owed:
            raise Violation("nothing owed expires", f"{found}")


def _apply(held: Pairs, added: dict[str, bytes], removed: set[str]) -> None:
    held |= {name.encode(): value for name, value in added.items()}
    for name in removed:
        held.pop(name.encode(), None)


def _pairs(flat: list[bytes]) -> Pairs:
    return dict(zip(flat[::2], flat[1::2], strict=True))
