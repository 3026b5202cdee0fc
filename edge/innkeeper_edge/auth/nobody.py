"""``--auth none``: anybody may enter every room, under the name that the query gives."""

from aiohttp import web

from innkeeper.connection import User
from innkeeper_edge.auth.grant import Grant, Patterns

_NAME_CHARACTERS = 64


class Anybody:
    """Lets everybody in; a name from the query proves nothing, and nobody has an id."""

    def __init__(self) -> None:
        self._rooms = Patterns.everything()

    async def open(self) -> None:
        """There is nothing to fetch."""

    async def grant(self, request: web.BaseRequest) -> Grant:
        """Return who the client says it is."""
        # request.query would be kept with the socket, 0.2 kB of it.
        return Grant(User(id="", name=shown_name(request.rel_url.query.get("name", "")) or "guest"), self._rooms)

    async def renew(self, token: str) -> Grant | None:  # noqa: ARG002 - see Authenticator
        """No token means anything here."""
        return None

    async def close(self) -> None:
        """There is nothing to let go of."""


def shown_name(text: str) -> str:
    """Return a name as it may stand in logs and on pages: at most 64 printable characters."""
    return "".join(character for character in text.strip()[:_NAME_CHARACTERS] if character.isprintable())
