"""A room seen from a client, through as many sockets as it takes."""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import ClientWebSocketResponse, ClientWSTimeout, WSMsgType
from yarl import URL

from innkeeper.client.backoff import Backoff
from innkeeper.client.conversation import Conversation, SessionForgotten, State
from innkeeper.client.events import Closed, Event, Message
from innkeeper.client.sent import Sent
from innkeeper.client.session import SUBPROTOCOL, FrameInvalid
from innkeeper.client.tokens import AGAIN_S, EARLY, Token, TokenFailed, Tokens, renew_after_s
from innkeeper.close_codes import NORMAL, PROTOCOL_ERROR, REFUSAL_HEADER, SESSION_OVER
from innkeeper.codec import Codec
from innkeeper.errors import RoomClosed

log = logging.getLogger("innkeeper.client")

ANSWER_S = 15.0  # the edge gives a join 10 s
PING_S = 10.0  # with half of it for the answer: a frozen edge is found before a grace of 30 s ends
CLOSE_S = 2.0
_GOING_PART = 0.7  # of the time in which an edge stops, used to leave it
_DROP = 3001  # any close but 1000 leaves the session alive
_ABNORMAL = 1006
_HTTP_RETRY = (408, 425, 429)
_HTTP_SERVER_ERROR = 500
_UNAUTHORIZED = 401
_WHY_CHARACTERS = 300
_MOST_RETRY_AFTER_S = 60.0
_DATA = (WSMsgType.TEXT, WSMsgType.BINARY)


def connect(
    url: str,
    *,
    name: str | None = None,
    token: Token | None = None,
    codec: Codec = "json",
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    protocols: Sequence[str] = (),
    backoff: Backoff | None = None,
    open_s: float = 30.0,
    http: aiohttp.ClientSession | None = None,
) -> "Room":
    """Return a room to be entered with ``async with``.

    Args:
        url: ``ws://host/parties/kind/name``, or wss, http, https.
        name: Added to the query as ``name``, for edges without authentication.
        token: Says whose it is, to edges with authentication: text, or a function, sync or async, that returns one: it
            is called for every connection, and again before the token of the moment expires.
        codec: The room's: ``json``, or ``raw`` for str and bytes as they are.
        query: Added to the URL's query.
        headers: Sent with each handshake.
        protocols: More subprotocols to offer.
        backoff: How long to wait before connecting again.
        open_s: How long entering may take, all attempts together.
        http: The session to connect with, which stays open; without it the room has its own.

    Raises:
        ValueError: The URL, the codec or a number cannot be.
    """
    address = URL(url)
    if address.scheme not in ("ws", "wss", "http", "https") or not address.host:
        raise ValueError(f"a room has a ws://host/parties/kind/name URL, not {url!r}")
    if codec not in ("json", "raw"):
        raise ValueError(f"codec is 'json' or 'raw', not {codec!r}")
    if not open_s > 0:
        raise ValueError(f"open_s must be above 0, not {open_s}")
    added = {**(query or {}), **({} if name is None else {"name": name})}
    handshake = {"headers": dict(headers or {}), "protocols": (SUBPROTOCOL, *protocols)}
    whole = address.update_query(added)
    return Room(
        whole, codec=codec, backoff=backoff or Backoff(), open_s=open_s, http=http, handshake=handshake, token=token
    )


