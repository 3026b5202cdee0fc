"""The inspector's HTTP side: its files for everybody, all else for whoever has signed in."""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from importlib import resources
from typing import Any, Final

import orjson
from aiohttp import ETag, web

from innkeeper.address import Address, InvalidAddress, parse_address
from innkeeper.errors import InnkeeperError, NoAnswer, RedisReplied, RedisUnavailable, RoomBusy
from innkeeper.inspector.board import ORDERS, Board, Wanted
from innkeeper.inspector.deeds import DEEDS, Refused
from innkeeper.inspector.login import COOKIE, SIGNED_IN_S, Login
from innkeeper.inspector.pieces import room_pieces, value_text
from innkeeper.outside import Innkeeper

log = logging.getLogger("innkeeper.inspector")

_SCRIPTS: Final = ("inspector.js", "api.js", "dom.js", "rooms.js", "room.js", "processes.js")
_FILES: Final = {
    "": ("index.html", "text/html"),
    "inspector.css": ("inspector.css", "text/css"),
    **{name: (name, "text/javascript") for name in _SCRIPTS},
}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HERE: Final = ""
"""The cookie's path: none, so it goes to /api alone, wherever the browser sees that: also below a proxy's prefix."""
_MOST_ROOMS: Final = 200
_BODY_BYTES: Final = 1_100_000  # a message of 1 MiB, and its room
_STATUSES: Final[tuple[tuple[type[InnkeeperError], int], ...]] = (
    (RedisUnavailable, 503),
    (RedisReplied, 502),
    (NoAnswer, 504),
    (RoomBusy, 503),
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Inspector:
    """The handlers.

    Args:
        inn: The rooms, connected.
        board: What is known of them all.
        login: Who may look.
        shown: The Redis, without its password.
        read_only: Whether nobody may act.
    """

    def __init__(self, inn: Innkeeper, board: Board, login: Login, *, shown: str, read_only: bool) -> None:
        self._inn = inn
        self._board = board
        self._login = login
        self._shown = shown
        self._read_only = read_only
        self._files = {path: _read(name) for path, (name, _) in _FILES.items()}

    def make_app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[_guard], client_max_size=_BODY_BYTES)
        for path in _FILES:
            app.router.add_get(f"/{path}", self._file)
        app.router.add_post("/api/login", self._sign_in)
        app.router.add_post("/api/logout", self._sign_out)
        for path, handler in (
            ("overview", self._overview),
            ("rooms", self._rooms),
            ("room", self._room),
            ("value", self._value),
        ):
            app.router.add_get(f"/api/{path}", self._signed_in(handler))
        for name in DEEDS:
            app.router.add_post(f"/api/{name}", self._signed_in(self._deed))
        return app

    # --- who asks -------------------------------------------------------------------------------------------------
    def _signed_in(self, handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if not self._login.admits(request.cookies.get(COOKIE, "")):
                return _error(401, "sign in first")
            return await handler(request)

        return checked

    async def _sign_in(self, request: web.Request) -> web.StreamResponse:
        if (wait_s := self._login.wait_s()) > 0:
            answer = _error(429, f"too many wrong passwords: try again in {wait_s:.0f} s")
            answer.headers["Retry-After"] = f"{wait_s + 1:.0f}"
            return answer
        password = (await _body(request)).get("password")
        if not isinstance(password, str) or not self._login.knows(password):
            log.warning("a wrong password from %s", request.remote)
            return _error(401, "that is not the password")
        log.info("signed in from %s", request.remote)
        response = _json({"signed_in": True})
        is_secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
        response.set_cookie(
            COOKIE, self._login.cookie(), max_age=SIGNED_IN_S, httponly=True, samesite="Strict", secure=is_secure,
            path=_HERE,
        )  # fmt: skip
        return response

    async def _sign_out(self, _request: web.Request) -> web.StreamResponse:
        response = _json({"signed_in": False})
        response.del_cookie(COOKIE, path=_HERE)
        return response

    # --- what it shows --------------------------------------------------------------------------------------------
    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rpartition("/")[2]
        body, etag = self._files[path]
        if etag in {tag.value for tag in request.if_none_match or ()}:
            response = web.Response(status=304)
        else:
            response = web.Response(body=body, content_type=_FILES[path][1], charset="utf-8")
        response.etag = ETag(etag)
        response.headers["Cache-Control"] = "no-cache"
        return response

    async def _overview(self, _request: web.Request) -> web.StreamResponse:
        survey = await self._board.survey()
        workers, edges = await self._board.processes()
        return _json(
            {
                "redis": self._shown,
                "read_only": self._read_only,
                "rooms": len(survey.rooms),
                "owned": sum(worker.row.rooms for worker in workers),
                "stuck": sum(bool(seen.trouble) for seen in survey.rooms),
                "members": sum(seen.row.members for seen in survey.rooms),
                "events_s": survey.events_s,
                "took_s": survey.took_s,
                "kinds": await self._board.kinds(),
                "counters": await self._board.counters(),
                "workers": [worker._asdict() for worker in workers],
                "edges": edges,
            }
        )

    async def _rooms(self, request: web.Request) -> web.StreamResponse:
        asked = request.query
        order = asked.get("order", "lag")
        if order not in ORDERS:
            raise Refused(f"rooms are not sorted by {order!r:.50}: {', '.join(ORDERS)}")
        offset, limit = _number(asked, "offset", 0), _number(asked, "limit", 50)
        wanted = Wanted(
            asked.get("search", "").strip(), asked.get("kind", ""), asked.get("owner", ""), asked.get("stuck") == "1"
        )
        found, count = await self._board.page(
            wanted,
            order=order,
            descending=asked.get("descending", "1") == "1",
            offset=offset,
            limit=min(limit, _MOST_ROOMS),
        )
        rooms = [{"trouble": seen.trouble, "events_s": seen.events_s, "row": seen.row} for seen in found]
        return _json({"rooms": rooms, "count": count, "offset": offset, "named": _named(wanted.search)})

    async def _room(self, request: web.Request) -> web.StreamResponse:
        room = _room_of(request.query.get("room", ""))
        pieces = await room_pieces(
            self._inn.link, self._board, room, member=request.query.get("member", ""), key=request.query.get("key", "")
        )
        return _json(pieces)

    async def _value(self, request: web.Request) -> web.StreamResponse:
        """Answer with one key of a room's state, whole."""
        room = _room_of(request.query.get("room", ""))
        return _json({"text": await value_text(self._inn.link, room, request.query.get("key", ""))})

    # --- what it does ---------------------------------------------------------------------------------------------
    async def _deed(self, request: web.Request) -> web.StreamResponse:
        if self._read_only:
            return _error(403, "this inspector only looks (--read-only)")
        name = request.path.rpartition("/")[2]
        body = await _body(request)
        room = _room_of(body.get("room"))
        done = await DEEDS[name](self._inn, room, body)
        log.info("%s: %s, asked from %s", room, done, request.remote)
        return _json({"done": done})


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors into answers, refuse other sites' requests, and say to browsers what a page of ours may do."""
    response: web.StreamResponse
    try:
        if request.method == "POST" and not _is_own(request):
            response = _error(403, "another site may not ask for this")
        else:
            response = await handler(request)
    except Refused as error:
        response = _error(error.status, str(error))
    except InvalidAddress as error:
        response = _error(400, str(error))
    except web.HTTPException as error:
        response = _error(error.status, error.reason)
    except InnkeeperError as error:
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
        response = _error(status, str(error) or "no answer in time")
    response.headers.update(_HEADERS)
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "no-store"
    return response


def _is_own(request: web.Request) -> bool:
    """Return whether a page of ours asks, or no page: browsers say so; behind a proxy the host may be another."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == request.host


async def _body(request: web.Request) -> dict[str, Any]:
    """Return a request's body.

    Raises:
        Refused: It is no JSON object, or does not say that it is one (other sites' forms cannot).
    """
    if request.content_type != "application/json":
        raise Refused("send application/json", status=415)
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise Refused("send a JSON object")
    return body


def _named(search: str) -> str:
    """Return the room whose whole address was searched for: it may be at rest, and in no list."""
    try:
        return str(parse_address(search))
    except InvalidAddress:
        return ""


def _room_of(text: object) -> Address:
    return parse_address(text if isinstance(text, str) else "")


def _number(asked: Mapping[str, str], name: str, default: int) -> int:
    text = asked.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):  # noqa: PLR2004 - more rooms than fit
        raise Refused(f"{name} is a number, 0 or more")
    return int(text)


def _read(name: str) -> tuple[bytes, str]:
    body = (resources.files("innkeeper.inspector") / "web" / name).read_bytes()
    return body, hashlib.sha256(body).hexdigest()[:16]


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(value, default=_plain),
        content_type="application/json",
    )


def _plain(value: object) -> Any:
    if isinstance(value, tuple):
        return value._asdict() if hasattr(value, "_asdict") else list(value)
    fields = getattr(value, "__struct_fields__", None)
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    raise TypeError(type(value).__name__)


def _error(status: int, text: str) -> web.Response:
    return _json({"error": text}, status=status)
