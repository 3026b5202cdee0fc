"""What must hold before a request may become a socket: its target, its handshake and its origin.

aiohttp's router matches decoded text and takes many handshakes RFC 6455 forbids, so all three are judged here on what
stood on the wire, and :func:`is_for_rooms` takes the router's place. Spaces, control characters and bytes above 127 in
the target are refused by aiohttp's parser with its own 400.
"""

import re
from typing import Final, NamedTuple

import orjson
from aiohttp import HttpVersion11, web

from innkeeper.address import Address, InvalidAddress, check_address
from innkeeper.close_codes import REFUSAL_HEADER, Refusal

_TARGET = re.compile(r"/parties/([^/?#]*)/([^/?#]*)(/[^?#]*)?(?:\?[^#]*)?")
# 16 bytes are 22 characters, and of the last one only 2 bits count: the others must be zero.
_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_HOST = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT = 65_535

_UPGRADE = "Upgrade"
_CONNECTION = "Connection"
_KEY_HEADER = "Sec-WebSocket-Key"
_VERSION_HEADER = "Sec-WebSocket-Version"
_HANDSHAKE_HEADERS = ("Host", _UPGRADE, _CONNECTION, _KEY_HEADER, _VERSION_HEADER)


class Rejection(NamedTuple):
    """Why a request goes no further; nothing was looked up for it."""

    status: int
    error: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> web.Response:
        """Return the refusal as JSON; the connection is closed after it, whatever else the client sent on it."""
        body = orjson.dumps({"error": self.error, "message": self.message})
        answer = web.Response(status=self.status, body=body, content_type="application/json", headers=self.headers)
        why = f"{self.error}: {self.message}"  # clients that want a socket see no body
        answer.headers[REFUSAL_HEADER] = why.encode("unicode_escape").decode()
        answer.force_close()
        return answer


def rejected(refusal: Refusal) -> Rejection:
    """Return a refusal of the table."""
    return Rejection(refusal.status, refusal.error, refusal.meaning, (("Retry-After", str(refusal.retry_after_s)),))


_NO_ROOM: Final = Rejection(404, "invalid_room", "a room is at /parties/{kind}/{name}")


def is_for_rooms(request: web.BaseRequest) -> bool:
    """Return whether a request is for a room, well or badly."""
    return request.rel_url.raw_path.startswith("/parties")


def room_address(request: web.BaseRequest) -> Address | Rejection:
    """Return the room a request is for, from the target as it stood on the wire.

    Nothing is decoded: the target is ``/parties/{kind}/{name}`` in plain characters and perhaps a query. A ``%`` in
    the path, an absolute URL, a further slash or a fragment is refused. Ask this before anything else.
    """
    match = _TARGET.fullmatch(request.raw_path)
    return _NO_ROOM if match is None or match[3] is not None else _address(match[1], match[2])


def request_target(request: web.BaseRequest) -> tuple[Address, str] | Rejection:
    """Return the room a plain request is for, and what follows it in the path: nothing, or from the slash on.

    As :func:`room_address`, but below the room any path goes, undecoded.
    """
    match = _TARGET.fullmatch(request.raw_path)
    if match is None:
        return _NO_ROOM
    address = _address(match[1], match[2])
    return address if isinstance(address, Rejection) else (address, match[3] or "")


def _address(kind: str, name: str) -> Address | Rejection:
    try:
        return check_address(kind, name)
    except InvalidAddress:
        # The error's own text quotes the client; a refusal does not.
        return Rejection(
            400,
            "invalid_room",
            "kind must match [a-z][a-z0-9_-]{0,31}, name [A-Za-z0-9_.:~-]{1,128} and not be dots alone;"
            " percent-encoding is not decoded",
        )


def wants_socket(request: web.BaseRequest) -> bool:
    """Return whether a request tries to become a socket, well or badly; else it is plain HTTP to the room."""
    headers = request.headers
    return _KEY_HEADER in headers or _VERSION_HEADER in headers or "websocket" in headers.get(_UPGRADE, "").lower()


