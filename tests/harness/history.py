"""Decide from what clients saw and what Redis holds whether a room kept its promises: pure, it knows no clock or I/O.

The room under test numbers all it does (``harness/chronicle.py`` is such a room): each join, message and leave is a
step, from 1, with a digest chained over all steps before it; every step is stored and shown to all members. Then one
list of steps in Redis, and what each socket got, say everything: the raw protocol has no acknowledgements.

- What any socket was shown was committed, so it must stand in the list, unchanged.
- A socket that stayed open through the quiet at the end must find all it sent in the list, and must have got all.
- Of a socket that was closed the last messages may be missing; what was applied of it is 1, 2, 3 …, once, in order.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What can go wrong."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    HOLE = "hole"
    STALE_WRITE = "stale write"
    WRONG_LEAVE = "wrong leave"
    GHOST = "ghost member"
    DIFFERENT_STATE = "different state"
    PUT_ASIDE = "put aside"


class Violation(NamedTuple):
    """One broken promise."""

    kind: Kind
    room: str
    text: str


class Step(NamedTuple):
    """One thing that happened in a room: ``join``, ``say`` or ``leave``; number counts a sender's messages from 1."""

    kind: str
    sender: str
    number: int = 0


class Output(NamedTuple):
    """A step as it was shown to the members: its place in the room's history, and the digest of all up to it."""

    place: int
    step: Step
    digest: str


@dataclass(slots=True)
class Socket:
    """What one socket did and got. A client that comes back is another socket, under another name.

    Attributes:
        sender: Its name, used by no other socket.
        sent: It sent the messages 1 … sent.
        received: What it was shown, in the order it came.
        is_open: Whether it stayed open through the quiet at the end.
        accepted: Messages known to be accepted by other means: 1 … accepted must be applied.
        lossy: The history was cut back while it was open (data lost, flushed, a failover): what it sent may be gone,
            and so may what it was shown, but then it must not stay open: an open one has lost nothing.
    """

    sender: str
    sent: int = 0
    received: list[Output] = field(default_factory=list)
    is_open: bool = False
    accepted: int = 0
    lossy: bool = False


@dataclass(slots=True)
class Stored:
    """What Redis holds of a room after the quiet.

    Attributes:
        steps: All that was applied, in order.
        count: The room's own count of them.
        digest: The room's own digest over them.
        members: Who is in: (sender, number of its last message as the member's row has it).
        backlog: Accepted events that nobody applied.
        dead: Events put aside, in words.
        outlog: The last outputs, as far as they are still there.
    """

    steps: Sequence[Step]
    count: int
    digest: str
    members: Sequence[tuple[str, int]] = ()
    backlog: int = 0
    dead: Sequence[str] = ()
    outlog: Sequence[Output] = ()


def next_digest(previous: str, step: Step) -> str:
    """Return the digest of a history one step longer; an empty history has the empty digest."""
    return hashlib.blake2b(f"{previous} {step.kind} {step.sender} {step.number}".encode(), digest_size=6).hexdigest()


def outputs_of(steps: Iterable[Step]) -> list[Output]:
    """Return what a room with this history has shown."""
    outputs: list[Output] = []
    digest = ""
    for place, step in enumerate(steps, 1):
        digest = next_digest(digest, step)
        outputs.append(Output(place, step, digest))
    return outputs


def check(room: str, sockets: Iterable[Socket], stored: Stored) -> list[Violation]:
    """Return every broken promise of one room; an empty list is the verdict hoped for."""
    return _RoomCheck(room, {socket.sender: socket for socket in sockets}, stored).run()


