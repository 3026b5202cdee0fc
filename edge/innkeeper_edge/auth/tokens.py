"""``--auth jwt``: signed tokens (RFC 7519) say who it is, which rooms it may enter, and until when."""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import jwt
from aiohttp import web

from innkeeper.connection import User
from innkeeper.options import without_password
from innkeeper_edge.auth.carriers import is_token, token_of
from innkeeper_edge.auth.errors import AuthInvalid, TokenInvalid
from innkeeper_edge.auth.grant import Grant, PatternInvalid, Patterns, refuse
from innkeeper_edge.auth.jwt_keys import Key, jwks_file, jwks_keys
from innkeeper_edge.auth.nobody import shown_name
from innkeeper_edge.handshake import Rejection

log = logging.getLogger("innkeeper.edge")

LEEWAY_S: Final = 30
_USER_CHARACTERS = 256
_FETCH_S = 5.0
_FETCH_BYTES = 262_144
_REFRESH_S = 300.0
_AGAIN_S = 10.0
_FIRST_AGAIN_S = 1.0
_LATEST_S = 2**53
_NO_TOKEN: Final = refuse("send a token: Authorization: Bearer, or the subprotocol bearer.TOKEN, or ?token=")
_NO_KEYS: Final = Rejection(503, "unavailable", "the keys of tokens are not known yet", (("Retry-After", "1"),))
_BAD_TOKEN: Final = refuse("this token is not valid (any more)")


class JwtSettings(NamedTuple):
    """What a token has to be.

    Attributes:
        keys: Those that are known at the start.
        jwks: URL or file where more come from, read again for an unknown key id; empty: nowhere.
        algorithms: The only ones taken, whatever a token says of itself.
        audiences: ``aud`` has to name one of them.
        issuer: What ``iss`` has to be; empty: anything.
        rooms_claim: Claim with the rooms that the user may enter, a list of patterns or a text with blanks between
            them. A token without it may enter none.
    """

    keys: tuple[Key, ...]
    jwks: str
    algorithms: tuple[str, ...]
    audiences: tuple[str, ...]
    issuer: str = ""
    rooms_claim: str = "rooms"


