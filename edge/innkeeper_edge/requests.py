"""Plain HTTP to a room: read, asked, answered."""

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

import orjson
from aiohttp import ClientPayloadError, web
from multidict import CIMultiDict

from innkeeper.request import HEAD_BYTES, HOP_HEADERS, Request, Response, parse_query
from innkeeper_edge.auth import Anybody
from innkeeper_edge.auth.carriers import QUERY
from innkeeper_edge.handshake import Rejection

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper.connection import User
    from innkeeper_edge.edge import Edge, Kind

_BODY_S: Final = 30.0
_READ_S: Final = 30.0
Sent = TypeVar("Sent", bound=web.StreamResponse)
_CONTINUE: Final = "100-continue"
_SECRET: Final = ("authorization", "sec-websocket-protocol", QUERY)
_NO_REQUESTS: Final = Rejection(404, "no_requests", "rooms of this kind take no requests")


async def serve(  # noqa: PLR0917 - all that is known of it
    edge: "Edge", address: "Address", kind: "Kind", path: str, user: "User", request: web.BaseRequest
) -> web.Response:
    """Return a room's answer to a request, or why there is none."""
    if kind.request_s is None:
        return _NO_REQUESTS.response()
    # What said who it is stays here: rooms get the user.
    hidden: tuple[str, ...] = () if isinstance(edge.authenticator, Anybody) else _SECRET
    if hidden and f"{QUERY}=" in request.headers.get("Referer", ""):
        hidden = (*hidden, "referer")
    body = await _body(request, kind.message_bytes)
    if isinstance(body, Rejection):
        return body.response()
    asked = Request(
        request.method,
        path or "/",
        query_all=[pair for pair in parse_query(request.raw_path.partition("?")[2]) if pair[0] not in hidden],
        headers=_headers(request, hidden),
        body=body,
        user=user,
    )
    if len(asked.encode()) - len(body) > HEAD_BYTES:
        return Rejection(431, "headers_too_large", f"URL and headers take at most {HEAD_BYTES} bytes").response()
    answer = await edge.calls.ask(address, asked, timeout_s=kind.request_s)
    if answer is None:
        return _error(504, "no_answer", "the room did not answer in time; it may have handled the request")
    if isinstance(answer, bytes):
        return await sent(request, _response(Response.decode(answer)))
    return _error(503, "unavailable", answer.reason, (("Retry-After", "1"),))


async def _body(request: web.BaseRequest, limit_bytes: int) -> bytes | Rejection:
    """Read the body up to the limit; whoever sends more, or takes too long, is cut off."""
    too_large = Rejection(413, "body_too_large", f"a body of at most {limit_bytes} bytes")
    if (request.content_length or 0) > limit_bytes:
        return too_large
    expected = request.headers.get("Expect", "")
    if expected and expected.lower() != _CONTINUE:
        return Rejection(417, "expectation_failed", f"of expectations only {_CONTINUE} is met")
    pieces, size = [], 0
    try:
        if expected:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # it is not of the answer
        async with asyncio.timeout(_BODY_S):
            async for piece in request.content.iter_any():
                size += len(piece)
                if size > limit_bytes:
                    return too_large
                pieces.append(piece)
    except TimeoutError:
        return Rejection(408, "body_too_slow", f"the body did not come within {_BODY_S:g} s")
    except (ConnectionError, web.PayloadAccessError, ClientPayloadError):  # nobody is there to read why
        return Rejection(400, "body_cut_off", "the body ended too soon")
    body = b"".join(pieces) or await request.read()  # a function of --auth may have read it
    return body if len(body) <= limit_bytes else too_large


def _headers(request: web.BaseRequest, hidden: tuple[str, ...]) -> dict[str, str]:
    """Return the headers but for those of the connection; bytes that are not UTF-8 count as Latin-1."""
    dropped = {*HOP_HEADERS, *hidden}
    for value in request.headers.getall("Connection", ()):
        dropped.update(name.strip().lower() for name in value.split(","))
    found: dict[str, str] = {}
    for name, value in request.headers.items():
        key, text = name.lower(), value
        if key in dropped:
            continue
        try:
            text.encode()
        except UnicodeEncodeError:
            text = value.encode(errors="surrogateescape").decode("latin-1")
        found[key] = f"{found[key]}{'; ' if key == 'cookie' else ', '}{text}" if key in found else text
    return found


def _response(answer: Response) -> web.Response:
    headers = CIMultiDict(answer.headers)
    if answer.content_type:
        headers["Content-Type"] = answer.content_type
    return web.Response(status=answer.status, body=answer.body, headers=headers)


async def sent(request: web.BaseRequest, response: Sent) -> Sent:
    """Send an answer; whoever has not read it in time is cut off, as it would be kept for as long."""
    try:
        async with asyncio.timeout(_READ_S):
            await response.prepare(request)
            await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    return response


def _error(status: int, error: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> web.Response:
    body = orjson.dumps({"error": error, "message": message})
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
