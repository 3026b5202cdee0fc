"""What a client and its room tell each other, whatever socket carries it: frames come in, frames and events go out."""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from innkeeper.client.backoff import Backoff
from innkeeper.client.events import Closed, Down, Event, Message, Moved, Opened, Problem, Resync
from innkeeper.client.session import FrameInvalid, Kept, Output, Receipt, Session, answer_in, parse, token_frame
from innkeeper.close_codes import FULL, SESSION_OVER, TOO_BIG, is_final
from innkeeper.codec import Codec, MessageInvalid, decode, encode

STEADY_S = 5.0  # a connection that lived so long starts the waits anew

State = Literal["connecting", "open", "down", "closed"]


class SessionForgotten(Exception):
    """The room forgot messages that are not kept any more: this session cannot go on. Leave it."""


class Conversation:
    """One client's side of ``innkeeper.v1``, over as many sockets as it takes.

    Args:
        codec: The room's.
        backoff: How long to wait between sockets.
        tell: Called with every event, in order.
        now_s: A clock that only goes forward.

    Attributes:
        state: See :class:`innkeeper.client.Room`.
        connection_id: The same.
        closed: How it ended, once it did.
        down: The last interruption.
        room: Where it was moved last, ``kind/name``; empty while it is where it began.
        outgoing: Frames for the socket of the moment.
        leave_within_s: In what time the edge of the moment stops, once it has said so.
    """

    def __init__(
        self, codec: Codec, backoff: Backoff, tell: Callable[[Event], None], now_s: Callable[[], float]
    ) -> None:
        self.state: State = "connecting"
        self.connection_id = ""
        self.closed: Closed | None = None
        self.down: Down | None = None
        self.room = ""
        self.outgoing: deque[str | bytes] = deque()
        self.leave_within_s: float | None = None
        self._codec, self._backoff, self._tell, self._now_s = codec, backoff, tell, now_s
        self._session = Session(secrets.token_hex(16))
        self._attempts = 0
        self._open_at_s = 0.0
        self._expiry: asyncio.Future[float] | None = None
        self._expires_s: float | None = None
        self._is_new = False  # a session took the place of one that was lost, and the room has not answered it yet

    @property
    def was_answered(self) -> bool:
        """Whether the room ever answered this session."""
        return self._session.answered

    def begin(self) -> None:
        """Say hello on a new socket."""
        self.leave_within_s = None
        self.outgoing.clear()
        self.outgoing.append(self._session.hello())

    def send(self, value: Any, receipt: Receipt) -> None:
        """Keep a message until it is applied, and write it if there is a connection.

        Raises:
            OutputInvalid: The codec cannot send a value of this type.
        """
        is_binary, payload = encode(self._codec, value)
        kept = Kept(payload if is_binary else payload.decode(), receipt)
        self._session.add(kept)
        if self.closed is not None:
            self._session.end(_told(self.closed))
        elif self.state == "open":
            self.outgoing.append(self._session.next_frame(kept))

    # --- its token ------------------------------------------------------------------------------------------------
    def expires_in(self, expires_s: float) -> None:
        """Hear for how long the token of the moment still counts."""
        self._expires_s = expires_s
        if self._expiry is not None and not self._expiry.done():
            self._expiry.set_result(expires_s)

    async def expiry(self) -> float:
        """Return for how many seconds the token counts, as soon as that was told; each time only once."""
        if self._expires_s is None:
            self._expiry = asyncio.get_running_loop().create_future()
            await self._expiry
            self._expiry = None
        expires_s, self._expires_s = self._expires_s, None
        assert expires_s is not None  # noqa: S101 - it is set before the future
        return expires_s

    def show_token(self, token: str) -> None:
        """Send a new token."""
        if self.state == "open":
            self.outgoing.append(token_frame(token))

    # --- what comes down ------------------------------------------------------------------------------------------
    def heard(self, frame: str | bytes) -> None:
        """Take a frame.

        Raises:
            FrameInvalid: It is not innkeeper.v1.
            SessionForgotten: Close the socket with 1000, then call :meth:`lost` with 4410.
        """
        parsed = parse(frame)
        try:
            if isinstance(parsed, Output):
                self._output(*parsed)
            elif (answer := answer_in(parsed)) is not None:
                self._answered(*answer)
            else:
                self._control(parsed)
        except (KeyError, TypeError, AttributeError) as error:
            raise FrameInvalid(f"a control frame lacks something: {error!r}") from error

    def _output(self, seq: int, binary: bool, payload: bytes) -> None:
        self._session.saw(seq)
        try:
            self._tell(Message(decode(self._codec, binary=binary, data=payload), seq))
        except MessageInvalid:
            self._tell(Problem("not_json", None, {"seq": seq, "payload": payload}))

    def _control(self, words: dict[str, Any]) -> None:
        session = self._session
        if (expires_s := words.get("expires")) is not None:
            self.expires_in(expires_s)
        if (moved := words.get("moved")) is not None:
            self._moved(moved["room"], moved["accepted"])
            return
        if (era := words.get("era")) is not None:
            session.enter(era)
        if (at := words.get("at")) is not None:
            session.go_to(at)
        if (ack := words.get("ack")) is not None:
            session.accept(ack)
        if (applied := words.get("applied")) is not None:
            session.apply(applied, self._now_s())
        if isinstance(within_s := words.get("close-soon"), int | float):
            self.leave_within_s = within_s
        if (code := words.get("error")) is not None:
            self._failed(code, words)

    def _failed(self, code: str, words: dict[str, Any]) -> None:
        number = words.get("n")
        if code == "out_of_order":
            self._session.refuse_from(words["expected"])
        if number is None or self._session.fail(number, code):
            detail = {key: value for key, value in words.items() if key not in ("error", "n", "at")}
            self._tell(Problem(code, number, detail))

    def _answered(self, name: str, answer: dict[str, Any]) -> None:
        session = self._session
        was_open, is_new = self.state == "open", self._is_new
        frames = session.rewind(answer.get("accepted", 0))
        if frames is None:
            raise SessionForgotten
        session.go_to(answer["at"])
        session.answered = True
        self._is_new = False
        if (expires_s := answer.get("expires")) is not None:
            self.expires_in(expires_s)
        self.connection_id = answer.get("conn", self.connection_id)
        self.state = "open"
        self._open_at_s = self._open_at_s or self._now_s()
        self.outgoing.clear()  # what is not written yet is among the frames
        self.outgoing.extend(frames)
        if not was_open:
            self._tell(Opened(name != "hello", self.connection_id))
        if name == "resync" or is_new:
            self._tell(Resync(is_new))

    def _moved(self, room: str, accepted: int) -> None:
        """Go to another room with what this one has not accepted, on the socket of the moment if that lasts."""
        if self.closed is not None:
            return
        old, self._session = self._session, Session(secrets.token_hex(16))
        for kept in old.depart(accepted, f"the room has moved this client to {room}"):
            self._session.add(kept)
        self.room, self.state, self._is_new = room, "connecting", False
        self.begin()
        self._tell(Moved(room))

    # --- the end of a socket --------------------------------------------------------------------------------------
    def lost(
        self, code: int, reason: str, *, at_once: bool = False, least_s: float = 0.0, forgiven: bool = False
    ) -> float:
        """Take the end of a socket; return how long to wait before the next, unless it is closed now.

        ``least_s`` is what the server asked for; an end that is ``forgiven`` is not final. A session that is over, or
        whose join a full room refused, makes place for a new one.
        """
        answered = self._session.answered
        is_over = code == SESSION_OVER.code or (code == FULL.code and not answered)
        if self.closed is None and not (is_over or forgiven) and is_final(code):
            self.end(code, reason)
        if self.closed is not None:
            return 0.0
        if self._open_at_s and self._now_s() - self._open_at_s > STEADY_S:
            self._attempts = 0
        self._open_at_s = 0.0
        wait_s = 0.0 if at_once or (is_over and answered) else self._backoff.wait_s(self._attempts)
        wait_s = wait_s if at_once else max(wait_s, least_s)
        self._attempts += 1
        self.state = "down"
        self.down = Down(code, reason, wait_s, self._attempts)
        self._tell(self.down)
        if is_over:
            self._renew(reason)
        return wait_s

    def _renew(self, why: str) -> None:
        """Begin a new session, and tell those who wait. Of one that was never answered nothing was lost."""
        old, self._session = self._session, Session(secrets.token_hex(16))
        if old.answered:
            self._is_new = True
            old.end(f"the session ended: {why}")
        else:
            for kept in old.hand_over():
                self._session.add(kept)

    def end(self, code: int, reason: str) -> None:
        """End it for good, if it has not ended."""
        if self.closed is None:
            self.state = "closed"
            self.closed = Closed(code, reason)
            if (code, reason) == (TOO_BIG.code, TOO_BIG.reason):
                self._session.refuse_largest()
            self._session.end(_told(self.closed))
            self._tell(self.closed)


def _told(closed: Closed) -> str:
    return f"the connection ended: {closed.code} {closed.reason}".rstrip()
