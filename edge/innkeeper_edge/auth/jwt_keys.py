"""The keys that tokens are verified with: secrets, PEM files and JWKS, each good for algorithms of its own type only.

A key id is used to look a key up and for nothing else. Headers of a token that bring or name a key (``jwk``, ``jku``,
``x5u``, ``x5c``) are never looked at.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_public_key,
)

from innkeeper_edge.auth.errors import AuthInvalid

ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
_SECRET_BYTES: Final = 32
_RSA_BITS: Final = 2048
_PEM: Final = b"-----BEGIN "
_PUBLIC_ONLY: Final = "give the public key (-----BEGIN PUBLIC KEY-----); nothing else belongs on an edge"
_OTHER_FORMS: Final = (
    (b"{", "this is JSON, such as a JWK: put it into a JWKS and name that with --jwt-jwks"),
    (b"ssh-", "this is an SSH key: convert it (ssh-keygen -e -m PKCS8 -f FILE)"),
    (b"ecdsa-", "this is an SSH key: convert it (ssh-keygen -e -m PKCS8 -f FILE)"),
)
_SECRET_TYPE: Final = "oct"  # noqa: S105 - what JWKS call shared secrets


class Key(NamedTuple):
    """One key: its id (empty: none), what verifies, and the one algorithm that it may be used with."""

    kid: str
    verifier: Any
    algorithm: str


def secret_key(secret: bytes, *, kid: str = "", what: str = "the secret") -> Key:
    """Return the key of a shared secret.

    Raises:
        AuthInvalid: It is shorter than 32 bytes.
    """
    if len(secret) < _SECRET_BYTES:
        raise AuthInvalid(f"{what} has {len(secret)} bytes: HS256 needs {_SECRET_BYTES} random ones at least")
    return Key(kid, secret, "HS256")


def file_key(path: Path, *, kid: str = "") -> Key:
    """Return the key in a file: a public key in PEM or DER, else the whole file (without blanks around it) is a secret.

    Raises:
        AuthInvalid: It cannot be read, is a private key, a certificate or a key of another form, or too weak.
    """
    whole = _read(path)
    data = whole.strip()
    at = data.find(_PEM)  # what stands before it is a comment
    if at < 0 and (found := _der_key(whole, path)) is not None:
        return Key(kid, found, _algorithm_of(found, f"{path}"))
    if at < 0:
        for start, what in _OTHER_FORMS:
            if data.startswith(start):
                raise AuthInvalid(f"{path}: {what}")
        return secret_key(data, kid=kid, what=f"{path}")
    if b"PRIVATE KEY-----" in data or b"CERTIFICATE-----" in data:
        raise AuthInvalid(f"{path}: {_PUBLIC_ONLY}")
    try:
        public = load_pem_public_key(data[at:])
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AuthInvalid(f"{path}: no public key that can be read: {error}") from None
    return Key(kid, public, _algorithm_of(public, f"{path}"))


def _der_key(data: bytes, path: Path) -> object | None:
    """Return the public key of a DER file, None where it is none.

    Raises:
        AuthInvalid: It is a private key.
    """
    try:
        return load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        pass
    try:
        load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    raise AuthInvalid(f"{path}: {_PUBLIC_ONLY}")


def jwks_file(path: Path) -> list[Key]:
    """Return the keys of a JWKS file, shared secrets included.

    Raises:
        AuthInvalid: It cannot be read, or holds no key that can be used.
    """
    keys = jwks_keys(_read(path), secrets=True)
    if not keys:
        raise AuthInvalid(f"{path}: no signing key of {', '.join(ALGORITHMS)} in this JWKS")
    return keys


def jwks_keys(data: bytes, *, secrets: bool) -> list[Key]:
    """Return the keys of a JWKS document that can be used; others in it are skipped.

    Args:
        data: JSON.
        secrets: Whether shared secrets count; what anybody can fetch must hold none.

    Raises:
        AuthInvalid: It is no JWKS.
    """
    try:
        found = json.loads(data)["keys"]
        entries = [entry for entry in found if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError):
        raise AuthInvalid('a JWKS is JSON of the form {"keys": [...]}') from None
    keys = (_jwk(entry) for entry in entries if secrets or entry.get("kty") != _SECRET_TYPE)
    return [key for key in keys if key is not None]


def _jwk(entry: dict[str, Any]) -> Key | None:
    if entry.get("use", "sig") != "sig" or "d" in entry:
        return None
    kid = entry.get("kid", "")
    try:
        key = jwt.PyJWK.from_dict(entry, algorithm="HS256" if entry.get("kty") == _SECRET_TYPE else None).key
        if isinstance(key, bytes):
            made = secret_key(key, kid=str(kid))
        else:
            made = Key(str(kid), key, _algorithm_of(key, "a key"))
    except (jwt.PyJWTError, AuthInvalid, ValueError, TypeError):
        return None
    return made if entry.get("alg", made.algorithm) == made.algorithm else None


def _algorithm_of(key: object, what: str) -> str:
    if isinstance(key, RSAPublicKey):
        if key.key_size < _RSA_BITS:
            raise AuthInvalid(f"{what}: an RSA key of {key.key_size} bits is too weak, {_RSA_BITS} at least")
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    if isinstance(key, Ed25519PublicKey):
        return "EdDSA"
    raise AuthInvalid(f"{what}: a key for none of {', '.join(ALGORITHMS)}")


def check_distinct(keys: Iterable[Key]) -> None:
    """Check that no key id stands for two keys.

    Raises:
        AuthInvalid: One does.
    """
    seen = set[str]()
    for key in keys:
        if key.kid and key.kid in seen:
            raise AuthInvalid(f"two keys have the id {key.kid!r}")
        seen.add(key.kid)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AuthInvalid(f"{path}: {error.strerror}") from None
