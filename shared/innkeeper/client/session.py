"""What outlives a socket: the secret, the place in the room's log, and the messages that may be needed again.

No I/O and no clock: frames and moments come in, frames go out. The frames are those of ``innkeeper.v1``
(docs/protocol.md).
"""

from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from innkeeper.errors import MessageFailed, MessageLost

SUBPROTOCOL = "innkeeper.v1"
KEPT_COUNT = 256  # applied messages that are kept for a room that was rolled back
KEPT_S = 30.0
_NUMBER_BYTES = 8
_ANSWERS = ("hello", "resumed", "resync")


class FrameInvalid(ValueError):
    """A frame that is not innkeeper.v1; the text says why."""


class Output(tuple[int, bool, bytes]):
    """An output of the room: number, whether it is binary, payload."""

    __slots__ = ()


def token_frame(token: str) -> str:
    """Return the frame that brings a new token."""
    return f"!{orjson.dumps({'token': token}).decode()}"


def parse(frame: str | bytes) -> Output | dict[str, Any]:
    """Return what a frame from the edge holds: an output, or the words of a control frame.

    Raises:
        FrameInvalid: It is neither.
    """
    if isinstance(frame, bytes):
        if len(frame) < _NUMBER_BYTES:
            raise FrameInvalid("a binary frame without a number")
        return Output((int.from_bytes(frame[:_NUMBER_BYTES], "big"), True, frame[_NUMBER_BYTES:]))
    if frame.startswith("!"):
        try:
            words = orjson.loads(frame[1:])
        except orjson.JSONDecodeError as error:
            raise FrameInvalid(f"a control frame that is not JSON: {error}") from None
        if not isinstance(words, dict):
            raise FrameInvalid("a control frame that is no object")
        return words
    number, space, payload = frame.partition(" ")
    if not space or not (number.isascii() and number.isdigit()):
        raise FrameInvalid("a text frame without a number")
    return Output((int(number), False, payload.encode()))


class Receipt(Protocol):
    """Whoever waits for a message."""

    def accept(self) -> None:
        """It is in the room's inbox. Told again after a rollback."""

    def settle(self, failure: MessageFailed | None) -> None:
        """The room has handled it, or failed to."""

    def lose(self, error: MessageLost) -> None:
        """Nobody will ever say more about it."""


@dataclass(slots=True)
class Kept:
    """A message that may be needed again. ``number`` is 0 until it was written to a socket."""

    payload: str | bytes
    receipt: Receipt
    number: int = 0
    failure: MessageFailed | None = None
    applied_at_s: float = 0.0

    def frame(self) -> str | bytes:
        """Return the frame that carries it up."""
        if isinstance(self.payload, str):
            return f"{self.number} {self.payload}"
        return self.number.to_bytes(_NUMBER_BYTES, "big") + self.payload

    def size_bytes(self) -> int:
        """Return what the room's limit counts."""
        return len(self.payload.encode() if isinstance(self.payload, str) else self.payload)


