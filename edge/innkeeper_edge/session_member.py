"""One socket of a session (``innkeeper.v1``) at this edge: its numbered messages up, its numbered frames down."""

import asyncio
import logging
from collections.abc import Coroutine
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from innkeeper.close_codes import BAD_FRAME, INVALID_UTF8, REPLACED, SESSION_OVER, SLOW_READER, TOO_BIG, CloseCode
from innkeeper.connection import User
from innkeeper.functions import PushEvent
from innkeeper_edge.auth.renewal import left_s, renew
from innkeeper_edge.guard import is_utf8
from innkeeper_edge.guarded_socket import GuardedSocket
from innkeeper_edge.member import QUEUE_BYTES, Member
from innkeeper_edge.move import follow, move_session
from innkeeper_edge.subprotocol import (
    BEAT_S,
    Hello,
    Parting,
    Replay,
    at,
    control,
    frame_bytes,
    read_hello,
    read_message,
    read_token,
)

if TYPE_CHECKING:
    from innkeeper.wire import StreamId
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.feed import Feed

log = logging.getLogger("innkeeper.edge")

_CLIENT_IS_DONE = 1000
_LOST = -1


class Stage(Enum):
    """Where a session's socket stands: what comes from the room is shown from LIVE on, and held while CATCHING_UP."""

    JOINING = auto()
    CATCHING_UP = auto()
    LIVE = auto()
    CUT = auto()  # its past cannot be had: it waits for its resync mark
    MOVED = auto()  # it has left its room, and waits for its client's hello to the next


