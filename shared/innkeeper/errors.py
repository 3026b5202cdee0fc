"""What can go wrong, as one tree.

InnkeeperError
├── RedisUnavailable      no answer in time or no connection; what was sent may have been carried out
│   └── RedisUnready      the server loads its data, or is no primary (any more)
├── RedisReplied          Redis answered with an error
│   ├── EdgeClosed        this edge's incarnation was declared dead
│   └── FunctionMissing   the functions are not loaded (yet, or no longer)
├── RedisUnusable         a server that Innkeeper refuses to run on (boot check)
├── TargetInvalid         a TARGET that cannot be loaded or has no rooms
├── ExtraMissing          an option needs a package that is not installed
├── PortTaken             the address an edge should listen on is in use
├── LeaseLost             another owner's token is stored, or none
├── TurnClosed            a hook used its room after its turn had ended
├── StateInvalid          a value that cannot be stored in ``self.state`` or ``conn.state``
│   └── StateTooLarge     the room's state is over its limit
├── OutputInvalid         a value that cannot be sent to a client, a room or as an answer
├── RequestInvalid        a request's body is not what the handler asked for: the sender gets 400
├── JobInvalid            a job that cannot be put into the queue
├── TimerInvalid          a timer that makes no sense (also a ValueError)
├── RoomBusy              a room's backlog was full for as long as a program tried
├── KindUnknown           no worker has ever served the kind of a room
├── NoAnswer              a room did not answer a program in time, or its history was cut
├── RoomClosed            a client's connection to a room ended for good
├── MessageLost           a client's session ended before its message was known to be accepted
├── MessageFailed         the room's handler failed on a client's message
└── Refused               raised by users in on_connect: not a failure, the connection is refused

Each class says in ``exit_code`` how a command ends that meets it.
"""

from typing import ClassVar, Literal


class InnkeeperError(Exception):
    """The root of all errors that Innkeeper raises itself."""

    exit_code: ClassVar[int] = 1


class RedisUnavailable(InnkeeperError):
    """No answer within the timeout, or no connection. The call may have been carried out: resend it unchanged."""

    exit_code = 3


class RedisUnready(RedisUnavailable):
    """The server answered READONLY, MASTERDOWN or LOADING; the link connects anew, resend unchanged."""


class RedisReplied(InnkeeperError):
    """An error reply; ``str(error)`` is its text, whose first word is its code."""


class EdgeClosed(RedisReplied):
    """The edge was declared dead: close the sockets of the room with 1012 and take a new incarnation."""


class FunctionMissing(RedisReplied):
    """Redis does not know the function: a worker loads the library, then everybody resends."""


class RedisUnusable(InnkeeperError):
    """Redis lacks something that the promises need; the text says what to change."""

    exit_code = 3


class ExtraMissing(InnkeeperError):
    """An option needs packages of an extra; the text says what to install."""

    exit_code = 2


class TargetInvalid(InnkeeperError):
    """A TARGET of the worker cannot be imported, or holds no Room; the text names it."""

    exit_code = 4


class PortTaken(InnkeeperError):
    """Somebody else listens on the host and port asked for."""

    exit_code = 5


class LeaseLost(InnkeeperError):
    """The room belongs to somebody else. Cancel its handler, drop it from memory, and claim it anew if need be."""

    def __init__(self, room: str, reason: str) -> None:
        super().__init__(f"room {room}: commit refused ({reason}); dropped from memory")
        self.room = room
        self.reason = reason


class TurnClosed(InnkeeperError):
    """The hook's turn is over (it was cut at the handler limit, or the room moved): its effects count no more."""


class StateInvalid(InnkeeperError):
    """A value that JSON cannot hold; the text names the key."""


class StateTooLarge(StateInvalid):
    """The room's state would pass its limit; the text names both."""


class Refused(InnkeeperError):
    """Raise it in ``on_connect`` to refuse a connection: the socket closes with 4403 and the text (≤ 120 bytes)."""


class OutputInvalid(InnkeeperError):
    """A value that the room's codec cannot send, or that is too large; the text says which."""


class RequestInvalid(InnkeeperError, ValueError):
    """The body of a request is not UTF-8 or not JSON; uncaught, the sender gets 400 and nothing counts as failed."""


class TimerInvalid(InnkeeperError, ValueError):
    """A timer whose name, time or rhythm makes no sense; the text says which, and what would."""


class RoomBusy(InnkeeperError):
    """What was sent was not accepted: too much waits for the room already. Send it again later."""


class NoAnswer(InnkeeperError):
    """A room has not answered. What was asked may have been handled, or may still be."""


class KindUnknown(InnkeeperError):
    """No worker has ever served rooms of this kind, so there is none; nothing was sent. Is the address right?"""


class RoomClosed(InnkeeperError):
    """The client's connection to a room ended for good: a final close code, or no answer when it was opened."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the room closed the connection: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class MessageLost(InnkeeperError):
    """The client's session ended before. ``applied`` is ``no`` (send it again if you like) or ``unknown``."""

    def __init__(self, reason: str, applied: Literal["no", "unknown"], number: int | None) -> None:
        said = {"no": "it was not applied", "unknown": "it may have been applied"}[applied]
        super().__init__(f"the message got no answer ({reason}): {said}")
        self.reason = reason
        self.applied = applied
        self.number = number


class MessageFailed(InnkeeperError):
    """The room could not handle the message; what its handler had done was undone. ``code`` says how it failed."""

    def __init__(self, code: str, number: int) -> None:
        super().__init__(f"the room could not handle message {number}: {code}")
        self.code = code
        self.number = number


class JobInvalid(InnkeeperError):
    """A job that cannot be put into the queue: its name, its arguments or its times; the text says which."""


def from_reply(text: str) -> RedisReplied:
    """Return the error that an error reply stands for; ``text`` is the reply without the leading ``-``."""
    if text.startswith("EDGE_CLOSED"):
        return EdgeClosed(text)
    if "Function not found" in text:
        return FunctionMissing(text)
    return RedisReplied(text)
