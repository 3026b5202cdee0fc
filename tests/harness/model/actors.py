"""Who acts on the model's room: edges with sockets, clients with sessions, workers with a memory of the room."""

import json
import random
from collections import deque
from dataclasses import dataclass, field, replace

from harness.model.acts import Claim, Commit, Push, Release
from harness.model.history import line_of
from innkeeper.functions import Claimed, PushEvent
from innkeeper.turn import Turn, dead_event
from innkeeper.wire import InboxEvent

TO_ALL = b"text *"


@dataclass
class Edge:
    """An edge: its sockets, one queue, one batch in flight, sent again until it is answered."""

    name: str
    sockets: dict[str, int] = field(default_factory=dict)  # connection → events so far
    queue: deque[PushEvent] = field(default_factory=deque)
    flight: Push | None = None
    batch: int = 0

    def event(self, kind: str, connection: str) -> None:
        """Queue the next event of a socket; its data is ``connection number``."""
        self.sockets[connection] = number = self.sockets.get(connection, 0) + 1
        self.queue.append(PushEvent(kind, connection, f"{connection} {number}".encode()))
        if kind == "leave":
            del self.sockets[connection]

    def next_batch(self, draw: random.Random, most: int, cap: int | None = None) -> Push:
        """Take the next events from the queue into flight."""
        events = tuple(self.queue.popleft() for _ in range(min(len(self.queue), most)))
        self.batch += draw.choice((1, 1, 3))
        cap = draw.choice((3, 8, 1_000)) if cap is None else cap
        silent = draw.random() < 0.005
        self.flight = Push(self.name, self.batch, events, cap, silent)
        return self.flight

    def answered(self, letters: str) -> None:
        """Take a push's answer: what was refused goes back to the head, unless its socket is gone."""
        assert self.flight is not None
        events, self.flight = self.flight.events, None
        assert len(letters) == len(events)
        refused = [event for letter, event in zip(letters, events, strict=True) if letter == "b" and not event.session]
        for event in refused:
            if event.kind == "join":  # refused: the socket is closed, with all it has queued
                self.sockets.pop(event.connection, None)
                self._drop(event.connection)
        left = {e.connection for x, e in zip(letters, events, strict=True) if x == "a" and e.kind == "leave"}
        back = [event for event in refused if event.kind != "join" and event.connection not in left]
        self.queue.extendleft(reversed([event for event in back if event.connection in self.sockets]))

    def _drop(self, connection: str) -> None:
        self.queue = deque(event for event in self.queue if event.connection != connection)


@dataclass
class Client:
    """A client with a session: numbers its messages, keeps them all, sends again what is not acknowledged."""

    name: str
    generation: int = 0
    joined: bool = False
    sent: int = 0
    acknowledged: int = 0

    def hear(self, event: PushEvent, letter: str) -> None:
        """Take what became of an event of this session."""
        if letter in "uc" or (event.kind == "leave" and letter in "ad"):
            self.__init__(f"{self.name}'")  # type: ignore[misc]
        elif event.kind in ("join", "resume"):
            self.joined = self.joined or letter in "ao"
        elif event.kind == "text" and letter in "ad":
            self.acknowledged = max(self.acknowledged, event.number)
        elif letter == "g":  # the room was rolled back, or an older message is still on its way over another edge
            self.acknowledged = 0

    def speak(self, draw: random.Random) -> list[PushEvent]:
        """Return what it sends next: a life event now and then, the unacknowledged, one message more."""
        events = []
        luck = draw.random()
        if not self.joined or luck < 0.10:
            late = self._event("leave" if luck < 0.01 else "drop") if self.joined and luck < 0.05 else None
            self.generation += 1
            events.append(self._event("resume" if self.joined and draw.random() < 0.5 else "join"))
            if late is not None:  # the edge of the connection before notices its end only now
                events.append(late)
        elif luck < 0.16:
            events.append(self._event("drop"))
        elif luck < 0.18:
            return [self._event("leave")]
        elif luck < 0.20:
            events.append(self._event("resync"))
        self.sent = min(self.sent + 1, self.acknowledged + 4)
        last = min(self.sent, self.acknowledged + 4)
        events += [self._event("text", number) for number in range(self.acknowledged + 1, last + 1)]
        return events

    def _event(self, kind: str, number: int = 0) -> PushEvent:
        return PushEvent(kind, f"c-{self.name}", f"{self.name} {number}".encode(), self.name, number, self.generation)


