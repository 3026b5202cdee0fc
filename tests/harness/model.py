"""A room under random faults: edges, sessions and workers that lose requests and answers, and what must hold.

The promises checked are those of exactly once, one order and one writer.

Every command is carried out by a real server, one after another, so the model sees each answer even where the actor
that asked does not. Lost requests may still arrive later, lost answers make the actor send the same again.
"""

import random
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from harness.acts import LEASE_MS, RoomActs, new_mark, turn_of
from innkeeper import functions
from innkeeper.channel import Command
from innkeeper.errors import EdgeClosed
from innkeeper.functions import Claimed, Committed, PushEvent
from innkeeper.wire import InboxEvent, parse_id, read_inbox_entry


@dataclass
class Batch:
    """A push on its way."""

    number: int
    events: list[PushEvent]
    command: Command


@dataclass
class Edge:
    """An edge: one queue, one batch in flight, sent again until it is answered."""

    name: str
    queue: deque[PushEvent] = field(default_factory=deque)
    flight: Batch | None = None
    batch: int = 0
    said: int = 0


@dataclass
class Client:
    """A client with a session: numbers its messages, sends again what is not acknowledged."""

    name: str
    generation: int = 0
    joined: bool = False
    sent: int = 0
    acknowledged: int = 0

    def hear(self, event: PushEvent, letter: str) -> None:
        """Take what became of an event."""
        if event.kind == "join":
            self.joined = self.joined or letter in "ao"
        elif letter in "ad":
            self.acknowledged = max(self.acknowledged, event.number)


@dataclass
class Worker:
    """A worker: perhaps an owner, perhaps one that only believes so."""

    name: str
    claim: Command | None = None
    token: str = ""
    version: int = 0
    cursor: int = 0
    count: int = 0
    events: list[InboxEvent] = field(default_factory=list)
    commit: tuple[Command, int, list[InboxEvent]] | None = None
    release: Command | None = None

    def forget(self) -> None:
        """Drop the room from memory, as after a crash or a refusal."""
        self.__init__(self.name)  # type: ignore[misc]


