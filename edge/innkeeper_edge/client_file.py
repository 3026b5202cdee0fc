"""``/innkeeper.js``: the JavaScript client, in the version that fits this edge. It is ``clients/js/innkeeper.js``."""

import hashlib
from importlib import resources

from aiohttp import ETag, web


class ClientFile:
    """Answers requests for the client; read once, at the edge's start."""

    def __init__(self) -> None:
        self._body = (resources.files("innkeeper_edge") / "innkeeper.js").read_bytes()
        self._etag = hashlib.sha256(self._body).hexdigest()[:16]

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Return the file, or 304 where the caller has it. Every page may load it: it holds nothing secret."""
        known = {tag.value for tag in request.if_none_match or ()}
        response = (
            web.Response(status=304)
            if known & {self._etag, "*"}
            else web.Response(body=self._body, content_type="text/javascript", charset="utf-8")
        )
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Cache-Control"] = "no-cache"  # asks each time, so a new edge brings its new client
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.etag = ETag(self._etag)
        return response
