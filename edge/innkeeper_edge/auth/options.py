"""The options of authentication, and what they choose."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click

from innkeeper_edge.auth.errors import AuthInvalid
from innkeeper_edge.auth.function import FunctionAuthenticator
from innkeeper_edge.auth.grant import Authenticator
from innkeeper_edge.auth.nobody import Anybody

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

SECRET_VARIABLE: Final = "INNKEEPER_JWT_SECRET"  # noqa: S105 - its name, not what is in it
_JWKS_VARIABLE: Final = "INNKEEPER_JWT_JWKS"
_NOT_CHOSEN: Final = (
    "no authentication is configured:"
    " --auth jwt, --auth pkg.mod:function, or --auth none if anybody may join every room"
)


class AuthOptions(NamedTuple):
    """What was given; see the options' own texts."""

    auth: str
    keys: tuple[str, ...]
    jwks: str
    algorithms: tuple[str, ...]
    audiences: tuple[str, ...]
    issuer: str
    rooms_claim: str

    def arguments(self) -> list[str]:
        """Return the command line that gives the same; secrets stay, or are put, in the environment."""
        found = ["--auth", self.auth, "--jwt-rooms-claim", self.rooms_claim]
        for option, values in (
            ("--jwt-key", self.keys),
            ("--jwt-algorithm", self.algorithms),
            ("--jwt-audience", self.audiences),
        ):
            for value in values:
                found += [option, value]
        if self.jwks:
            os.environ[_JWKS_VARIABLE] = self.jwks  # not as an argument: a password in a URL would show in ps
        return [*found, "--jwt-issuer", self.issuer] if self.issuer else found

    def authenticator(self) -> Authenticator:
        """Return what judges requests.

        Raises:
            AuthInvalid: It cannot be made of what was given.
        """
        if self.auth == "none":
            return Anybody()
        return self._jwt() if self.auth == "jwt" else FunctionAuthenticator(self.auth)

    def _jwt(self) -> Authenticator:
        try:
            from innkeeper_edge.auth import jwt_keys, tokens  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            raise AuthInvalid(f"--auth jwt needs an extra: pip install 'innkeeper[jwt]' ({error})") from None
        keys = [
            jwt_keys.secret_key(word.encode(), what=SECRET_VARIABLE)
            for word in os.environ.get(SECRET_VARIABLE, "").split()
        ]
        for given in self.keys:
            kid, sign, path = given.rpartition("=")
            keys.append(jwt_keys.file_key(Path(path if sign else given), kid=kid))
        is_url = self.jwks.startswith(("https://", "http://"))
        listed = jwt_keys.jwks_file(Path(self.jwks)) if self.jwks and not is_url else []
        jwt_keys.check_distinct([*keys, *listed])
        if not keys and not self.jwks:
            raise AuthInvalid(f"--auth jwt needs keys: {SECRET_VARIABLE}, --jwt-key or --jwt-jwks")
        if not self.audiences or "" in self.audiences:
            raise AuthInvalid("--auth jwt needs --jwt-audience: a token for another service must not open rooms here")
        usable = {key.algorithm for key in (*keys, *listed)} | ({"RS256", "ES256", "EdDSA"} if is_url else set())
        algorithms = self.algorithms or tuple(name for name in jwt_keys.ALGORITHMS if name in usable)
        if lacking := [name for name in algorithms if name not in usable]:
            raise AuthInvalid(f"--jwt-algorithm {lacking[0]}: there is no key for it")
        if unused := [key for key in keys if key.algorithm not in algorithms]:
            raise AuthInvalid(f"a key of {unused[0].algorithm} is given, which no --jwt-algorithm allows")
        return tokens.JwtAuthenticator(
            tokens.JwtSettings(tuple(keys), self.jwks, algorithms, self.audiences, self.issuer, self.rooms_claim)
        )


def auth_options() -> Callable[[Decorated], Decorated]:
    """Return the decorator of all options of authentication; :func:`take_options` makes one value of them."""

    def decorate(command: Decorated) -> Decorated:
        for option in reversed(_OPTIONS):
            command = option(command)
        return command

    return decorate


def take_options(given: dict[str, Any]) -> AuthOptions:
    """Take the options out of a command's parameters.

    Raises:
        click.UsageError: Nothing was chosen.
    """
    if given["auth"] is None:
        raise click.UsageError(_NOT_CHOSEN)
    return AuthOptions(
        auth=given.pop("auth"),
        keys=given.pop("jwt_keys"),
        jwks=given.pop("jwt_jwks"),
        algorithms=given.pop("jwt_algorithms"),
        audiences=given.pop("jwt_audiences"),
        issuer=given.pop("jwt_issuer"),
        rooms_claim=given.pop("jwt_rooms_claim"),
    )


_OPTIONS: Final = (
    click.option(
        "--auth", envvar="INNKEEPER_AUTH", metavar="none|jwt|pkg.mod:function", help="Who may join. 'none': anybody."
    ),
    click.option(
        "--jwt-key", "jwt_keys", envvar="INNKEEPER_JWT_KEY", multiple=True, metavar="[KID=]FILE",
        help=f"Public key (PEM) or secret that tokens are verified with. One secret may also be in {SECRET_VARIABLE}.",
    ),
    click.option(
        "--jwt-jwks", envvar=_JWKS_VARIABLE, default="", metavar="FILE|URL", help="Keys as a JWKS."
    ),
    click.option(
        "--jwt-algorithm", "jwt_algorithms", envvar="INNKEEPER_JWT_ALGORITHM", multiple=True,
        type=click.Choice(["HS256", "RS256", "ES256", "EdDSA"]), help="Taken alone; default: those of the keys.",
    ),
    click.option(
        "--jwt-audience", "jwt_audiences", envvar="INNKEEPER_JWT_AUDIENCE", multiple=True,
        help="What a token's aud has to name.",
    ),
    click.option("--jwt-issuer", envvar="INNKEEPER_JWT_ISSUER", default="", help="What a token's iss has to be."),
    click.option(
        "--jwt-rooms-claim", envvar="INNKEEPER_JWT_ROOMS_CLAIM", default="rooms", show_default=True,
        help="Claim with the rooms that a user may enter: chat/lobby, chat/*, *.",
    ),
)  # fmt: skip
