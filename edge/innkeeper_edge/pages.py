"""What an edge serves beside its rooms: health, the JavaScript client, and in ``dev`` a page."""

import asyncio
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from innkeeper_edge.client_file import ClientFile
from innkeeper_edge.edge import Edge
from innkeeper_edge.handshake import Rejection
from innkeeper_edge.requests import sent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_FILES: Final = "/files/"
_METHODS: Final = ("GET", "HEAD")
_READ_FILE_S: Final = 300.0


class _File(web.FileResponse):
    """A file, which is whole as soon as it is prepared: whoever has not read it by then is cut off."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send it."""
        try:
            async with asyncio.timeout(_READ_FILE_S):
                return await super().prepare(request)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the file was not read in time") from None


class Pages:
    """The handlers of everything that is no room.

    Args:
        edge: Whose health is told.
        page: Whether ``/`` shows the page to play with.
        page_file: A page of the user's to show there instead; files in a folder of its name beside it are served under
            ``/files/``, and the page to play with is at ``/play``.
        knock: Counts what costs as much as a request to a room; says why it goes no further.
    """

    def __init__(
        self,
        edge: Edge,
        *,
        page: bool = False,
        page_file: Path | None = None,
        knock: "Callable[[], Rejection | None]" = lambda: None,
    ) -> None:
        self._edge = edge
        self._knock = knock
        self._page_file = page_file
        self._folder = page_file.with_suffix("").resolve() if page_file else None
        self._handlers: dict[str, Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]] = {
            "/healthz": self._health,
            "/innkeeper.js": ClientFile().answer,
        }
        if page:
            self._handlers |= {"/play" if page_file else "/": self._page, "/kinds.json": self._kinds}
        if page_file:
            self._handlers["/"] = self._own_page

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request.

        Raises:
            web.HTTPNotFound: There is no such page.
            web.HTTPMethodNotAllowed: It is there to be read.
        """
        path = request.rel_url.path
        handler = self._handlers.get(path)
        if handler is None and path.startswith(_FILES) and self._folder is not None:
            handler = self._file
        if handler is None:
            raise web.HTTPNotFound
        if request.method not in _METHODS:
            raise web.HTTPMethodNotAllowed(request.method, _METHODS)
        response = await handler(request)
        return response if isinstance(response, _File) else await sent(request, response)

    async def _health(self, request: web.BaseRequest) -> web.Response:  # noqa: ARG002 - a handler's signature
        """Answer 200 once Redis was reached and the kinds are known, else 503."""
        ready = self._edge.ready.is_set() and not self._edge.draining
        return web.json_response({"ready": ready, "edge": self._edge.incarnation}, status=200 if ready else 503)

    async def _page(self, request: web.BaseRequest) -> web.Response:  # noqa: ARG002 - a handler's signature
        """Show the page to play with."""
        text = (resources.files("innkeeper_edge") / "page.html").read_text(encoding="utf-8")
        return web.Response(text=text, content_type="text/html")

    async def _own_page(self, request: web.BaseRequest) -> web.StreamResponse:  # noqa: ARG002 - a handler's signature
        """Show the user's page, as it is saved now."""
        assert self._page_file is not None  # noqa: S101 - there is no route without one
        return _File(self._page_file, headers={"Cache-Control": "no-cache"})

    async def _kinds(self, request: web.BaseRequest) -> web.Response:
        """Tell the page which kinds of rooms there are, if whoever looks at it may enter any."""
        refused = self._knock() or await self._edge.authenticator.grant(request)
        if isinstance(refused, Rejection):
            return refused.response()
        return web.json_response({name: {"codec": kind.codec} for name, kind in self._edge.kinds.items()})

    async def _file(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return a file of the user's page; nothing outside its folder."""
        assert self._folder is not None  # noqa: S101 - see answer
        try:
            path = (self._folder / request.rel_url.path.removeprefix(_FILES)).resolve()
            if path.is_relative_to(self._folder) and path.is_file():
                return _File(path)
        except (OSError, ValueError):  # a name that is too long, or has a NUL in it
            pass
        raise web.HTTPNotFound