class Session:
    """One session of one client.

    Attributes:
        last: The outlog id after which to go on; None while the room never answered.
        answered: Whether it ever did.
        failed: The highest message number an error was about.
    """

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.generation = 0
        self.last: str | None = None
        self.answered = False
        self.failed = 0
        self._era = ""
        self._count = 0
        self._accepted = 0
        self._applied = 0
        self._refused_from: int | None = None
        self._kept: list[Kept] = []  # numbered ones without gaps up to _count, then those never written

    def hello(self) -> str:
        """Return the first frame of the next connection."""
        self.generation += 1
        words = {"hello": {"secret": self.secret, "generation": self.generation, "last": self.last}}
        return f"!{orjson.dumps(words).decode()}"

    # --- messages up ----------------------------------------------------------------------------------------------
    def add(self, kept: Kept) -> None:
        """Keep a message that is yet to be written."""
        self._kept.append(kept)

    def hand_over(self) -> list[Kept]:
        """Return the messages of a session that was never answered, for the next: none of them was ever written."""
        kept, self._kept = self._kept, []
        return kept

    def depart(self, accepted: int, reason: str) -> list[Kept]:
        """End the session in a room that has moved it; return what that room has not accepted, for the next room.

        What was accepted once stays there, also where that room has forgotten it since.
        """
        self.accept(accepted)
        leaving = [kept for kept in self._kept if kept.number == 0 or kept.number > self._accepted]
        for kept in self._kept[: len(self._kept) - len(leaving)]:
            kept.receipt.lose(MessageLost(reason, "unknown", kept.number))  # news only to who waits for `applied`
        for kept in leaving:
            kept.number, kept.failure, kept.applied_at_s = 0, None, 0.0
        self._kept = []
        return leaving

    def next_frame(self, kept: Kept) -> str | bytes:
        """Give a message its number and return its frame."""
        self._count += 1
        kept.number = self._count
        return kept.frame()

    def rewind(self, accepted: int) -> list[str | bytes] | None:
        """Take what the room has accepted as the truth.

        Returns:
            The frames to send (again), in order; None where one of them is not kept any more, or the room has
            accepted more than was sent: the session cannot go on.
        """
        if accepted > self._count or (accepted < self._count and self._first > accepted + 1):
            return None
        self.accept(accepted)
        self._accepted = accepted
        self._applied = min(self._applied, accepted)
        self._refused_from = None
        return [
            kept.frame() if kept.number else self.next_frame(kept)
            for kept in self._kept
            if kept.number == 0 or kept.number > accepted
        ]

    def accept(self, number: int) -> None:
        """Note that all messages up to a number are in the room's inbox."""
        for kept in self._between(self._accepted, number):
            kept.receipt.accept()
        self._accepted = max(self._accepted, number)

    def apply(self, number: int, now_s: float) -> None:
        """Note that the room has handled all messages up to a number; forget those that are not needed any more."""
        self.accept(number)
        for kept in self._between(self._applied, number):
            kept.applied_at_s = now_s
            kept.receipt.settle(kept.failure)
        self._applied = max(self._applied, number)
        gone = 0
        for kept in self._kept:
            is_old = kept.number <= self._applied - KEPT_COUNT or kept.applied_at_s < now_s - KEPT_S
            if not (0 < kept.number <= self._applied and is_old):
                break
            gone += 1
        del self._kept[:gone]

    def fail(self, number: int, code: str) -> bool:
        """Note that a message failed in the room; return whether that is news."""
        if number <= self.failed:
            return False
        self.failed = number
        for kept in self._between(number - 1, number):
            kept.failure = MessageFailed(code, number)
        return True

    def refuse_from(self, number: int) -> None:
        """Note that the edge took no message from this number on."""
        self._refused_from = number

    def refuse_largest(self) -> None:
        """Note that the edge found a message too large: if any that it has not accepted is, then the largest."""
        sent = [kept for kept in self._kept if kept.number > self._accepted]
        if sent:
            self._refused_from = max(sent, key=Kept.size_bytes).number

    def end(self, reason: str) -> None:
        """Tell everybody who waits that nothing more will be heard."""
        for kept in self._kept:
            never = kept.number == 0 or (self._refused_from is not None and kept.number >= self._refused_from)
            kept.receipt.lose(MessageLost(reason, "no" if never else "unknown", kept.number or None))
        self._kept = []

    @property
    def _first(self) -> int:
        """The number of the first message kept; where none has one, the next to be given."""
        return (self._kept and self._kept[0].number) or self._count + 1

    def _between(self, after: int, to: int) -> list[Kept]:
        first = self._first
        return self._kept[max(0, after + 1 - first) : max(0, min(to, self._count) + 1 - first)]

    # --- the place in the room's log ------------------------------------------------------------------------------
    def go_to(self, at: str) -> None:
        """Note an outlog id (``oseq-mark``) that everything up to was seen."""
        self.last = at
        self._era = at.partition("-")[2]

    def enter(self, era: str) -> None:
        """Note the mark of the outputs from the next one on."""
        self._era = era

    def saw(self, seq: int) -> None:
        """Note an output.

        Raises:
            FrameInvalid: No answer came before it, or it has no number.
        """
        if not self.answered or seq < 1:
            raise FrameInvalid("an output without a number, or before the first answer")
        self.last = f"{seq}-{self._era}"


def answer_in(words: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return which answer to a hello a control frame is, and its fields; None if it is none."""
    return next(((name, words[name]) for name in _ANSWERS if isinstance(words.get(name), dict)), None)
