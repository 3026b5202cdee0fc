"""A room under random faults: edges, clients and workers that lose requests and answers, and a server rolled back.

Every command is carried out by a real server, and judged in the order in which the server carried it out: the model
sees each answer even where the actor that asked does not. Lost requests may still arrive later, lost answers make the
actor send the same again.
"""

import random
import uuid
from collections import Counter

from harness.model.actors import Client, Edge, Worker
from harness.model.acts import Act, Claim, Commit, Push, Reap, Release, Renew
from harness.model.adopted import adopted
from harness.model.ghost import PARTS, Ghost, expiry_looks, looks
from harness.model.history import History, Violation, hold
from harness.model.line import Answer, Request
from harness.model.published import judge_shown
from harness.model.snapshots import Snapshot, Snapshots
from innkeeper import functions
from innkeeper.address import Address
from innkeeper.channel import Command, Reply, pack
from innkeeper.errors import EdgeClosed
from innkeeper.functions import Claimed, Committed, PushEvent
from innkeeper.keys import room_keys
from innkeeper.turn import Turn
from innkeeper.wire import read_inbox_entry, read_news

_MOST_REFUSALS = 20


class ModelRoom:
    """One room, three edges, two clients, three workers and a seed; every second seed's server is rolled back."""

    def __init__(self, seed: int, library: str, own_library: str, *, holds_laws: bool = True) -> None:
        """Set up a run of the functions named with the hash ``library`` instead of ``own_library``.

        Without ``holds_laws`` only the promises count: what the outlog tells, what members were shown, and that all
        that was accepted is there at the end. The ghost then follows whatever the acts did.
        """
        self._holds_laws = holds_laws
        address = Address("model", f"{seed}.{uuid.uuid4().hex[:12]}")  # a failed run leaves its keys behind
        self.tag = str(address).encode()
        self.keys = room_keys(address)
        self.seed = seed
        self._names = (own_library, library)
        self.draw = random.Random(seed)
        self.rolls_back = seed % 2 == 0
        self.ghost = Ghost()
        self.history = History()
        self.edges = [Edge(f"e{n}") for n in range(3)]
        self.edge_names = [edge.name for edge in self.edges]
        self.clients = [Client(f"s{n}") for n in range(2)]
        self.workers = [Worker(f"w{n}") for n in range(3)]
        self.listener: Worker | None = None
        self.late: list[Act] = []
        self.accepted: dict[int, bytes] = {}
        self.snapshots = Snapshots(self.keys)
        self.planned: tuple[int, Snapshot] | None = None
        self.connections = 0
        self.step = 0
        self.counts: Counter[str] = Counter()
        self.trace: list[tuple[object, ...]] = []
        self._looks = b"".join(pack(command) for command in looks(self.keys))
        self._looks_count = len(looks(self.keys))
        self._expiry = b"".join(pack(command) for command in expiry_looks(self.keys))

    async def run(self, steps: int) -> None:
        """Take random steps, then let everything come to rest and check it."""
        await self._listen(("SSUBSCRIBE", self.keys.out), ("SUNSUBSCRIBE", self.keys.bell))
        actions = (
            (self._say, 10), (self._speak, 6), (self._flush, 16), (self._own, 7), (self._read, 6), (self._commit, 16),
            (self._release, 3), (self._renew, 2), (self._expire, 2), (self._crash, 1), (self._reap, 1),
            (self._arrive_late, 9), (self._window, 2), (self._save, 2), (self._roll_back, 1), (self._rest, 1),
        )  # fmt: skip
        weights = [weight for _, weight in actions]
        for action, _ in self.draw.choices(actions, weights, k=steps):
            self.step += 1
            if self.planned is not None and self._is_time(*self.planned):
                await self._roll_back()
            await action()
        self.trace.append(("settle",))
        await self._settle()
        await self._clean()

    # --- the line -----------------------------------------------------------------------------------------------------
    async def _send(self, *commands: Command) -> list[Reply]:
        return (await Request(b"".join(map(pack, commands)), len(commands))).replies

    async def _listen(self, *commands: Command) -> None:
        await Request(b"", 0, commands)

    async def _ask(self, act: Act) -> tuple[bool, Reply]:
        """Ask over a bad line: (whether the actor hears the answer, the answer or None)."""
        fate = self.draw.random()
        if fate < 0.12:
            self.late.append(act)
            self.counts["requests lost"] += 1
            self.trace.append((act, "lost on its way"))
            return False, None
        reply = await self._carry_out(act)
        if self.draw.random() < (0.4 if isinstance(act, Commit) else 0.15):
            self.late.append(act)
        if fate <= 0.3:
            self.counts["answers lost"] += 1
            self.trace.append(("answer lost",))
        return fate > 0.3, reply

    async def _carry_out(self, act: Act) -> Reply:
        """Let the server carry out an act; judge the answer, what was published, and the keys."""
        command = act.command(self.keys)
        name = str(command[1]).replace(*self._names)
        data = b"".join((pack((command[0], name, *command[2:])), self._looks))
        checks_expiry = bool(self.ghost.expiring) or isinstance(act, Claim | Release) or not self._holds_laws
        answer = await Request(
            data + self._expiry if checks_expiry else data,
            1 + self._looks_count + (len(PARTS) if checks_expiry else 0),
        )
        self.trace.append((act, answer.replies[0]))
        word = self._judge(act, answer, checks_expiry=checks_expiry)
        self.trace.append((word,))
        self.counts[f"{type(act).__name__.lower()} {word}"] += 1
        return answer.replies[0]

    def _judge(self, act: Act, answer: Answer, *, checks_expiry: bool) -> str:
        reply, found = answer.replies[0], answer.replies[1 : self._looks_count + 1]
        out = [message for channel, message in answer.heard if channel == self.keys.out.encode()]
        bell = [message for channel, message in answer.heard if channel == self.keys.bell.encode()]
        judge_shown(out, self.history.read(found[9]))
        self.history.agrees(
            dict(zip(found[0][::2], found[0][1::2], strict=True)), dict(zip(found[1][::2], found[1][1::2], strict=True))
        )
        if isinstance(reply, Exception) and not isinstance(reply, EdgeClosed):
            raise Violation("no act fails", str(reply))
        if isinstance(act, Push) and not isinstance(reply, EdgeClosed):
            self._witness(act, reply)
        try:
            word = self.ghost.judge(act, reply, out, bell)
            self.ghost.compare(found)
            if checks_expiry:
                self.ghost.compare_expiry(answer.replies[self._looks_count + 1 :])
        except Exception:
            if self._holds_laws:
                raise
            word = "against the laws"
            self.ghost = adopted(found, answer.replies[self._looks_count + 1 :], listening=self.listener is not None)
        if self.listener is not None and bell:
            self.listener.hear(read_news(bell[0]))
        return word

    def _witness(self, act: Push, reply: Reply) -> None:
        """Note what the answer calls accepted; count the letters."""
        pushed = functions.read_pushed(reply)
        letters, iseq = pushed.letters, pushed.first_iseq
        for letter, event in zip(letters, act.events, strict=True):
            self.counts[f"letter {letter}"] += 1
            if letter == "a":
                hold("a number is one event", self.accepted.setdefault(iseq, event.data), event.data)
                iseq += 1

    # --- edges --------------------------------------------------------------------------------------------------------
    async def _say(self) -> None:
        """Something happens at a socket of an edge: it opens, speaks or closes."""
        edge, luck = self.draw.choice(self.edges), self.draw.random()
        if not edge.sockets or (luck < 0.2 and len(edge.sockets) < 4):
            self.connections += 1
            edge.event("join", f"c{self.connections}")
        else:
            edge.event("leave" if luck > 0.85 else "text", self.draw.choice(list(edge.sockets)))

    async def _speak(self) -> None:
        """A client speaks, over whatever edge it is at now."""
        self.draw.choice(self.edges).queue.extend(self.draw.choice(self.clients).speak(self.draw))

    async def _flush(self) -> None:
        """An edge pushes what waits, or its unanswered batch again."""
        edge = self.draw.choice(self.edges)
        if edge.flight is None:
            if not edge.queue:
                return
            edge.next_batch(self.draw, self.draw.randint(1, 4))
        else:
            self.counts["pushes sent again"] += 1
        assert edge.flight is not None
        heard, reply = await self._ask(edge.flight)
        if heard:
            self._answered(edge, reply)

    def _answered(self, edge: Edge, reply: Reply) -> None:
        if isinstance(reply, EdgeClosed):
            self._born_again(edge)
            return
        assert edge.flight is not None
        letters, events = functions.read_pushed(reply).letters, edge.flight.events
        for letter, event in zip(letters, events, strict=True):
            for client in self.clients:
                if event.session == client.name:
                    client.hear(event, letter)
        edge.answered(letters)

    def _born_again(self, edge: Edge) -> None:
        """An edge takes a new incarnation; its sockets and all that they sent unaccepted are gone."""
        self.edges[self.edges.index(edge)] = Edge(f"e{len(self.edge_names)}")
        self.edge_names.append(f"e{len(self.edge_names)}")

    async def _reap(self) -> None:
        """An edge is declared dead, rightly or not, perhaps for the second time."""
        names = self.edge_names if self.draw.random() < 0.3 else [edge.name for edge in self.edges]
        await self._ask(Reap(self.draw.choice(names)))

    # --- workers ------------------------------------------------------------------------------------------------------
    def _owner(self) -> Worker:
        """Return a worker that believes to own the room, if there is one."""
        return self.draw.choice([worker for worker in self.workers if worker.token] or self.workers)

    async def _own(self) -> None:
        """A worker claims the room if it is free, or steals from the lock it sees, or asks again."""
        last = [worker for worker in self.workers if worker.name.encode() == self.ghost.meta.get(b"worker")]
        worker = self.draw.choice(last if last and self.draw.random() < 0.3 else self.workers)
        if worker.token:
            return
        if worker.claim is None:
            seen = b"" if self.draw.random() < 0.3 else self.ghost.lock
            mark = self.draw.randrange(1, 2**48)
            worker.claim = Claim(worker.name, mark, seen, int(self.listener is worker))
            before = await self._save() if self.rolls_back and self.draw.random() < 0.3 else None
        else:
            self.counts["claims sent again"] += 1
            before = None
        heard, reply = await self._ask(worker.claim)
        if reply is not None and reply[0] == 1:
            await self._plan(before)
        if heard:
            worker.claim = None
            claimed = functions.read_claimed(reply)
            if isinstance(claimed, Claimed):
                worker.own(claimed)
                if self.draw.random() < 0.7:
                    await self._hear_bell(worker)

    async def _plan(self, before: Snapshot | None) -> None:
        """Soon after a claim or commit the server may be rolled back to just after it, or to just before the claim."""
        if self.rolls_back and self.planned is None and self.draw.random() < 0.5:
            target = before or await self._save()
            if target is not None:
                self.planned = (self.step + self.draw.randint(2, 20), target)

    def _is_time(self, step: int, target: Snapshot) -> bool:
        """Say whether a planned roll-back is due: in time, or as soon as it takes away what an owner has just read."""
        read = [worker.events[-1].iseq for worker in self.workers if worker.token and worker.events]
        return self.step >= step or (max(read, default=0) > target.accepted and self.draw.random() < 0.5)

    async def _hear_bell(self, worker: Worker | None) -> None:
        """Subscribe a worker to the bell in the place of whoever was, or nobody."""
        if (worker is None) != (self.listener is None):
            await self._listen(("SUNSUBSCRIBE" if worker is None else "SSUBSCRIBE", self.keys.bell))
        self.listener, self.ghost.listening = worker, worker is not None

    async def _read(self) -> None:
        """An owner reads on in the inbox."""
        worker = self._owner()
        if worker.token and worker.commit is None:
            command = ("XRANGE", self.keys.inbox, f"{worker.next_iseq}-0", "+", "COUNT", 5)
            worker.hear([read_inbox_entry(*entry) for entry in (await self._send(command))[0]])

    async def _commit(self) -> None:
        """An owner commits some of what it read, or its unanswered commit again."""
        worker = self._owner()
        if not worker.token:
            return
        if worker.commit is None:
            turn = worker.turn(self.draw, 4)
            worker.commit = Commit(
                worker.name, worker.token, worker.memory.version, turn, self.draw.random() < 0.5,
                self.draw.choice((0, 0, 3, 10_000)), worker.memory.created or self.draw.random() < 0.7,
                tries=self.draw.random() < 0.3, shown_bytes=worker.memory.shown_bytes,
            )  # fmt: skip
        else:
            self.counts["commits sent again"] += 1
        heard, reply = await self._ask(worker.commit)
        if not heard:
            return
        committed = functions.read_committed(reply)
        if isinstance(committed, Committed):
            self._counted(worker)
            if self.draw.random() < 0.1:
                await self._plan(None)
        else:
            await self._forget(worker)

    def _counted(self, worker: Worker) -> None:
        assert worker.commit is not None
        consumed = len(worker.commit.turn.consumed)
        worker.done = worker.events[:consumed] or worker.done
        del worker.events[:consumed]
        if not worker.commit.turn.destroy:
            worker.after.created = worker.after.created or worker.commit.created
        turn = worker.commit.turn
        worker.after.shown_bytes = turn.out_bytes + (0 if turn.destroy else worker.memory.shown_bytes)
        worker.memory, worker.commit = worker.after, None
        worker.memory.version += 1

    async def _forget(self, worker: Worker) -> None:
        worker.forget()
        if self.listener is worker:
            await self._hear_bell(None)

    async def _release(self) -> None:
        """An owner releases the room, or asks again; what it hears ends its ownership or not."""
        worker = self._owner()
        if not worker.token or worker.commit is not None:
            return
        if worker.release is None:
            worker.release = Release(worker.name, worker.token, self.draw.random() < 0.4)
        heard, reply = await self._ask(worker.release)
        if heard:
            worker.release = None
            if not functions.read_released(reply).ours:
                await self._forget(worker)

    async def _renew(self) -> None:
        """An owner renews its lease."""
        worker = self._owner()
        if worker.token and worker.release is None:
            heard, reply = await self._ask(Renew(worker.name, worker.token))
            if heard and functions.read_renewed(reply) is None:
                await self._forget(worker)

    async def _expire(self) -> None:
        """The lease runs out."""
        if self.ghost.lock:
            self._note("lease expired")
            await self._send(("DEL", self.keys.lock))
            self.ghost.lock = b""

    async def _crash(self) -> None:
        """A worker dies."""
        worker = self.draw.choice(self.workers)
        if worker.token or worker.claim:
            self._note("worker crashed")
            await self._forget(worker)

    async def _arrive_late(self) -> None:
        """A command that was lost, or a copy of one, arrives after all; nobody hears the answer."""
        if self.late:
            act = self.late.pop(self.draw.randrange(len(self.late)))
            self.counts[f"late {type(act).__name__.lower()}"] += 1
            await self._carry_out(act)

    # --- the server ---------------------------------------------------------------------------------------------------
    def _note(self, what: str) -> None:
        self.counts[what] += 1
        self.trace.append((what,))

    async def _window(self) -> None:
        """The resume window ends: what the release left to expire is gone, and so is everybody who was silent since."""
        if not self.ghost.expiring:
            return
        over = self.ghost.expiring
        if "inbox" in over:
            self._complete()
        self._note(f"window over: {next(part for part in ('inbox', 'meta', 'sessions', 'outlog') if part in over)}")
        await self._send(("DEL", *(getattr(self.keys, part) for part in sorted(over))))
        self.ghost = self.ghost.vanished()
        if "meta" in over:  # epochs begin anew; no claim is on its way for ten minutes
            self.history.oseq = 0
            self.late = [act for act in self.late if not isinstance(act, Claim)]
        if "sessions" in over:
            self.history.gone.clear()
            self.late = [act for act in self.late if not isinstance(act, Push | Reap)]
            for edge in self.edges[:]:
                self._born_again(edge)
            for client in self.clients:
                client.hear(PushEvent("leave", "", b""), "a")
        if "inbox" in over:
            self.history, self.accepted, self.planned = History(), {}, None
            self.snapshots.taken.clear()

    async def _save(self) -> Snapshot | None:
        """Keep a copy of all keys of the room, as a replica or a backup has it."""
        if not self.rolls_back:
            return None
        snapshot, commands = self.snapshots.take(self.ghost, self.history)
        await self._send(*commands)
        return snapshot

    async def _roll_back(self) -> None:
        """The server comes back with an older past, as after a failover; nobody is told."""
        taken = self.snapshots.taken
        snapshot = self.planned[1] if self.planned else self.draw.choice(taken) if taken else None
        self.planned = None
        if snapshot is None or snapshot not in taken:
            return
        self._note("rolled back")
        self.counts["events rolled back"] += self.ghost.last_iseq - snapshot.ghost.last_iseq
        self.counts["commits rolled back"] += self.history.oseq > snapshot.history.oseq
        await self._send(*self.snapshots.go_back(snapshot))
        self.ghost, self.history = snapshot.ghost.saved(), snapshot.history.saved()
        self.ghost.listening = self.listener is not None
        self.accepted = {iseq: data for iseq, data in self.accepted.items() if iseq <= snapshot.accepted}
        # Connections end with the server that is rolled back: of the pushes and claims on their way only those come
        # again that somebody resends, because nobody answered. A copy of an answered push would be judged anew, with
        # another fate than its edge heard; a copy of an answered claim would make a token that was used before.
        unanswered = [*(edge.flight for edge in self.edges), *(worker.claim for worker in self.workers)]
        self.late = [act for act in self.late if not isinstance(act, Push | Claim) or act in unanswered]
        for edge in self.edges:  # an edge finds out and resyncs: its sockets close, members it does not have leave
            if self.draw.random() < 0.7:
                self._resync(edge)

    def _resync(self, edge: Edge) -> None:
        for connection in list(edge.sockets):
            edge.event("leave", connection)

    # --- the end ------------------------------------------------------------------------------------------------------
    async def _settle(self) -> None:
        """Answer every edge, reap them all, and let one last owner apply all that is left."""
        for edge in self.edges[:]:
            while edge.flight is not None or edge.queue:
                if edge.flight is None:
                    edge.next_batch(self.draw, 4, 1_000_000)
                assert edge.flight is not None
                reply = await self._carry_out(edge.flight)
                self._answered(edge, reply)
                if isinstance(reply, EdgeClosed):
                    break
        for name in self.edge_names:
            await self._carry_out(Reap(name))
        await self._drain("last")
        hold("leaves once: all are gone", self.history.present, set())
        self._complete()

    async def _drain(self, name: str, finish: str = "") -> None:
        """Let a new owner take the room from whoever has it, apply all events and release; perhaps end the room."""
        await self._hear_bell(None)
        owner = Worker(name)
        reply = await self._carry_out(Claim(name, self.draw.randrange(1, 2**48), self.ghost.lock, 0))
        claimed = functions.read_claimed(reply)
        assert isinstance(claimed, Claimed)
        owner.own(claimed)
        entries = (await self._send(("XRANGE", self.keys.inbox, f"{owner.next_iseq}-0", "+")))[0]
        owner.hear([read_inbox_entry(*entry) for entry in entries])
        while owner.events:
            turn = owner.turn(self.draw, 4)
            await self._commit_now(owner, turn)
        if finish:
            owner.after, turn = owner.memory.copied(), Turn()
            owner.after.destroy(turn)
            await self._commit_now(owner, turn)
        if finish == "keep state":
            owner.after = owner.memory.copied()
            await self._commit_now(owner, Turn(state_set={"k0": b"1"}))
        reply = await self._carry_out(Release(name, owner.token, force=False))
        hold("everything comes to rest", reply, [1, 0])

    async def _commit_now(self, owner: Worker, turn: Turn) -> None:
        memory = owner.memory
        owner.commit = Commit(
            owner.name, owner.token, memory.version, turn, False, 0, created=True, shown_bytes=memory.shown_bytes
        )
        committed = functions.read_committed(await self._carry_out(owner.commit))
        if isinstance(committed, Committed):
            self._counted(owner)
            return
        owner.refusals += 1  # it erred in its input, and does it again
        if owner.refusals > _MOST_REFUSALS:
            raise Violation("everything comes to rest", f"commit refused again and again: {committed}")

    async def _rest(self) -> None:
        """All is calm for a while: a last owner finishes and releases, and perhaps the resume window ends."""
        await self._drain(f"calm{self.step}", self.draw.choice(("", "end", "end", "keep state")))
        if self.draw.random() < 0.5:
            await self._window()

    def _complete(self) -> None:
        """Check that every accepted event was applied, at its place, as it was."""
        hold("accepted is kept: all applied", len(self.history.applied), self.ghost.last_iseq)
        for iseq, data in self.accepted.items():
            hold("accepted is kept", self.history.applied[iseq - 1], data)

    async def _clean(self) -> None:
        await self._send(("DEL", *self.snapshots.every_key()))
        await self._listen(("SUNSUBSCRIBE", self.keys.out), ("SUNSUBSCRIBE", self.keys.bell))