class Model:
    """One room, three edges, two sessions, three workers and a seed."""

    def __init__(self, room: RoomActs, seed: int, started_ms: int) -> None:
        self.room = room
        self.random = random.Random(seed)
        self.started_ms = started_ms
        self.edges = [Edge(f"e{n}") for n in range(3)]
        self.workers = [Worker(f"w{n}") for n in range(3)]
        self.clients = [Client(f"s{n}") for n in range(2)]
        self.late: list[tuple[str, Command]] = []
        self.known: dict[int, bytes] = {}
        self.token = ""
        self.released: set[str] = set()
        self.faults: Counter[str] = Counter()

    async def run(self, steps: int) -> None:
        """Take random steps, then let everything come to rest and check it."""
        actions = (
            (self.say, 8), (self.speak, 6), (self.flush, 16), (self.own, 6), (self.read, 8), (self.commit, 16),
            (self.give_back, 2), (self.renew, 2), (self.expire, 2), (self.crash, 1), (self.reap, 1),
            (self.deliver_late, 10),
        )  # fmt: skip
        chosen = self.random.choices([act for act, _ in actions], [weight for _, weight in actions], k=steps)
        for action in chosen:
            await action()
        await self.settle()
        await self.check()

    async def ask(self, kind: str, command: Command) -> tuple[bool, object]:
        """Send a command over a bad line: (whether the actor got the answer, the answer or None)."""
        fate = self.random.random()
        if fate < 0.12:
            self.late.append((kind, command))
            return False, None
        reply = await self.room.ask(command)
        self.witness(kind, reply)
        if self.random.random() < (0.4 if kind == "commit" else 0.15):
            self.late.append((kind, command))
        return fate > 0.3, reply

    def witness(self, kind: str, reply: object) -> None:
        """Learn from an answer, whoever gets it, whom the room belongs to."""
        if kind == "claim":
            claimed = functions.read_claimed(reply)
            if isinstance(claimed, Claimed) and claimed.token not in self.released:
                self.token = claimed.token
        elif kind == "release" and functions.read_released(reply).released:
            self.released.add(self.token)
            self.token = ""
            self.faults["released"] += 1

    # --- edges ----------------------------------------------------------------------------------------------------
    async def say(self) -> None:
        """A raw message from a socket of an edge."""
        edge = self.random.choice(self.edges)
        edge.said += 1
        edge.queue.append(PushEvent("text", "c", f"{edge.name} {edge.said}".encode()))

    async def speak(self) -> None:
        """A session sends its next message and all that is not acknowledged, over whatever edge it is at now."""
        client = self.random.choice(self.clients)
        edge = self.random.choice(self.edges)
        if not client.joined or self.random.random() < 0.1:
            client.generation += 1
            edge.queue.append(PushEvent("join", client.name, b"", client.name, 0, client.generation))
        client.sent = min(client.sent + 1, client.acknowledged + 4)
        for number in range(client.acknowledged + 1, client.sent + 1):
            data = f"{client.name} {number}".encode()
            edge.queue.append(PushEvent("text", client.name, data, client.name, number, client.generation))

    async def flush(self) -> None:
        """An edge pushes what waits, or its unanswered batch again."""
        edge = self.random.choice(self.edges)
        if edge.flight is None:
            if not edge.queue:
                return
            events = [edge.queue.popleft() for _ in range(min(len(edge.queue), self.random.randint(1, 4)))]
            edge.batch += self.random.choice((1, 1, 3))
            command = functions.push(
                self.room.keys, edge=edge.name, batch=edge.batch, heartbeat_ms=self.started_ms, events=events,
                backlog_count=self.random.choice((3, 8, 1_000)),
            )  # fmt: skip
            edge.flight = Batch(edge.batch, events, command)
        else:
            self.faults["pushes sent again"] += 1
        heard, reply = await self.ask("push", edge.flight.command)
        if heard:
            self.answered(edge, reply)

    def answered(self, edge: Edge, reply: object) -> None:
        """Take a push's answer: what was refused goes back to the head; a dead edge comes back as another."""
        assert edge.flight is not None
        try:
            pushed = functions.read_pushed(reply)
        except EdgeClosed:
            self.faults["edges closed"] += 1
            edge.name, edge.flight, edge.said = f"{edge.name}x", None, 0
            edge.queue.clear()
            return
        iseq, back = pushed.first_iseq, []
        clients = {client.name: client for client in self.clients}
        assert len(pushed.letters) == len(edge.flight.events)
        for letter, event in zip(pushed.letters, edge.flight.events, strict=True):
            self.faults[f"letter {letter}"] += 1
            if letter == "a":
                assert self.known.setdefault(iseq, event.data) == event.data, f"two events have the number {iseq}"
                iseq += 1
            if event.session:
                clients[event.session].hear(event, letter)
            elif letter == "b":
                back.append(event)
        edge.queue.extendleft(reversed(back))
        edge.flight = None

    async def reap(self) -> None:
        """An edge is declared dead, rightly or not."""
        edge = self.random.choice(self.edges)
        await self.ask("reap", functions.reap_edge(self.room.keys, edge=edge.name))

    # --- workers --------------------------------------------------------------------------------------------------
    def owner(self) -> Worker:
        """Return a worker that believes to own the room, if there is one."""
        return self.random.choice([worker for worker in self.workers if worker.token] or self.workers)

    async def own(self) -> None:
        """A worker claims the room if it is free, or steals from the lock it sees, or asks again."""
        worker = self.random.choice(self.workers)
        if worker.token:
            return
        if worker.claim is None:
            seen = await self.room.link.call("GET", self.room.keys.lock) or b""
            if self.random.random() < 0.3:
                seen = b""
            worker.claim = functions.claim(
                self.room.keys, worker=worker.name, mark=new_mark(), lease_ms=LEASE_MS, seen=seen, own_subscriptions=0
            )
        heard, reply = await self.ask("claim", worker.claim)
        if not heard:
            return
        worker.claim = None
        claimed = functions.read_claimed(reply)
        if isinstance(claimed, Claimed):
            worker.token = claimed.token
            worker.version, worker.cursor = int(claimed.meta[b"version"]), int(claimed.meta[b"cursor"])
            worker.count = int(claimed.state.get(b"count", b"0"))

    async def read(self) -> None:
        """An owner reads on in the inbox."""
        worker = self.owner()
        if worker.token and worker.commit is None:
            start = f"{worker.cursor + len(worker.events) + 1}-0"
            for entry in await self.room.link.call("XRANGE", self.room.keys.inbox, start, "+", "COUNT", 5):
                event = read_inbox_entry(*entry)
                if event.iseq == worker.cursor + len(worker.events) + 1:
                    worker.events.append(event)

    async def commit(self) -> None:
        """An owner commits some of what it read, or its unanswered commit again."""
        worker = self.owner()
        if not worker.token:
            return
        if worker.commit is None:
            taken = worker.events[: self.random.randint(0, 4)]
            texts = [b"%d %b" % (worker.count + n, event.data) for n, event in enumerate(taken, 1)]
            turn = turn_of(
                [event.id for event in taken],
                outputs=[(b"text *", body) for body in texts],
                state_set={"count": b"%d" % (worker.count + len(taken))},
            )
            command = functions.commit(
                self.room.keys, token=worker.token, version=worker.version, worker=worker.name, turn=turn,
                lease_ms=self.random.choice((0, LEASE_MS)), keep_outputs=self.random.choice((0, 10_000)),
            )  # fmt: skip
            worker.commit = (command, worker.version, taken)
        else:
            self.faults["commits sent again"] += 1
        command, version, taken = worker.commit
        heard, reply = await self.ask("commit", command)
        committed = functions.read_committed(reply) if reply is not None else ""
        if isinstance(committed, Committed):
            assert worker.token == self.token, f"{worker.token} committed, the room belongs to {self.token}"
            assert committed.version == version + 1
        if not heard:
            return
        if isinstance(committed, Committed):
            worker.commit, worker.version = None, committed.version
            worker.cursor += len(taken)
            worker.count += len(taken)
            del worker.events[: len(taken)]
        else:
            self.faults[f"refused {committed}"] += 1
            worker.forget()

    async def give_back(self) -> None:
        """An owner releases the room, or asks again; what it hears ends its ownership or not."""
        worker = self.owner()
        if not worker.token or worker.commit is not None:
            return
        if worker.release is None:
            worker.release = functions.release(
                self.room.keys,
                token=worker.token,
                worker=worker.name,
                force=self.random.random() < 0.6,
                window_ms=600_000,
            )
        heard, reply = await self.ask("release", worker.release)
        if heard:
            worker.release = None
            if not functions.read_released(reply).ours:
                worker.forget()

    async def renew(self) -> None:
        """An owner renews its lease."""
        worker = self.owner()
        if worker.token and worker.release is None:
            command = functions.renew(self.room.keys, token=worker.token, worker=worker.name, lease_ms=LEASE_MS)
            heard, reply = await self.ask("renew", command)
            if reply is not None:
                assert (functions.read_renewed(reply) is not None) == (worker.token == self.token)
            if heard and functions.read_renewed(reply) is None:
                worker.forget()

    async def expire(self) -> None:
        """The lease runs out."""
        await self.room.link.call(*self.room.delete("lock"))

    async def crash(self) -> None:
        """A worker dies."""
        self.random.choice(self.workers).forget()

    async def deliver_late(self) -> None:
        """A command that was lost, or a copy of one, arrives after all; nobody hears the answer."""
        if self.late:
            kind, command = self.late.pop(self.random.randrange(len(self.late)))
            self.faults[f"late {kind}"] += 1
            reply = await self.room.ask(command)
            self.witness(kind, reply)
            if kind == "commit" and isinstance(functions.read_committed(reply), Committed):
                assert command[14] == self.token, "a late commit of a stale owner counted"

    # --- the end --------------------------------------------------------------------------------------------------
    async def settle(self) -> None:
        """Answer every edge, then let one last owner apply all that is left."""
        for edge in self.edges:
            while edge.flight is not None:
                self.answered(edge, await self.room.ask(edge.flight.command))
        lock = await self.room.link.call("GET", self.room.keys.lock) or b""
        claimed = await self.room.own("last", seen=lock)
        events = [
            read_inbox_entry(*entry) for entry in await self.room.link.call("XRANGE", self.room.keys.inbox, "-", "+")
        ]
        count = int(claimed.state.get(b"count", b"0"))
        texts = [b"%d %b" % (count + n, event.data) for n, event in enumerate(events, 1)]
        turn = turn_of([event.id for event in events], outputs=[(b"text *", body) for body in texts])
        turn.state_set = {"count": b"%d" % (count + len(events))}
        await self.room.done(claimed, int(claimed.meta[b"version"]), turn)

    async def check(self) -> None:
        """Every accepted event was applied exactly once, in the order of its number; outputs are dense."""
        log = [(parse_id(i.encode())[0], fields["d"]) for i, fields in await self.room.stream("outlog")]
        assert [oseq for oseq, _ in log] == list(range(1, len(log) + 1)), "oseq has holes"
        assert [int(body.split(b" ", 1)[0]) for _, body in log] == list(range(1, len(log) + 1)), "state and log differ"
        sessions, meta, state = [await self.room.hash(part) for part in ("sessions", "meta", "state")]
        assert sessions["#"] == sessions["@"] == meta["cursor"] == state["count"] == str(len(log))
        assert "contradictions" not in meta
        applied = [body.split(b" ", 1)[1] for _, body in log]
        for iseq, data in self.known.items():
            assert applied[iseq - 1] == data, f"event {iseq} was {data!r}, applied {applied[iseq - 1]!r}"
        by_sender: dict[bytes, list[int]] = defaultdict(list)
        for data in filter(None, applied):
            sender, number = data.split(b" ")
            by_sender[sender].append(int(number))
        for sender, numbers in by_sender.items():
            assert numbers == list(range(1, 1 + len(numbers))), f"{sender!r}: {numbers}"