class _RoomCheck:
    """The check of one room; each method looks at one thing and notes what it finds."""

    def __init__(self, room: str, sockets: dict[str, Socket], stored: Stored) -> None:
        self.room = room
        self.sockets = sockets
        self.stored = stored
        self.shown = outputs_of(stored.steps)
        self.found: list[Violation] = []
        self.said: dict[str, list[int]] = {sender: [] for sender in sockets}
        self.joined: set[str] = set()
        self.left: set[str] = set()

    def run(self) -> list[Violation]:
        self._walk()
        for sender, numbers in self.said.items():
            self._messages(sender, numbers)
        for socket in self.sockets.values():
            self._membership(socket)
            self._received(socket)
        self._members()
        self._rest()
        return self.found

    def _note(self, kind: Kind, text: str) -> None:
        self.found.append(Violation(kind, self.room, text))

    # --- what was applied -----------------------------------------------------------------------------------------
    def _walk(self) -> None:
        """Go through the steps once: joins and leaves in their places, messages between them."""
        for place, (kind, sender, number) in enumerate(self.stored.steps, 1):
            where = f"step {place}: {kind} of {sender}"
            if sender not in self.sockets:
                self._note(Kind.DIFFERENT_STATE, f"{where}: no such socket ever was")
            elif kind == "join":
                if sender in self.joined:
                    self._note(Kind.DUPLICATED, f"{where}: it had joined before")
                self.joined.add(sender)
            elif sender not in self.joined:
                self._note(Kind.WRONG_LEAVE, f"{where}: it has not joined")
            elif sender in self.left and kind != "timer":  # that is the room's, whoever has set it
                again = "a second time" if kind == "leave" else "after its leave"
                self._note(Kind.WRONG_LEAVE, f"{where} {number or ''}: {again}")
            if kind == "leave":
                self.left.add(sender)
            elif kind == "say":
                self.said.setdefault(sender, []).append(number)

    def _messages(self, sender: str, numbers: list[int]) -> None:
        """A sender's messages were applied once, in its order, without one missing in between."""
        for number, times in Counter(numbers).items():
            if times > 1:
                self._note(Kind.DUPLICATED, f"message {number} of {sender} was applied {times} times")
        once = list(dict.fromkeys(numbers))
        if once != sorted(once):
            self._note(Kind.REORDERED, f"messages of {sender} were applied in the order {_cut(once)}")
        socket = self.sockets.get(sender)
        if socket is None:
            return
        if invented := [number for number in once if not 1 <= number <= socket.sent]:
            self._note(Kind.DIFFERENT_STATE, f"{sender} sent 1 … {socket.sent}, applied was {_cut(invented)}")
        if socket.lossy and not socket.is_open:
            return
        due = max([socket.accepted, *once, socket.sent if socket.is_open else 0])
        if missing := sorted(set(range(1, due + 1)) - set(once)):
            why = "its socket stayed open" if socket.is_open else "later ones were applied, or it was accepted"
            self._note(Kind.LOST, f"message(s) {_cut(missing)} of {sender} never applied although {why}")

    def _membership(self, socket: Socket) -> None:
        """Who is open is in, who is closed has left."""
        sender = socket.sender
        if socket.is_open and sender not in self.joined:
            self._note(Kind.LOST, f"the join of {sender} was never applied although its socket stayed open")
        elif socket.is_open and sender in self.left:
            self._note(Kind.WRONG_LEAVE, f"{sender} has left although its socket stayed open")
        elif not socket.is_open and sender in self.joined - self.left:
            ghost = any(sender == member for member, _ in self.stored.members)
            self._note(Kind.GHOST if ghost else Kind.WRONG_LEAVE, f"{sender} is closed and never left")

    def _members(self) -> None:
        """Redis' members are those who joined and did not leave, with the last message each."""
        present = Counter(sender for sender, _ in self.stored.members)
        for sender, times in present.items():
            if times > 1 or sender not in self.joined - self.left:
                self._note(Kind.GHOST, f"{sender} is {times} time(s) a member, which its joins and leaves do not say")
        for sender in self.joined - self.left - present.keys():
            if sender in self.sockets and self.sockets[sender].is_open:  # else its leave is missing, noted above
                self._note(Kind.DIFFERENT_STATE, f"{sender} joined, did not leave and is no member")
        for sender, number in self.stored.members:
            last = max(self.said.get(sender, ()), default=0)
            if number != last:
                self._note(Kind.DIFFERENT_STATE, f"{sender}'s row says {number}, its last message applied is {last}")

    def _rest(self) -> None:
        stored, shown = self.stored, self.shown
        digest = shown[-1].digest if shown else ""
        if (stored.count, stored.digest) != (len(shown), digest):
            self._note(
                Kind.DIFFERENT_STATE,
                f"the room counts {stored.count} steps with digest {stored.digest!r}, "
                f"the stored ones are {len(shown)} with {digest!r}",
            )
        if stored.backlog:
            self._note(Kind.LOST, f"{stored.backlog} accepted event(s) wait although all is quiet")
        for text in stored.dead:
            self._note(Kind.PUT_ASIDE, text)
        for entry, place in zip(stored.outlog, range(len(shown) - len(stored.outlog) + 1, len(shown) + 1), strict=True):
            if place < 1 or entry != shown[place - 1]:
                self._note(Kind.DIFFERENT_STATE, f"the outlog has {entry}, its place holds another step")
                return

    # --- what a socket was shown ----------------------------------------------------------------------------------
    def _received(self, socket: Socket) -> None:
        """A socket got one unbroken piece of the room's history, from its own join on."""
        got = socket.received
        if not got:
            if socket.is_open and socket.sender in self.joined:
                self._note(Kind.HOLE, f"{socket.sender} got nothing, not even its join")
            return
        if got[0].step != Step("join", socket.sender):
            self._note(Kind.HOLE, f"the first that {socket.sender} got was not its join but {got[0]}")
        if [output.place for output in got] != list(range(got[0].place, got[0].place + len(got))):
            self._broken_row(socket)
        self._matches(socket)
        last = max(output.place for output in got)
        if socket.is_open and last < len(self.shown):
            self._note(Kind.HOLE, f"{socket.sender} got up to step {last} of {len(self.shown)} and stayed open")

    def _broken_row(self, socket: Socket) -> None:
        """Say in which way the outputs a socket got are not one row."""
        sender, got = socket.sender, socket.received
        for output, times in Counter(got).items():
            if times > 1:
                self._note(Kind.DUPLICATED, f"{sender} got step {output.place} {times} times")
        once = [output.place for output in dict.fromkeys(got)]
        if len(set(once)) < len(once):
            self._note(Kind.STALE_WRITE, f"{sender} got two different outputs under one number")
        elif once != sorted(once):
            at = next(n for n in range(1, len(once)) if once[n] < once[n - 1])
            self._note(Kind.REORDERED, f"{sender} got step {once[at]} after step {once[at - 1]}")
        if missing := sorted(set(range(min(once), max(once) + 1)) - set(once)):
            self._note(Kind.HOLE, f"{sender} did not get step(s) {_cut(missing)} of {min(once)} … {max(once)}")

    def _matches(self, socket: Socket) -> None:
        """What a socket got is what is stored; where history was cut back it is at least one history."""
        previous: Output | None = None
        for output in socket.received:
            place = output.place
            known = self.shown[place - 1] if 1 <= place <= len(self.shown) else None
            if output != known and (socket.is_open or not socket.lossy):
                self._note(Kind.STALE_WRITE, f"{socket.sender} got {output}, stored is {known}")
                return
            if (
                socket.lossy and previous is not None and place == previous.place + 1
                and output.digest != next_digest(previous.digest, output.step)
            ):  # fmt: skip
                self._note(Kind.STALE_WRITE, f"{socket.sender} got {output} after {previous}: of another history")
                return
            previous = output


def _cut(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, numbers[:8]))
    return f"{text} … ({len(numbers)} in all)" if len(numbers) > 8 else text
