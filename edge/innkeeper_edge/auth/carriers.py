"""Where a client may carry its token: a header, a subprotocol (browsers), or the query."""

import re
from typing import Final

from aiohttp import web

from innkeeper_edge.auth.grant import refuse
from innkeeper_edge.handshake import Rejection

SUBPROTOCOL: Final = "bearer."
QUERY: Final = "token"
_TOKEN_BYTES: Final = 4096
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_TWO: Final = refuse("several tokens at once: send one")
_BAD: Final = refuse(f"a token is at most {_TOKEN_BYTES} letters, digits and ._~+/=-")


def token_of(request: web.BaseRequest) -> str | Rejection | None:
    """Return the token of a request; None where it has none, a refusal where it has several or one that cannot be.

    Looked for in ``Authorization: Bearer TOKEN``, in a subprotocol ``bearer.TOKEN``, and in the query's ``token``. The
    same one twice counts as one.
    """
    found = set[str]()
    for value in request.headers.getall("Authorization", ()):
        scheme, _, token = value.strip().partition(" ")
        if scheme.lower() != "bearer":
            return refuse("only Authorization: Bearer is understood")
        found.add(token.strip())
    for value in request.headers.getall("Sec-WebSocket-Protocol", ()):
        words = (word.strip() for word in value.split(","))
        found.update(word.removeprefix(SUBPROTOCOL) for word in words if word.startswith(SUBPROTOCOL))
    found.update(request.query.getall(QUERY, ()))
    if len(found) > 1:
        return _TWO
    for token in found:
        return token if is_token(token) else _BAD
    return None


def is_token(text: str) -> bool:
    """Return whether something may be a token, by its length and characters."""
    return len(text) <= _TOKEN_BYTES and _TOKEN.fullmatch(text) is not None