class Room:
    """A member of a room. Make it with :func:`connect`; use it in one event loop."""

    def __init__(
        self,
        url: URL,
        *,
        codec: Codec,
        backoff: Backoff,
        open_s: float,
        http: aiohttp.ClientSession | None,
        handshake: dict[str, Any],
        token: Token | None = None,
    ) -> None:
        self._tokens = Tokens(token)
        self._url, self._open_s, self._http, self._handshake = url, open_s, http, handshake
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._conversation = Conversation(
            codec, backoff, self._events.put_nowait, lambda: asyncio.get_running_loop().time()
        )
        self._written = asyncio.Event()  # something may be there to write
        self._hurry = asyncio.Event()  # the wait before the next attempt is over
        self._settled = asyncio.Event()  # it was open once, or never will be
        self._socket: ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None
        self._deadline: asyncio.Timeout | None = None  # of the socket of the moment, until that is given up
        self._retry_after_s = 0.0  # what a refused handshake asked for
        self._going: asyncio.TimerHandle | None = None  # the edge of the moment stops, and this is when to leave it

    @property
    def url(self) -> str:
        """Where it connects: the room it began in, or was moved to."""
        return str(self._target())

    @property
    def state(self) -> State:
        """``connecting``, ``open``, ``down`` (it comes back by itself) or ``closed`` (it does not)."""
        return self._conversation.state

    @property
    def connection_id(self) -> str:
        """This connection's public id in the room (``conn.id``); empty before the room's first answer."""
        return self._conversation.connection_id

    async def __aenter__(self) -> Self:
        """Enter the room.

        Raises:
            RoomClosed: It was refused for good, or nothing answered within ``open_s``.
            RuntimeError: It was entered before.
        """
        if self._task is not None:
            raise RuntimeError("a room is entered once: connect again")
        self._task = asyncio.create_task(self._run(), name=f"innkeeper client {self._url.path}")
        try:
            async with asyncio.timeout(self._open_s):
                await self._settled.wait()
        except TimeoutError:
            down = self._conversation.down
            why = f": {down.reason}" if down else ""
            self._conversation.end(_ABNORMAL, f"not open after {self._open_s:g} s{why}")
        except BaseException:
            await self.close()
            raise
        if (closed := self._conversation.closed) is not None:
            await self.close()
            raise RoomClosed(closed.code, closed.reason)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def send(self, value: Any) -> Sent:
        """Send a value, now or as soon as there is a connection. Await what it returns: the message is accepted then.

        Raises:
            OutputInvalid: The codec cannot send a value of this type.
            RuntimeError: The room was not entered.
        """
        if self._task is None:
            raise RuntimeError("enter the room first: async with connect(...) as room")
        sent = Sent()
        self._conversation.send(value, sent)
        self._written.set()
        return sent

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        """Return the next message's value; other events are passed over.

        Raises:
            StopAsyncIteration: The connection ended with 1000, by either side.
            RoomClosed: It ended for good in another way.
        """
        while not isinstance(event := await self._next(), Closed):
            if isinstance(event, Message):
                return event.value
        if event.code == NORMAL.code:
            raise StopAsyncIteration
        raise RoomClosed(event.code, event.reason)

    async def events(self) -> AsyncIterator[Event]:
        """Yield everything that happens, up to and with :class:`Closed`. What is not taken waits in memory.

        Each event goes to one taker: to this, or to ``async for`` over the room.
        """
        while not isinstance(event := await self._next(), Closed):
            yield event
        yield event

    async def _next(self) -> Event:
        event = await self._events.get()
        if isinstance(event, Closed):
            self._events.put_nowait(event)  # for whoever asks again
        return event

    def reconnect(self) -> None:
        """Give the socket up and resume at once on another."""
        self._hurry.set()
        if self._deadline is not None:
            # Not by close() from here: the receiving task may come first then, and aiohttp closes with 1000.
            self._deadline.reschedule(asyncio.get_running_loop().time())
            self._deadline = None

    async def close(self) -> None:
        """Leave the room for good. What is not acknowledged is lost; await it first if that matters."""
        self._conversation.end(NORMAL.code, "left")
        if self._task is None:
            return
        if self._socket is not None:
            await self._socket.close(code=NORMAL.code)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # --- one socket after another ---------------------------------------------------------------------------------
    async def _run(self) -> None:
        conversation = self._conversation
        try:
            async with contextlib.AsyncExitStack() as stack:
                http = self._http
                if http is None:
                    http = await stack.enter_async_context(aiohttp.ClientSession())
                while conversation.closed is None:
                    self._hurry.clear()
                    self._retry_after_s = 0.0
                    code, reason = await self._connection(http)
                    wait_s = conversation.lost(
                        code, reason,
                        at_once=self._hurry.is_set(), least_s=self._retry_after_s, forgiven=self._tokens.forgives(code),
                    )  # fmt: skip
                    if wait_s and conversation.closed is None:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(wait_s):
                                await self._hurry.wait()
        except Exception:
            log.exception("the client of %s failed", self._url.path)
            raise
        finally:
            conversation.end(_ABNORMAL, "the client failed")
            self._settled.set()

    def _target(self) -> URL:
        room = self._conversation.room
        return self._url.parent.parent.joinpath(*room.split("/")).with_query(self._url.query) if room else self._url

    async def _connection(self, http: aiohttp.ClientSession) -> tuple[int, str]:
        """Live through one socket; return how it ended."""
        try:
            async with asyncio.timeout(ANSWER_S) as deadline:
                handshake = await self._tokens.added_to(self._handshake)
                socket = await http.ws_connect(
                    self._target(), **handshake, max_msg_size=0, heartbeat=PING_S,
                    timeout=ClientWSTimeout(ws_close=CLOSE_S),
                )  # fmt: skip
                try:
                    if socket.protocol != SUBPROTOCOL:
                        return PROTOCOL_ERROR.code, f"the server does not speak {SUBPROTOCOL}"
                    return await self._talk(socket, deadline)
                finally:
                    self._socket = self._deadline = None
                    await socket.close(code=_DROP)
        except aiohttp.WSServerHandshakeError as error:
            retry = (
                error.status >= _HTTP_SERVER_ERROR
                or error.status in _HTTP_RETRY
                or (self._conversation.was_answered and (error.status != _UNAUTHORIZED or self._tokens.can_renew))
            )
            why, wanted = (
                error.headers.get(name, "") if error.headers else "" for name in (REFUSAL_HEADER, "Retry-After")
            )
            if wanted.isdecimal():
                self._retry_after_s = min(float(wanted), _MOST_RETRY_AFTER_S)
            answer = f"HTTP {error.status} {why[:_WHY_CHARACTERS]}".rstrip()
            return _ABNORMAL if retry else PROTOCOL_ERROR.code, f"the handshake was answered with {answer}"
        except FrameInvalid as error:
            return PROTOCOL_ERROR.code, f"the server broke {SUBPROTOCOL}: {error}"
        except TimeoutError:
            return _ABNORMAL, "no answer"
        except (aiohttp.ClientError, OSError, TokenFailed) as error:
            return _ABNORMAL, str(error) or type(error).__name__

    async def _talk(self, socket: ClientWebSocketResponse, deadline: asyncio.Timeout) -> tuple[int, str]:
        self._socket, self._deadline = socket, deadline
        self._conversation.begin()
        self._written.set()
        writer = asyncio.create_task(self._write(socket))
        renewing = asyncio.create_task(self._renew_token())
        try:
            while True:
                message = await socket.receive()
                if message.type not in _DATA:
                    return socket.close_code or _ABNORMAL, str(message.extra or "")
                self._conversation.heard(message.data)
                self._written.set()
                if self._deadline is None:
                    return _ABNORMAL, ""
                if (within_s := self._conversation.leave_within_s) is not None and self._going is None:
                    # At a moment of its own: so that not all of an edge's clients come at once.
                    wait_s = random.uniform(0, _GOING_PART * within_s)  # noqa: S311 - no secret
                    self._going = asyncio.get_running_loop().call_later(wait_s, self.reconnect)
                if self._conversation.state == "open":
                    deadline.reschedule(None)
                    self._settled.set()
                elif deadline.when() is None:  # moved: the next room has its time, too
                    deadline.reschedule(asyncio.get_running_loop().time() + ANSWER_S)
        except SessionForgotten:
            await socket.close(code=NORMAL.code)
            return SESSION_OVER.code, "the room forgot messages that are not kept any more"
        finally:
            if self._going is not None:
                self._going.cancel()
                self._going = None
            for task in (writer, renewing):
                task.cancel()
            await asyncio.gather(writer, renewing, return_exceptions=True)

    async def _renew_token(self) -> None:
        """Send a new token each time that the one of the moment is about to expire."""
        conversation = self._conversation
        while True:
            expires_s = await conversation.expiry()
            if not self._tokens.can_renew:
                return
            await asyncio.sleep(renew_after_s(expires_s))
            try:
                conversation.show_token(await self._tokens.new())
            except TokenFailed as error:
                log.warning("the client of %s has no new token: %s", self._url.path, error)
                conversation.expires_in(AGAIN_S / EARLY)
            else:
                self._written.set()

    async def _write(self, socket: ClientWebSocketResponse) -> None:
        outgoing = self._conversation.outgoing
        while True:
            await self._written.wait()
            self._written.clear()
            while outgoing:
                frame = outgoing.popleft()
                if isinstance(frame, str):
                    await socket.send_str(frame)
                else:
                    await socket.send_bytes(frame)