@dataclass
class Memory:
    """What an owner knows of the room, and how an event changes it."""

    version: int = 0
    cursor: int = 0
    chain: int = 0
    created: bool = False
    members: dict[str, bytes] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)  # of state keys and timers
    shown_bytes: int = 0

    def copied(self) -> "Memory":
        """Return a copy that a turn may change."""
        return replace(self, members=self.members.copy(), names=self.names.copy())

    def apply(self, event: InboxEvent, turn: Turn) -> None:
        """Handle one event: joins and leaves change members, everything is shown."""
        turn.consume(event)
        connection, kind = event.connection.decode(), event.kind
        what, left = kind, list[str]()
        if event.session:
            if kind in (b"join", b"resume"):
                self._join(connection, event, turn)
            elif kind == b"leave" and connection in self.members:
                self._leave(connection, turn)
        elif kind == b"join":
            self._join(connection, event, turn)
        elif kind == b"leave" and connection in self.members:
            left = [connection]
        elif kind == b"edge-gone":
            left = [name for name, row in self.members.items() if _is_raw_of(row, event.edge.decode())]
        elif connection not in self.members:
            what = b"void-" + kind
        self.show(event.iseq, b"%b %b" % (what, event.data or event.edge + b" 0"), turn)
        for name in left:
            self._leave(name, turn)
            self.show(0, b"left %b 0" % name.encode(), turn)
        self.cursor = event.iseq

    def show(self, iseq: int, what: bytes, turn: Turn) -> None:
        """Add an output to the history."""
        self.chain, body = line_of(self.chain, iseq, what)
        turn.show([(TO_ALL, body)])
        turn.state_set["chain"] = b"%d" % self.chain

    def destroy(self, turn: Turn) -> None:
        """End the room: everybody leaves, everything is deleted."""
        turn.sessions_closed = [json.loads(row)["session"] for row in self.members.values()]
        turn.sessions_closed = [session for session in turn.sessions_closed if session]
        for name, row in self.members.items():
            if not json.loads(row)["session"]:
                self.show(0, b"left %b 0" % name.encode(), turn)
        self.show(0, b"destroyed room 0", turn)
        self.chain, self.members, self.names, self.created = 0, {}, set(), False
        turn.destroy, turn.state_set, turn.state_del = True, {}, set()
        turn.members_set, turn.members_del, turn.timers_set, turn.timers_del, turn.dead = {}, set(), {}, set(), []

    def _join(self, connection: str, event: InboxEvent, turn: Turn) -> None:
        row = {"join": event.iseq, "edge": event.edge.decode(), "session": event.session.decode()}
        self.members[connection] = data = json.dumps(row).encode()
        turn.change_member(connection, data)

    def _leave(self, connection: str, turn: Turn) -> None:
        del self.members[connection]
        turn.change_member(connection, None)


def _join_of(member: tuple[bytes, bytes]) -> int:
    join: int = json.loads(member[1])["join"]
    return join


def _is_raw_of(row: bytes, edge: str) -> bool:
    member = json.loads(row)
    return member["edge"] == edge and not member["session"]


@dataclass
class Worker:
    """A worker: perhaps an owner, perhaps one that only believes so."""

    name: str
    claim: Claim | None = None
    token: str = ""
    memory: Memory = field(default_factory=Memory)
    events: list[InboxEvent] = field(default_factory=list)
    done: list[InboxEvent] = field(default_factory=list)
    commit: Commit | None = None
    after: Memory = field(default_factory=Memory)
    release: Release | None = None
    refusals: int = 0

    def forget(self) -> None:
        """Drop the room from memory, as after a crash or a refusal."""
        self.__init__(self.name)  # type: ignore[misc]

    def own(self, claimed: Claimed) -> None:
        """Take the room as the claim answered it."""
        self.token = claimed.token
        meta, state = claimed.meta, claimed.state
        self.memory = Memory(
            int(meta[b"version"]),
            int(meta[b"cursor"]),
            int(state.get(b"chain", b"0")),
            b"created" in meta,
            {name.decode(): row for name, row in sorted(claimed.members.items(), key=_join_of)},
            {name.decode() for name in (*state, *claimed.timers)} - {"chain"},
            int(meta.get(b"bytes", b"0")),
        )

    @property
    def next_iseq(self) -> int:
        """The event it reads next."""
        return self.memory.cursor + len(self.events) + 1

    def hear(self, events: list[InboxEvent]) -> None:
        """Take events that were read or came with the bell, as far as they are the next ones."""
        for event in events:
            if event.iseq == self.next_iseq:
                self.events.append(event)

    def turn(self, draw: random.Random, most: int) -> Turn:
        """Handle some of the events; ``after`` is the memory once the commit counts. Rarely it errs in the input."""
        self.after, turn = self.memory.copied(), Turn()
        taken = self.events[: draw.randint(0, most)]
        luck = draw.random()
        if luck < 0.02 and len(taken) > 1:
            del taken[draw.randrange(len(taken) - 1)]  # an event is left out: at the start a gap, else in the middle
        elif luck < 0.04 and self.done:
            taken = [self.done[-1], *taken]  # an event is handled twice
        for event in taken:
            self.after.apply(event, turn)
        self._extras(draw, turn)
        return turn

    def _extras(self, draw: random.Random, turn: Turn) -> None:
        """Change what handlers may change besides: state, timers, outbox, dead events; seldom end the room."""
        after, luck = self.after, draw.random()
        if luck < 0.3:
            name = f"k{draw.randrange(6)}"
            after.names.add(name)
            turn.state_set[name] = b"%d" % draw.randrange(1_000)
        elif luck < 0.4 and after.names:
            name = draw.choice(sorted(after.names))
            after.names.discard(name)
            (turn.timers_del if name.startswith("t") else turn.state_del).add(name)
        elif luck < 0.5:
            name = f"t{draw.randrange(3)}"
            after.names.add(name)
            turn.timers_set[name] = b'{"due_ms": %d}' % draw.randrange(10**12)
        elif luck < 0.52:
            turn.outbox = [("post", "model/other", b"%d" % n) for n in range(draw.randint(1, 2))]
        elif luck < 0.56 and self.events:
            turn.dead = [dead_event(self.events[0], "raised")]
        elif luck < 0.60:
            closed = [json.loads(row)["session"] for row in after.members.values()]
            turn.sessions_closed = [session for session in closed if session][:1]
        elif luck < 0.66:
            after.show(0, b"tick clock 0", turn)
        elif luck < 0.70:
            size = draw.choice((300, 4_000, 7_000, 13_000, 40_000))
            after.show(0, b"large room 0 " + b"x" * size, turn)
        elif luck < 0.71:
            after.destroy(turn)