def offers(request: web.BaseRequest, protocol: str) -> bool:
    """Return whether a client offers a subprotocol; only the first header counts, as it does when aiohttp chooses."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    return protocol in [word.strip() for word in offered.split(",")]


def check_handshake(request: web.BaseRequest) -> Rejection | None:
    """Return why this request may not be upgraded, or None where RFC 6455 allows it.

    Stricter than aiohttp in every point: what passes here, ``WebSocketResponse.prepare`` accepts.
    """
    return _check_request(request) or _check_upgrade(request) or _check_version_and_key(request)


def _check_request(request: web.BaseRequest) -> Rejection | None:
    """Check method, HTTP version, the bytes of the headers that matter, host, and that there is no body."""
    headers = request.headers
    if request.method != "GET":
        return Rejection(405, "invalid_handshake", "a WebSocket opens with GET", (("Allow", "GET"),))
    if request.version != HttpVersion11:
        return Rejection(400, "invalid_handshake", "a WebSocket opens over HTTP/1.1")
    if not all(value.isascii() for name in _HANDSHAKE_HEADERS for value in headers.getall(name, ())):
        return Rejection(400, "invalid_handshake", "a handshake header has a byte above 127")
    if len(headers.getall("Host", ())) != 1 or not headers["Host"]:
        return Rejection(400, "invalid_handshake", "exactly one Host header is needed")
    # What hides behind a body would be read as frames by one hop and as a request by another.
    if "Transfer-Encoding" in headers or any(value != "0" for value in headers.getall("Content-Length", ())):
        return Rejection(400, "invalid_handshake", "a handshake has no body")
    return None


def _check_upgrade(request: web.BaseRequest) -> Rejection | None:
    """Check that this hop is asked to change to the WebSocket protocol, and to nothing else."""
    headers = request.headers
    if [value.strip().lower() for value in headers.getall(_UPGRADE, ())] != ["websocket"]:
        return Rejection(
            426,
            "upgrade_required",
            "send Upgrade: websocket",
            ((_UPGRADE, "websocket"), (_CONNECTION, "close, upgrade")),
        )
    tokens = ",".join(headers.getall(_CONNECTION, ())).lower().split(",")
    if "upgrade" not in (token.strip() for token in tokens):
        return Rejection(400, "invalid_handshake", "send Connection: upgrade; a proxy may have taken it away")
    return None


def _check_version_and_key(request: web.BaseRequest) -> Rejection | None:
    """Check for exactly one version 13 and exactly one key that encodes 16 bytes."""
    headers = request.headers
    if headers.getall(_VERSION_HEADER, ()) != ["13"]:
        return Rejection(426, "unsupported_version", "only WebSocket version 13 is spoken", ((_VERSION_HEADER, "13"),))
    keys = headers.getall(_KEY_HEADER, ())
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        return Rejection(400, "invalid_handshake", "exactly one Sec-WebSocket-Key of 16 bytes in base64 is needed")
    return None


def check_origin(request: web.BaseRequest, extra_origins: frozenset[str]) -> Rejection | None:
    """Return why a page may not use this edge, or None; several Origin headers are refused."""
    origins = request.headers.getall("Origin", ())
    hosts = request.headers.getall("Host", ("",))
    if (
        len(origins) > 1
        or len(hosts) > 1
        or not is_allowed_origin(origins[0] if origins else None, hosts[0], extra_origins)
    ):
        return Rejection(403, "origin_not_allowed", "this origin may not open rooms here")
    return None


def is_allowed_origin(origin_header: str | None, host_header: str, extra_origins: frozenset[str]) -> bool:
    """Return whether a page of this origin may open a socket on this host.

    Allowed are no Origin at all (not a browser), the host itself over http or https (which of the two the edge cannot
    know behind a proxy; an absent port is the default one of the origin's scheme), and the extra origins. Nothing is
    matched by part or by suffix, and nothing but case and default ports is folded: ``example.com.`` is another host
    than ``example.com``. ``null`` is refused unless everything is allowed.

    Args:
        origin_header: The one Origin header, None where there is none.
        host_header: The Host header the client sent; behind a proxy, the one it saw.
        extra_origins: Such as ``https://app.example.com``, scheme included; ``*`` alone allows every origin.
    """
    if origin_header is None or "*" in extra_origins:
        return True
    origin = _parse_origin(origin_header)
    if origin is None:
        return False
    scheme, host, port = origin
    if scheme in _DEFAULT_PORTS and _parse_host(host_header, _DEFAULT_PORTS[scheme]) == (host, port):
        return True
    return any(_parse_origin(extra) == origin for extra in extra_origins)


def is_origin(text: str) -> bool:
    """Return whether an extra origin can match any: else it is a mistake, such as a pattern or a path behind it."""
    return text == "*" or _parse_origin(text) is not None


def _parse_origin(text: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of an origin that is nothing else, so no path, no user, no blank."""
    match = _ORIGIN.fullmatch(text.lower()) if text.isascii() else None
    if match is None:
        return None
    port = int(match[3]) if match[3] else _DEFAULT_PORTS.get(match[1])
    return None if port is not None and port > _MAX_PORT else (match[1], match[2], port)


def _parse_host(text: str, default_port: int) -> tuple[str, int] | None:
    """Return host and port of a Host header."""
    match = _HOST.fullmatch(text.lower()) if text.isascii() else None
    return (match[1], int(match[2] or default_port)) if match else None
