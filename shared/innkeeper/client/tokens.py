"""The tokens of a client: from text or a function, one for each connection, and new ones before they expire."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from innkeeper.close_codes import EXPIRED

Token = str | Callable[[], str | Awaitable[str]]

EARLY: Final = 0.8
"""A new token is asked for when this part of the old one's time is over."""
AGAIN_S: Final = 5.0
"""How long to wait before asking again a function that failed."""


class TokenFailed(Exception):
    """The function of the user's gave no token."""


class Tokens:
    """Where a client's tokens come from.

    Args:
        source: Text, or a function; None: there are none.
    """

    def __init__(self, source: Token | None) -> None:
        self._source = source

    @property
    def can_renew(self) -> bool:
        """Whether there can be another one than before."""
        return callable(self._source)

    def forgives(self, code: int) -> bool:
        """Return whether a final end is none: a socket closed for its token's age may come back with a new one."""
        return code == EXPIRED.code and self.can_renew

    async def new(self) -> str:
        """Return a token.

        Raises:
            TokenFailed: The function raised, or returned no text.
        """
        found: Any = self._source
        try:
            if callable(found):
                found = found()
            if inspect.isawaitable(found):
                found = await found
        except Exception as error:
            raise TokenFailed(f"no token: {type(error).__name__}: {error}") from error
        if not isinstance(found, str) or not found:
            raise TokenFailed(f"no token: a {type(found).__name__} instead of text")
        return found

    async def added_to(self, handshake: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a handshake with a token among its headers.

        Raises:
            TokenFailed: As :meth:`new`.
        """
        if self._source is None:
            return handshake
        return {**handshake, "headers": {**handshake["headers"], "Authorization": f"Bearer {await self.new()}"}}


def renew_after_s(expires_s: float) -> float:
    """Return how long a token that expires in so many seconds is used before another is asked for."""
    return max(0.0, expires_s * EARLY)