class SessionMember(Member):
    """A socket of a session.

    Attributes:
        session: The session's id, a hash.
        generation: The client's count of its connection attempts.
        last: What the client saw last; None before anything.
        stage: What it may be shown.
        visit: Grows with each change of the stage, so that an answer that comes too late is known.
        accepted: The highest number known to be in the inbox.
        applied: The highest number known to be committed.
        leave_letter: What became of its leave; empty where that is not known.
        told: The oseq of the last id that the client knows.
        era: The mark that the client takes outputs to have.
    """

    __slots__ = (
        "_expected",
        "_held",
        "_held_bytes",
        "_held_parting",
        "_invited",
        "_is_leaving",
        "_is_skipping",
        "_message_bytes",
        "_regained_at",
        "_settling",
        "_target",
        "accepted",
        "applied",
        "era",
        "generation",
        "last",
        "leave_letter",
        "session",
        "stage",
        "told",
        "visit",
    )

    def __init__(
        self,
        socket: GuardedSocket,
        transport: asyncio.WriteTransport,
        now_s: float,
        *,
        hello: Hello,
        message_bytes: int,
    ) -> None:
        super().__init__(socket, transport, now_s)
        self._invited: asyncio.Future[Hello] | None = None
        self._settling: asyncio.Future[None] | None = None
        self._begin(hello, message_bytes)

    def _begin(self, hello: Hello, message_bytes: int) -> None:
        self.id = hello.connection
        self.session = hello.session
        self.generation = hello.generation
        self.last = hello.last
        self.stage = Stage.JOINING
        self.visit = 0
        self.accepted = 0
        self.applied = 0
        self.told = 0
        self.era = 0
        self._message_bytes = message_bytes
        self._expected = 1 if hello.last is None else 0  # 0: not known before the resume is answered
        self._is_skipping = False  # of what was sent before the answer, the client sends again what counts
        self._regained_at = 0  # the number whose acceptance ends the doubt after a cut; _LOST: not known yet
        self._is_leaving = False
        self._held: list[tuple[StreamId, bytes]] = []
        self._held_bytes = 0
        self._held_parting: Parting | None = None
        self._target = ""
        self.leave_letter = ""

    # --- its place in the room ------------------------------------------------------------------------------------
    def register(self, feed: "Feed") -> None:
        """Stand among the sockets of the room."""
        feed.opened_sessions().add(self)

    def unregister(self, feed: "Feed") -> None:
        """Stand there no more."""
        feed.opened_sessions().remove(self)

    def join_event(self, user: User) -> PushEvent:
        """Return the event that brings it into the room, or back."""
        if self.last is None:
            event = super().join_event(user)
            return event._replace(session=self.session, generation=self.generation)
        return self.event("resume")

    def leave_event(self) -> PushEvent:
        """Return the event that says that its socket is gone: a drop, unless the client or the room wanted the end."""
        if self._target:
            return self.event("leave", self._target.encode())
        return self.event("leave" if self._is_leaving else "drop")

    def event(self, kind: str, data: bytes = b"", number: int = 0) -> PushEvent:
        """Return an event of this session."""
        return PushEvent(kind, self.id, data, self.session, number, self.generation)

    def ended(self, code: int) -> None:
        """Take the client's close: with 1000 it leaves, with anything else it may come back."""
        if code == _CLIENT_IS_DONE and not self.closing:
            self._is_leaving = True

    def end(self, code: CloseCode) -> None:
        """Close a socket of which the room need not hear: its session is over, or stands at another one."""
        self.pushed = False
        self.close_with(code)

    # --- from room to room ----------------------------------------------------------------------------------------
    def move(self, target: str) -> None:
        """Leave this room, tell the client where it goes, and take its hello to that room."""
        self._target = target
        super().move(target)

    def _way(self, edge: "Edge", source: "Feed", target: str) -> Coroutine[None, None, None]:
        return move_session(edge, self, source, target)

    def _follow(self, edge: "Edge", source: "Feed") -> None:
        """Leave the room that knows this session as ended, and see whether it was moved."""
        self._socket.hand_to(None)
        self.pushed, self._feed = False, None
        edge.leave(source, self)
        self._mover = edge.start(follow(edge, self, source))

    async def has_applied(self, most_s: float) -> None:
        """Return when all that was accepted is applied, or the time is over."""
        if self.applied < self.accepted:
            self._settling = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._settling], timeout=most_s)

    def applied_settled(self) -> None:
        """Hear that more was applied."""
        if self._settling is not None and not self._settling.done() and self.applied >= self.accepted:
            self._settling.set_result(None)

    async def invited(self, target: str, accepted: int) -> Hello:
        """Tell the client where it goes, and how much of what it sent stays here; return its hello."""
        self._invited = asyncio.get_running_loop().create_future()
        self.enter(Stage.MOVED)
        self.write(control(moved={"room": target, "accepted": accepted}))
        self._go_on()
        return await self._invited

    def begin_anew(self, hello: Hello, now_s: float, *, message_bytes: int) -> None:
        """Be a new session's socket, for another room, whose messages may be smaller."""
        self.begin_again(now_s, max_message_bytes=frame_bytes(message_bytes))
        self._begin(hello, min(self._message_bytes, message_bytes))

    def _take_hello(self, payload: bytes, *, is_text: bool) -> None:
        if not is_text or payload[:1] != b"!":
            return  # it was sent before the client heard of the move, and is sent again to the next room
        hello = read_hello(payload, self.grant.user.id)
        if hello is None:
            self._take_token(payload, is_text=is_text)
        elif self._invited is not None and not self._invited.done():
            self.stage = Stage.JOINING  # the next frames wait until it has entered
            self._invited.set_result(hello)

    def _take_token(self, payload: bytes, *, is_text: bool) -> None:
        token = read_token(payload) if is_text else None
        if token is None:
            self.close_with(BAD_FRAME)
        elif self._edge is not None and self._feed is not None:  # else between two rooms: it is sent again
            self._edge.spawn(renew(self._edge, self, self._feed.address, token))

    @property
    def is_overfull(self) -> bool:
        """Whether reading the socket should wait."""
        return self.stage is not Stage.MOVED and super().is_overfull

    # --- messages up ----------------------------------------------------------------------------------------------
    def take(self, payload: bytes, *, is_text: bool) -> bool:
        """Take a frame of its client; return whether the next may follow at once."""
        edge = self._edge
        assert edge is not None  # noqa: S101 - nothing is read before it has entered
        self.heard_at_s = edge.loop.time()
        if self.stage is Stage.MOVED and not self.closing:
            self.counted(len(payload))
            self._take_hello(payload, is_text=is_text)
            return not self.is_overfull
        if self.closing or not self.pushed or self._is_leaving:
            return not self.is_overfull
        message = read_message(payload, is_text=is_text)
        if is_text and not is_utf8(payload):
            self.close_with(INVALID_UTF8)
        elif message is None:
            self._take_token(payload, is_text=is_text)
        elif len(message[1]) > self._message_bytes:
            self.close_with(TOO_BIG)
        else:
            self._take("text" if is_text else "binary", *message)
        return not self.is_overfull

    def _take(self, kind: str, number: int, body: bytes) -> None:
        expected = self._expected
        if number != expected:
            self.counted(len(body))
        if number < expected:
            if number <= self.accepted:
                self.say(ack=self.accepted)
        elif number == expected:
            assert self._edge is not None and self._feed is not None  # noqa: S101, PT018 - see take
            self._expected = number + 1
            self._is_skipping = False
            self.took(len(body))
            self._edge.meters.messages_in += 1
            self._edge.ingress.add(self._feed, self.event(kind, bytes(body), number), self)
        elif expected and not self._is_skipping:
            self.write(control(error="out_of_order", expected=expected))
            self.close_with(BAD_FRAME)

    # --- what became of them --------------------------------------------------------------------------------------
    def answered(self, event: PushEvent, letter: str) -> bool:
        """Take the letter of an event of this session; return whether it is a message that is new in the inbox."""
        if event.kind in ("drop", "leave"):
            self.leave_letter = letter
            return False
        if self.closing:
            return False
        if self._is_leaving and letter in "ouc":
            return False  # the room's close, which stands before the message, says more
        if letter == "o":
            self.end(REPLACED)
        elif letter == "c" and event.kind in ("join", "resume") and self._edge is not None and self._feed is not None:
            self._follow(self._edge, self._feed)
        elif letter in "uc":
            self.end(SESSION_OVER)
        elif event.number and letter in "ad":
            self.accepted = max(self.accepted, event.number)
            if event.number == self._regained_at:
                self._regained_at = 0
            return letter == "a" and self.stage is not Stage.CUT
        elif letter == "g" and not self._regained_at and self._feed is not None:
            self._feed.cut()  # no number was left out here: Redis has forgotten what it had accepted
        return False

    # --- controls -------------------------------------------------------------------------------------------------
    def say(self, **fields: Any) -> None:
        """Write a control, if the client has had the answer to its hello."""
        if self.stage is Stage.LIVE:
            self.write(control(**fields))

    def overloaded(self) -> None:
        """Tell the client that its room is full; it keeps what was not accepted, which is tried on."""
        self.say(error="overloaded")

    def close_soon(self, within_s: float) -> bool:
        """Tell the client that this edge stops; it goes by itself within that time."""
        self.say(**{"close-soon": within_s})
        return self.stage is Stage.LIVE

    def ping(self) -> None:
        """Ask the client for a sign of life, and give one that a browser shows to its page."""
        super().ping()
        chain = self._feed.chain if self._feed is not None else None
        if chain is not None and self.stage is Stage.LIVE:
            self.write(self.placed(chain.position))

    def placed(self, position: "StreamId") -> bytes:
        """Return the control that tells the client where it stands."""
        self.told, self.era = position
        return control(at=at(position))

    # --- outputs down ---------------------------------------------------------------------------------------------
    def show(self, position: "StreamId", frames: bytes) -> None:
        """Take finished frames, whose last one is the output at a position; :meth:`flush` writes them."""
        if self.stage is Stage.LIVE:
            if self.era != position[1]:
                self.era = position[1]
                self.outgoing.append(control(era=str(position[1])))
            self.outgoing.append(frames)
            self.told = position[0]
        elif self._held_parting is None:
            self._held.append((position, frames))
            self._held_bytes += len(frames)
            if self._held_bytes > QUEUE_BYTES:
                self.close_with(SLOW_READER)

    def flush(self) -> None:
        """Write what was taken, in one write."""
        if self.outgoing:
            frames = b"".join(self.outgoing)
            self.outgoing.clear()
            self.write(frames)

    def take_leave(self) -> None:
        """Take nothing more from the client: the room closes the socket, and then the member leaves."""
        self._is_leaving = True

    def part(self, parting: Parting) -> None:
        """Close, or go to another room, after all that was shown, because the room says so: then the member leaves."""
        if self.stage is not Stage.LIVE:
            self._held_parting = self._held_parting or parting
            return
        self.flush()
        if isinstance(parting, str):
            self.move(parting)
        else:
            self._is_leaving = True
            self.close(*parting)

    # --- stages ---------------------------------------------------------------------------------------------------
    def enter(self, stage: Stage) -> int:
        """Go to another stage; return the number of this visit. What was held is forgotten."""
        self.stage = stage
        self.visit += 1
        self._held, self._held_bytes, self._held_parting = [], 0, None
        return self.visit

    def go_live(self, word: str, missed: Replay, accepted: int) -> None:
        """Give the answer to the hello, or tell of a resync; then show what was missed and what was held.

        :meth:`flush` writes it.

        Args:
            word: ``hello``, ``resumed`` or ``resync``.
            missed: What goes before what was held.
            accepted: The highest number in the inbox.
        """
        held, parting = self._held, missed.parting or self._held_parting
        if self._regained_at == _LOST:
            self.accepted, self._expected = accepted, accepted + 1
            self._is_skipping, self._regained_at = True, accepted + 1
        else:
            self.accepted = accepted = max(self.accepted, accepted)
            self._is_skipping = not self._expected
            self._expected = max(self._expected, accepted + 1)
        self.enter(Stage.LIVE)
        self.told, self.era = missed.at
        facts = {"conn": self.id, "at": at(missed.at), "accepted": accepted, "beat": BEAT_S}
        if (left := left_s(self.grant)) is not None:
            facts["expires"] = left
        self.outgoing.append(control(**{word: facts}))
        for position, frames in (*missed.frames, *([] if missed.parting else held)):
            self.show(position, frames)
        if self.applied:
            self.outgoing.append(control(applied=self.applied))
        if parting is not None:
            self.part(parting)

    def cut(self) -> None:
        """Take it that history was cut: what the client sent may be lost, so it is told from where on."""
        self._regained_at = _LOST
        self.applied = 0
        self.enter(Stage.CUT)
