"""What authentication comes to: a user, the rooms it may enter, and until when; or a refusal."""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol, Self

from aiohttp import web

from innkeeper.address import Address, InvalidAddress, check_address, parse_address
from innkeeper.connection import User
from innkeeper_edge.handshake import Rejection

_MOST_PATTERNS = 1000


class PatternInvalid(ValueError):
    """Something that names no room and no set of rooms."""


class Patterns:
    """A set of rooms: ``chat/lobby`` is one, ``chat/*`` all of a kind, ``chat/team-*`` those that begin so, ``*`` all.

    Args:
        patterns: Of these forms.

    Raises:
        PatternInvalid: One is of none of them, or there are more than 1,000.
    """

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, patterns: Iterable[object]) -> None:
        exact, prefixes = set[str](), list[str]()
        for number, pattern in enumerate(patterns):
            if number >= _MOST_PATTERNS or not isinstance(pattern, str):
                raise PatternInvalid("patterns of rooms are at most 1,000 texts")
            if pattern.endswith("*"):
                prefixes.append(_checked_prefix(pattern[:-1]))
            else:
                try:
                    exact.add(str(parse_address(pattern)))
                except InvalidAddress as error:
                    raise PatternInvalid(str(error)) from None
        self._exact = frozenset(exact)
        self._prefixes = tuple(prefixes)

    @classmethod
    def everything(cls) -> Self:
        """Return the set of all rooms."""
        return cls(["*"])

    def __contains__(self, address: Address) -> bool:
        text = str(address)
        return text in self._exact or text.startswith(self._prefixes)


def _checked_prefix(prefix: str) -> str:
    """Return the beginning of addresses; ``chat*`` is refused: it would mean ``chatter/...`` as well."""
    kind, slash, name = prefix.partition("/")
    if prefix and not slash:
        raise PatternInvalid(f"{prefix + '*'!r}: write kind/* for all rooms of a kind")
    try:
        if prefix:
            check_address(kind, name.strip(".") or "x")
    except InvalidAddress as error:
        raise PatternInvalid(str(error)) from None
    return prefix


class Grant(NamedTuple):
    """Who it is, where it may go, and until when.

    Attributes:
        user: Its ``id`` is what sessions are bound to.
        rooms: Which it may enter.
        expires_s: Unix time after which its sockets are closed (4401); infinite where nothing says so.
        is_renewable: Whether an open socket may be given a new token.
    """

    user: User
    rooms: Patterns
    expires_s: float = math.inf
    is_renewable: bool = True


class Authenticator(Protocol):
    """Judges requests; has to be opened before, and closed after."""

    async def open(self) -> None:
        """Fetch what is needed; what cannot be had now is fetched later.

        Raises:
            AuthInvalid: It can never work like this.
        """

    async def grant(self, request: web.BaseRequest) -> Grant | Rejection:
        """Return who sent a request, or why it goes no further. Waits for no Redis."""

    async def renew(self, token: str) -> Grant | None:
        """Return what a new token of an open socket grants; None: nothing, or tokens are not what decides here."""

    async def close(self) -> None:
        """Let go of what :meth:`open` took."""


FORBIDDEN: Final = Rejection(403, "forbidden", "this user may not enter this room")


def refuse(message: str) -> Rejection:
    """Return the refusal of a request that did not say who it is, or not credibly; the text is for its sender."""
    return Rejection(401, "unauthorized", message, (("WWW-Authenticate", "Bearer"),))