class JwtAuthenticator:
    """Verifies the tokens of requests."""

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        self._fetched: list[Key] = []
        self._fetched_at_s = self._tried_at_s = -_REFRESH_S
        self._lock = asyncio.Lock()
        self._beside: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Fetch the keys; where they cannot be had yet, requests wait for the next try."""
        if self._settings.jwks:
            await self._refresh()
        if self._settings.jwks.startswith("http://"):
            shown = _shown(self._settings.jwks)
            log.warning("the keys at %s come without TLS: who is on the way there can let in anybody", shown)

    async def grant(self, request: web.BaseRequest) -> Grant | Rejection:
        """Return what the token of a request grants."""
        token = token_of(request)
        if token is None:
            return _NO_TOKEN
        if isinstance(token, Rejection):
            return token
        found = await self.renew(token)
        return found or (_BAD_TOKEN if self._known else _NO_KEYS)

    async def renew(self, token: str) -> Grant | None:
        """Return what a token grants, None where it is not valid; the log says why."""
        try:
            return self._read(await self._verified(token))
        except TokenInvalid as error:
            log.info("a token was refused: %s", error)
            return None

    async def close(self) -> None:
        """Stop fetching."""
        if self._beside is not None:
            self._beside.cancel()
            await asyncio.wait([self._beside])

    # --- keys -----------------------------------------------------------------------------------------------------
    async def _keys_for(self, kid: str) -> list[Key]:
        """Return those that may have signed: the one of that id, else those without one; without an id all of them."""
        if self._settings.jwks:
            if not any(key.kid == kid or not kid for key in self._known):
                await self._refresh()  # a new key perhaps
            elif time.monotonic() - self._fetched_at_s > _REFRESH_S and not self._is_refreshing:
                self._beside = asyncio.create_task(self._refresh())  # whose key is known waits for nobody
        keys = self._known
        return [key for key in keys if not kid or key.kid == kid] or [key for key in keys if not key.kid]

    @property
    def _is_refreshing(self) -> bool:
        return self._beside is not None and not self._beside.done()

    @property
    def _known(self) -> list[Key]:
        return [*self._settings.keys, *self._fetched]

    async def _refresh(self) -> None:
        """Fetch the JWKS, at most every ten seconds; where that fails the keys stay as they are."""
        async with self._lock:
            if time.monotonic() - self._tried_at_s < (_AGAIN_S if self._known else _FIRST_AGAIN_S):
                return
            self._tried_at_s = time.monotonic()
            url = self._settings.jwks
            try:
                keys = await _keys_at(url)
            except (aiohttp.ClientError, TimeoutError, AuthInvalid, ValueError) as error:
                log.warning("the keys at %s could not be had: %s", _shown(url), _why(error))
                return
            if keys:
                self._fetched, self._fetched_at_s = keys, time.monotonic()
            else:
                log.warning("the JWKS at %s has no key that can be used", _shown(url))

    # --- tokens ---------------------------------------------------------------------------------------------------
    async def _verified(self, token: str) -> dict[str, Any]:
        if not is_token(token):
            raise TokenInvalid("it is too long, or has characters that no token has")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenInvalid("it cannot be read") from None
        if "crit" in header or "b64" in header:
            raise TokenInvalid("it demands what is not understood here")
        kid, algorithm = header.get("kid", ""), header.get("alg")
        if not isinstance(kid, str) or algorithm not in self._settings.algorithms:
            raise TokenInvalid("its algorithm is not one of those allowed")
        keys = [key for key in await self._keys_for(kid) if key.algorithm == algorithm]
        if not keys:
            raise TokenInvalid("it is signed with a key that is not known")
        return self._decoded(token, keys)

    def _decoded(self, token: str, keys: Sequence[Key]) -> dict[str, Any]:
        settings = self._settings
        for key in keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.verifier,
                    algorithms=[key.algorithm],
                    audience=settings.audiences,
                    issuer=settings.issuer or None,
                    leeway=LEEWAY_S,
                    options={"require": ["exp", "aud", "sub"]},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError as error:
                raise TokenInvalid(_REASONS.get(type(error), "it is malformed")) from None
            except (ValueError, TypeError, OverflowError, RecursionError):
                raise TokenInvalid("it is malformed") from None
            return claims
        raise TokenInvalid("its signature is wrong")

    def _read(self, claims: dict[str, Any]) -> Grant:
        user_id, name, expires_s = claims["sub"], claims.get("name"), claims["exp"]
        if not isinstance(user_id, str) or not 0 < len(user_id) <= _USER_CHARACTERS or not user_id.isprintable():
            raise TokenInvalid(f"sub is to be 1 to {_USER_CHARACTERS} printable characters")
        if not all(_is_time(claims[name]) for name in ("exp", "nbf", "iat") if name in claims):
            raise TokenInvalid("its times are no numbers")
        rooms = claims.get(self._settings.rooms_claim, [])
        try:
            patterns = Patterns(rooms.split() if isinstance(rooms, str) else rooms)
        except (PatternInvalid, TypeError):
            raise TokenInvalid("its claim of rooms is no list of patterns") from None
        shown = shown_name(name) if isinstance(name, str) else ""
        return Grant(User(user_id, shown or user_id), patterns, float(expires_s) + LEEWAY_S)


_REASONS: Final[dict[type[Exception], str]] = {
    jwt.ExpiredSignatureError: "it has expired",
    jwt.ImmatureSignatureError: "it is not valid yet",
    jwt.InvalidIssuedAtError: "it was issued in the future",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.InvalidIssuerError: "it is from another issuer",
    jwt.MissingRequiredClaimError: "exp, aud or sub is missing",
}


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LATEST_S


def _shown(url: str) -> str:
    """Return a URL fit for logs: its query may hold a key."""
    base, mark, _ = without_password(url).partition("?")
    return f"{base}?***" if mark else base


def _why(error: Exception) -> str:
    """Return what went wrong, without the URL, which may hold a password."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"it was answered with {error.status}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error).__name__
    return str(error) if isinstance(error, AuthInvalid) else type(error).__name__


async def _keys_at(place: str) -> list[Key]:
    """Return the keys at a URL or in a file; only a file may hold secrets."""
    if place.startswith(("https://", "http://")):
        return jwks_keys(await _fetch(place), secrets=False)
    return await asyncio.to_thread(jwks_file, Path(place))


async def _fetch(url: str) -> bytes:
    """Return what is at a URL, which has to answer 200 within five seconds with at most 256 KiB."""
    timeout = aiohttp.ClientTimeout(total=_FETCH_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(url, allow_redirects=False, raise_for_status=True) as answer,
    ):
        body = await answer.content.read(_FETCH_BYTES + 1)
        while len(body) <= _FETCH_BYTES and (more := await answer.content.read(_FETCH_BYTES)):
            body += more
    if answer.status != 200 or len(body) > _FETCH_BYTES:  # noqa: PLR2004 - the one status that has a body to trust
        raise ValueError(f"status {answer.status}, {len(body)} bytes")
    return body
