"""Runs seeds of the model on one server, and hunts mutants."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from harness.model.history import Violation
from harness.model.line import Line, Run
from harness.model.mutants import Mutant, mutated
from harness.model.room import ModelRoom
from innkeeper.functions.library import HASH, library_code

WIDTH: Final = 24
STEPS: Final = 600
SHORT_STEPS: Final = 150
# Every kind of fault and answer that a long run must have met; a fault that never bit proves nothing.
BITES: Final = (
    "requests lost", "answers lost", "pushes sent again", "commits sent again", "claims sent again", "late push",
    "late commit", "late claim", "late release", "late renew", "late reap", "push repeat", "push old", "push closed",
    "letter a", "letter b", "letter d", "letter g", "letter o", "letter u", "letter c", "claim owned", "claim stolen",
    "claim owned unclean", "claim stolen unclean",
    "claim owned unclean, struck", "claim stolen unclean, struck",
    "claim held", "claim again", "commit committed", "commit repeat",
    "commit destroyed", "commit refused token", "commit refused version", "commit refused input", "commit refused gap",
    "release released", "release released empty", "release handed over", "release backlog", "release refused",
    "release repeat", "renew renewed", "renew refused", "reap reaped", "reap again", "lease expired", "worker crashed",
    "window over: inbox", "window over: meta", "window over: sessions", "window over: outlog", "rolled back",
    "commits rolled back",
)  # fmt: skip


@dataclass
class Failure:
    """A seed that ended in a violation, or in an error of the harness."""

    seed: int
    steps: int
    law: str
    text: str
    trace: list[str] = field(default_factory=list)

    def report(self) -> str:
        """Return everything needed to see it again."""
        steps = "\n".join(f"  {line}" for line in self.trace)
        return f"{steps}\nseed {self.seed}: {self.text}\nagain: make model FROM={self.seed} SEEDS=1 STEPS={self.steps}"


@dataclass
class Verdict:
    """What a number of seeds came to."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Verdict") -> None:
        """Add what other seeds came to."""
        self.seeds += other.seeds
        self.counts += other.counts
        self.failures += other.failures


def run_seeds(
    port: int,
    seeds: Iterable[int],
    *,
    steps: int,
    mutant: Mutant | None = None,
    to_the_end: bool = False,
    holds_laws: bool = True,
) -> Verdict:
    """Run seeds on a server, ``to_the_end`` or until the first fails; a mutant's functions have names of their own.

    Without ``holds_laws`` only the promises are checked, see :class:`ModelRoom`.
    """
    line, verdict = Line(port), Verdict()
    code, library = library_code("0"), HASH
    if mutant is not None:
        code, library = mutated(code, mutant)
    if not line.call("FUNCTION", "LIST", "LIBRARYNAME", f"inn_{library}"):
        line.call("FUNCTION", "LOAD", code)
    rooms: dict[bytes, ModelRoom] = {}

    def started() -> Iterator[tuple[bytes, Run]]:
        for seed in seeds:
            room = ModelRoom(seed, library, HASH, holds_laws=holds_laws)
            rooms[room.tag] = room
            yield room.tag, room.run(steps)

    try:
        for tag, error in line.run(started(), width=WIDTH):
            room = rooms.pop(tag)
            verdict.seeds += 1
            verdict.counts += room.counts
            if error is not None:
                verdict.failures.append(_failure(room, steps, error))
                if not to_the_end:
                    break
    finally:
        line.close()
        if mutant is not None:
            _unload(port, library)
    return verdict


def _unload(port: int, library: str) -> None:
    line = Line(port)
    line.call("FUNCTION", "DELETE", f"inn_{library}")
    line.close()


def _failure(room: ModelRoom, steps: int, error: Exception) -> Failure:
    law, text = (error.law, str(error)) if isinstance(error, Violation) else (type(error).__name__, repr(error))
    return Failure(room.seed, steps, law, text, [repr(entry)[:2_000] for entry in room.trace])


@dataclass
class Hunt:
    """How a mutant fared: the first seed that caught it, how, and how many of the seeds run did; None: it survived."""

    first: Failure | None
    caught: int
    seeds: int


def hunt(
    port: int, mutant: Mutant, *, most: int, at_once: int = WIDTH, to_the_end: bool = True, holds_laws: bool = True
) -> Hunt:
    """Run seeds from 1, ``at_once`` at a time, until a mutant is caught; by its breach of a law, or of a promise."""
    seeds = 0
    while seeds < most:
        chunk = range(seeds + 1, seeds + at_once + 1)
        verdict = run_seeds(port, chunk, steps=SHORT_STEPS, mutant=mutant, to_the_end=to_the_end, holds_laws=holds_laws)
        seeds += verdict.seeds
        if verdict.failures:
            return Hunt(min(verdict.failures, key=lambda failure: failure.seed), len(verdict.failures), seeds)
    return Hunt(None, 0, seeds)


def missing(verdict: Verdict) -> list[str]:
    """Return the kinds of faults and answers that never happened."""
    return [kind for kind in BITES if not verdict.counts[kind]]
