"""What the outlog tells by itself: is it one history, dense, in order, everything once?

It knows nothing of tokens, versions or dedupe; only the outputs that the model's workers write. Such an output is
``iseq chain kind sender number``: the event it comes from (0: none), and a checksum over it and all outputs before it.
"""

import zlib
from dataclasses import dataclass, field, replace
from typing import Any

from innkeeper.wire import parse_id


class Violation(AssertionError):
    """A promise or law that did not hold."""

    def __init__(self, law: str, text: str) -> None:
        super().__init__(f"{law}: {text}")
        self.law = law


def hold(law: str, found: object, wanted: object) -> None:
    """Raise unless what was found is what the law wants."""
    if found != wanted:
        raise Violation(law, f"found {found!r}, must be {wanted!r}")


def line_of(chain: int, iseq: int, what: bytes) -> tuple[int, bytes]:
    """Return the chain after an output, and its body."""
    chain = zlib.crc32(b"%d %b" % (iseq, what), chain)
    return chain, b"%d %08x %b" % (iseq, chain, what)


@dataclass
class History:
    """The outputs of one room so far, checked one after another."""

    oseq: int = 0
    chain: int = 0
    iseq: int = 0
    applied: list[bytes] = field(default_factory=list)
    numbers: dict[bytes, int] = field(default_factory=dict)
    present: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)

    def saved(self) -> "History":
        """Return a copy, for a roll-back to this moment."""
        return replace(
            self,
            applied=self.applied[:],
            numbers=self.numbers.copy(),
            present=self.present.copy(),
            gone=self.gone.copy(),
        )

    def read(self, newest_first: list[Any]) -> list[bytes]:
        """Go on with the newest entries of the outlog, and return the new bodies."""
        fresh = []
        for entry_id, fields in newest_first:
            oseq = parse_id(entry_id)[0]
            if oseq <= self.oseq:
                break
            fresh.append((oseq, fields[3]))
        for oseq, body in reversed(fresh):
            hold("dense log", oseq, self.oseq + 1)
            self.oseq = oseq
            self._take(body)
        return [body for _, body in reversed(fresh)]

    def agrees(self, meta: dict[bytes, bytes], state: dict[bytes, bytes]) -> None:
        """Check that state and counters stand where the outputs end: one atomic write made them."""
        hold("one history: state", int(state.get(b"chain", b"0")), self.chain)
        if meta:  # else the room is new, or was empty and is forgotten
            hold("one history: cursor", int(meta.get(b"cursor", b"-1")), self.iseq)
        hold("one history: last output", parse_id(meta.get(b"last", b"0-0"))[0], self.oseq)

    def _take(self, body: bytes) -> None:
        number, digest, what = body.split(b" ", 2)
        iseq = int(number)
        if iseq:
            hold("one order: events", iseq, self.iseq + 1)
            self.iseq = iseq
        self.chain, line = line_of(self.chain, iseq, what)
        hold("unbroken chain", digest, line.split(b" ", 2)[1])
        kind, sender, count = what.split(b" ", 3)[:3]
        if iseq:
            self.applied.append(b"%b %b" % (sender, count))
        self._order(kind, sender, int(count))

    def _order(self, kind: bytes, sender: bytes, number: int) -> None:
        """Check one sender's order, and joins against leaves."""
        if kind == b"left":
            if sender not in self.present:
                raise Violation("leaves once", f"{sender!r} left and was not there")
            self.present.discard(sender)
        elif kind == b"destroyed":
            hold("leaves once", self.present, set())
            self.chain = 0
        elif kind == b"edge-gone":
            if sender in self.gone:
                raise Violation("an edge dies once", repr(sender))
            self.gone.add(sender)
        elif number:
            last = self.numbers.get(sender, 0)
            if number <= last or (sender.startswith(b"s") and number != last + 1):
                raise Violation("once and in order", f"{sender!r}: {number} after {last}")
            self.numbers[sender] = number
            if kind == b"join":
                self.present.add(sender)
