"""The edge's HTTP side: what becomes of a request, and the sockets of rooms."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from innkeeper.address import Address
from innkeeper.close_codes import (
    BAD_FRAME,
    DRAINING,
    NOT_READY,
    REFUSAL_HEADER,
    RESTARTING,
    TOO_MANY_HANDSHAKES,
    UNAVAILABLE,
    CloseCode,
)
from innkeeper_edge import handshake, requests
from innkeeper_edge.admission import Admission, Admitted
from innkeeper_edge.auth import FORBIDDEN, Grant
from innkeeper_edge.edge import Edge, Kind
from innkeeper_edge.gate import Gate
from innkeeper_edge.guarded_socket import GuardedSocket, install
from innkeeper_edge.handshake import Rejection, rejected
from innkeeper_edge.member import Member
from innkeeper_edge.pages import Pages
from innkeeper_edge.session_member import SessionMember
from innkeeper_edge.subprotocol import HELLO_S, RAW, V1, Hello, frame_bytes, read_hello
from innkeeper_edge.sweep import JOIN_S

if TYPE_CHECKING:
    from innkeeper_edge.feed import Feed

log = logging.getLogger("innkeeper.edge")

_DATA = (WSMsgType.TEXT, WSMsgType.BINARY)

_Opened = tuple[web.WebSocketResponse, GuardedSocket, Member | None]


class Site:
    """The handlers of one edge.

    Args:
        edge: What the sockets hang on.
        origins: Origins allowed beside the edge's own host.
        page: See :class:`~innkeeper_edge.pages.Pages`.
        page_file: See there.
    """

    def __init__(
        self, edge: Edge, *, origins: frozenset[str] = frozenset(), page: bool = False, page_file: Path | None = None
    ) -> None:
        self._edge = edge
        self._origins = origins
        self._admission = Admission(edge.limits, edge.loop.time)
        self._pages = Pages(edge, page=page, page_file=page_file, knock=self._admission.knock)
        self._gate = Gate(edge.thrift)

    def answer(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Answer any request. This is no coroutine: what waits below a socket takes memory for as long as it lives."""
        return self.room(request) if handshake.is_for_rooms(request) else self._pages.answer(request)

    async def room(self, request: web.BaseRequest) -> web.StreamResponse:
        """Turn a request into a socket of its room, or have the room answer it; refused before Redis is touched."""
        if (refused := self._admission.knock()) is not None:
            return self._counted(refused.response())
        if not handshake.wants_socket(request):
            return self._counted(await self._request(request))
        if not await self._gate.turn():
            return self._counted(rejected(TOO_MANY_HANDSHAKES).response())
        entered = await self._enter(request)
        if isinstance(entered, web.Response):
            return self._counted(entered)
        # All that stays here stays as long as the socket, as does each coroutine below.
        admitted, address, (socket, guarded, member) = entered
        del entered
        with admitted:
            if member is not None:
                await self._live(address, member, socket, guarded)
            self._edge.meters.closes[guarded.closing_code or 0] += 1
            if guarded.closing_code is not None:
                await guarded.wait_closed()
        return socket

    def _counted(self, response: web.Response) -> web.Response:
        if why := response.headers.get(REFUSAL_HEADER):
            self._edge.meters.reject(why.partition(":")[0])
        return response

    async def _enter(self, request: web.BaseRequest) -> tuple[Admitted, Address, _Opened] | web.Response:
        """Turn a request into a socket that has its place here, or answer it."""
        address = handshake.room_address(request)
        if isinstance(address, Rejection):
            return address.response()
        if (feed := self._edge.feeds.get(address)) is not None:
            address = feed.address  # one for all sockets of the room: this one stays as long as the socket
        found = handshake.check_handshake(request) or await self._admit(request, address)
        if isinstance(found, Rejection):
            return found.response()
        kind, grant = found
        admitted = self._admission.admit(request, grant.user.id)
        if isinstance(admitted, Rejection):
            return admitted.response()
        with contextlib.ExitStack() as place:
            place.enter_context(admitted)
            opened = await self._open(request, kind, grant)
            if isinstance(opened, web.Response):
                return opened
            place.pop_all()  # who gets it gives it back
            return admitted, address, opened

    async def _open(self, request: web.BaseRequest, kind: Kind, grant: Grant) -> _Opened | web.Response:
        """Turn a request into a socket, and hear who it is; without a member it only has to end."""
        is_session = handshake.offers(request, V1)
        protocols = (V1,) if is_session else (RAW,) if handshake.offers(request, RAW) else ()
        most_bytes = frame_bytes(kind.message_bytes) if is_session else kind.message_bytes
        control_rate = self._edge.limits.control_rate
        # Pings and the join's deadline are sweeps of the edge: timers for each socket would cost memory and time.
        socket = web.WebSocketResponse(
            compress=False, max_msg_size=most_bytes + 1, decode_text=False, autoping=False, protocols=protocols
        )
        try:
            guarded = await install(
                request, socket, max_message_bytes=most_bytes, on_violation=_note, control_rate=control_rate
            )
        except ConnectionResetError:
            return web.Response(status=400)  # nobody reads it, and the socket was never one
        if request.transport is None:
            return socket, guarded, None
        now_s = self._edge.loop.time()
        if is_session:
            hello = await _hello(socket, guarded, grant.user.id)
            if hello is None:
                return socket, guarded, None
            member: Member = SessionMember(
                guarded, request.transport, now_s, hello=hello, message_bytes=kind.message_bytes
            )
        else:
            member = Member(guarded, request.transport, now_s)
        member.grant = grant
        return socket, guarded, member

    async def _request(self, request: web.BaseRequest) -> web.Response:
        """Have a room answer plain HTTP."""
        target = handshake.request_target(request)
        if isinstance(target, Rejection):
            return target.response()
        address, path = target
        admitted = await self._admit(request, address)
        if isinstance(admitted, Rejection):
            return admitted.response()
        kind, grant = admitted
        place = self._admission.admit(request, grant.user.id, is_socket=False)
        if isinstance(place, Rejection):
            return place.response()
        with place:
            return await requests.serve(self._edge, address, kind, path, grant.user, request)

    async def _admit(self, request: web.BaseRequest, address: Address) -> tuple[Kind, Grant] | Rejection:
        """Return what a request may have of a room; who may not enter does not hear whether there is such a kind."""
        refused = handshake.check_origin(request, self._origins)
        grant = refused or await self._edge.authenticator.grant(request)
        if isinstance(grant, Rejection):
            return grant
        if address not in grant.rooms:
            return FORBIDDEN
        kind = self._kind_of(address)
        return kind if isinstance(kind, Rejection) else (kind, grant)

    def _kind_of(self, address: Address) -> Kind | Rejection:
        if not self._edge.ready.is_set():
            return rejected(DRAINING if self._edge.draining else NOT_READY)
        return self._edge.kinds.get(address.kind) or Rejection(
            404, "unknown_kind", "no worker serves rooms of this kind"
        )

    async def _live(
        self, address: Address, member: Member, socket: web.WebSocketResponse, guarded: GuardedSocket
    ) -> None:
        """Join, read the socket to its end, leave."""
        if self._edge.draining:
            member.close_with(RESTARTING)
            return
        edge = self._edge
        feed: Feed | None = None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JOIN_S):
                    feed = await edge.enter(address, member)
            if feed is None:
                member.close_with(UNAVAILABLE)
                return
            member.entered(edge, feed)
            while True:
                guarded.hand_to(member)  # what is queued comes at once, so nothing overtakes it
                message = await socket.receive()
                guarded.hand_to(None)
                if message.type in _DATA:
                    if member.is_overfull:
                        await member.drained()
                    member.take(message.data, is_text=message.type is WSMsgType.TEXT)
                elif message.type is WSMsgType.PING:
                    member.heard_at_s = edge.loop.time()
                    await _pong(socket, message.data)
                elif message.type is WSMsgType.PONG:
                    member.heard_at_s = edge.loop.time()
                else:
                    if message.type is WSMsgType.CLOSE:
                        member.ended(message.data)
                    return
        finally:
            guarded.hand_to(None)
            member.gone()


async def _hello(socket: web.WebSocketResponse, guarded: GuardedSocket, user_id: str) -> Hello | None:
    """Return the first frame of a client that speaks innkeeper.v1; None where there is none, then it is closed."""
    try:
        async with asyncio.timeout(HELLO_S):
            while True:
                message = await socket.receive()
                if message.type is WSMsgType.PING:
                    await _pong(socket, message.data)
                elif message.type in _DATA:
                    hello = read_hello(message.data, user_id) if message.type is WSMsgType.TEXT else None
                    if hello is None:
                        guarded.close(BAD_FRAME.code, BAD_FRAME.reason)
                    return hello
                elif message.type is not WSMsgType.PONG:
                    return None
    except TimeoutError:
        guarded.close(UNAVAILABLE.code, UNAVAILABLE.reason)
        return None


async def _pong(socket: web.WebSocketResponse, payload: bytes) -> None:
    """Answer a ping, unless the connection is gone: the receive loop hears of that by itself."""
    with contextlib.suppress(ConnectionResetError):
        await socket.pong(payload)


def _note(code: CloseCode) -> None:
    log.info("a socket broke the protocol: %d %s", code.code, code.reason)
