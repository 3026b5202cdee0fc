"""Tokens: sixty ways to bring a wrong one, and the few right ones."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from innkeeper.address import Address
from innkeeper.memory import Thrift
from innkeeper.meters import EdgeMeters
from innkeeper_edge.app import Site
from innkeeper_edge.auth import Grant
from innkeeper_edge.auth.errors import AuthInvalid
from innkeeper_edge.auth.jwt_keys import Key, check_distinct, file_key, jwks_file, jwks_keys, secret_key
from innkeeper_edge.auth.tokens import JwtAuthenticator, JwtSettings
from innkeeper_edge.limits import Limits

SECRET, OTHER = b"k" * 32, b"o" * 32
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
AUDIENCE = "rooms.example"
LOBBY = Address("chat", "lobby")


def pem(private: Any) -> bytes:
    """Return the public half in PEM."""
    data: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


KEYS = (
    Key("", SECRET, "HS256"),
    Key("rsa1", RSA.public_key(), "RS256"),
    Key("ec1", EC.public_key(), "ES256"),
    Key("ed1", ED.public_key(), "EdDSA"),
)


def settings(**changes: Any) -> JwtSettings:
    """Return what tokens are judged by."""
    base = JwtSettings(KEYS, "", ("HS256", "RS256", "ES256", "EdDSA"), (AUDIENCE,), "issuer.example")
    return base._replace(**changes)


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims, changed; None takes one out."""
    now = int(time.time())
    whole = {
        "sub": "u-1", "name": "Ann", "aud": AUDIENCE, "iss": "issuer.example", "exp": now + 300, "iat": now,
        "rooms": ["chat/*"], **changes,
    }  # fmt: skip
    return {name: value for name, value in whole.items() if value is not None}


def signed(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """Return a signed token."""
    return jwt.encode(claims(**changes), key, algorithm, headers)


def part(value: Any) -> str:
    """Return one part of a token, made by hand."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: Any, body: Any, secret: bytes | None = SECRET) -> str:
    """Return a token that no library would make."""
    head = f"{part(header)}.{part(body)}"
    mac = b"" if secret is None else hmac.digest(secret, head.encode(), hashlib.sha256)
    return f"{head}.{part(mac)}"


def request(**headers: str) -> web.BaseRequest:
    """Return a request as far as it is looked at."""
    from aiohttp.test_utils import make_mocked_request  # noqa: PLC0415 - pulls in a server

    query = headers.pop("query", "")
    return make_mocked_request(
        "GET", f"/parties/chat/lobby{query}", {k.replace("_", "-"): v for k, v in headers.items()}
    )


NOW = int(time.time())
ATTACKS: dict[str, Callable[[], str]] = {
    "empty signature": lambda: signed().rpartition(".")[0] + ".",
    "no signature at all": lambda: signed().rpartition(".")[0],
    "alg none": lambda: by_hand({"alg": "none", "typ": "JWT"}, claims(), None),
    "alg None": lambda: by_hand({"alg": "None"}, claims(), None),
    "alg missing": lambda: by_hand({"typ": "JWT"}, claims()),
    "alg a list": lambda: by_hand({"alg": ["HS256"]}, claims()),
    "another secret": lambda: signed(OTHER),
    "hs with the rsa public key": lambda: by_hand({"alg": "HS256", "kid": "rsa1"}, claims(), pem(RSA)),
    "hs with the ec public key": lambda: by_hand({"alg": "HS256", "kid": "ec1"}, claims(), pem(EC)),
    "rs256 by another key": lambda: signed(
        rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256", {"kid": "rsa1"}
    ),
    "es256 by another key": lambda: signed(ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "ec1"}),
    "eddsa by another key": lambda: signed(ed25519.Ed25519PrivateKey.generate(), "EdDSA", {"kid": "ed1"}),
    "hs512": lambda: signed(b"k" * 64, "HS512"),
    "ps256": lambda: signed(RSA, "PS256", {"kid": "rsa1"}),
    "rs512": lambda: signed(RSA, "RS512", {"kid": "rsa1"}),
    "kid of another key": lambda: signed(RSA, "RS256", {"kid": "ec1"}),
    "kid a path": lambda: by_hand({"alg": "HS256", "kid": "../../dev/null"}, claims(), b""),
    "kid sql": lambda: by_hand({"alg": "HS256", "kid": "' or 1=1"}, claims(), b""),
    "kid a number": lambda: by_hand({"alg": "HS256", "kid": 1}, claims()),
    "own key in the header": lambda: by_hand(
        {"alg": "HS256", "jwk": {"kty": "oct", "k": part(OTHER)}}, claims(), OTHER
    ),
    "jku": lambda: by_hand({"alg": "HS256", "jku": "http://127.0.0.1:1/keys", "kid": "x"}, claims(), OTHER),
    "expired": lambda: signed(exp=NOW - 60),
    "no exp": lambda: signed(exp=None),
    "exp text": lambda: by_hand({"alg": "HS256"}, claims(exp="never")),
    "exp digits in text": lambda: by_hand({"alg": "HS256"}, claims(exp=str(NOW + 300))),
    "exp after all time": lambda: by_hand({"alg": "HS256"}, claims(exp=10**30)),
    "exp true": lambda: by_hand({"alg": "HS256"}, claims(exp=True)),
    "exp no number": lambda: by_hand({"alg": "HS256"}, claims(exp=float("nan"))),
    "iat in text": lambda: by_hand({"alg": "HS256"}, claims(iat=str(NOW))),
    "crit that is met": lambda: by_hand({"alg": "HS256", "crit": ["exp"], "exp": NOW + 300}, claims()),
    "larger than 4 KiB": lambda: signed(pad="x" * 4096),
    "half a surrogate in sub": lambda: by_hand({"alg": "HS256"}, claims(sub="u\ud800")),
    "sub with an escape": lambda: signed(sub="u\x1b[2J"),
    "sub turned around": lambda: signed(sub="u\u202e1"),
    "alg in small letters": lambda: by_hand({"alg": "hs256"}, claims()),
    "blank before the dot": lambda: signed().replace(".", " .", 1),
    "exp huge": lambda: by_hand({"alg": "HS256"}, claims(exp=float("inf"))),
    "not yet": lambda: signed(nbf=NOW + 3600),
    "from the future": lambda: signed(iat=NOW + 3600),
    "no aud": lambda: signed(aud=None),
    "other aud": lambda: signed(aud="billing.example"),
    "aud a prefix": lambda: signed(aud="rooms.example.evil"),
    "other iss": lambda: signed(iss="issuer.example.evil"),
    "no iss": lambda: signed(iss=None),
    "no sub": lambda: signed(sub=None),
    "empty sub": lambda: signed(sub=""),
    "sub a number": lambda: by_hand({"alg": "HS256"}, claims(sub=7)),
    "sub with a line break": lambda: signed(sub="u-1\nforged"),
    "sub too long": lambda: signed(sub="u" * 257),
    "rooms a number": lambda: signed(rooms=7),
    "rooms of no kind": lambda: signed(rooms=["chat*"]),
    "rooms with braces": lambda: signed(rooms=["chat/{x}*"]),
    "claims a list": lambda: by_hand({"alg": "HS256"}, [1]),
    "claims no json": lambda: by_hand({"alg": "HS256"}, b"\xff\xfe"),
    "deep json": lambda: by_hand({"alg": "HS256"}, b"[" * 2000),
    "crit": lambda: by_hand({"alg": "HS256", "crit": ["b64"], "b64": False}, claims()),
    "changed claims": lambda: ".".join((signed().split(".")[0], part(claims(sub="root")), signed().split(".")[2])),
    "four parts": lambda: f"{signed()}.x",
    "no token": lambda: "hello",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_token_that_proves_nothing_is_refused(attack: str) -> None:
    """Each of them gets 401, and the answer does not say what was wrong."""
    judge = JwtAuthenticator(settings())
    token = ATTACKS[attack]()
    assert await judge.renew(token) is None
    refused = await judge.grant(request(Authorization=f"Bearer {token}"))
    assert not isinstance(refused, Grant)
    assert (refused.status, "token" in refused.message) == (401, True)
    assert dict(refused.headers)["WWW-Authenticate"] == "Bearer"


UPGRADE = {
    "Host": "rooms.example", "Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_ends_before_the_upgrade(attack: str) -> None:
    """Sockets and requests get 401 from an edge that has no Redis, no rooms and no kinds to ask."""
    edge: Any = SimpleNamespace(
        authenticator=JwtAuthenticator(settings()),
        limits=Limits(),
        thrift=Thrift(),
        feeds={},
        meters=EdgeMeters(),
        loop=asyncio.get_running_loop(),
    )
    for more in (UPGRADE, {}):
        asked = request(Authorization=f"Bearer {ATTACKS[attack]()}", **more)
        answer = await Site(edge).room(asked)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


GOOD: dict[str, Callable[[], str]] = {
    "a secret": signed,
    "rsa": lambda: signed(RSA, "RS256", {"kid": "rsa1"}),
    "ec": lambda: signed(EC, "ES256", {"kid": "ec1"}),
    "ed25519": lambda: signed(ED, "EdDSA", {"kid": "ed1"}),
    "keys in its header": lambda: signed(
        headers={"jwk": {"kty": "oct", "k": part(OTHER)}, "jku": "http://127.0.0.1:1/"}
    ),
    "two audiences": lambda: signed(aud=["other", AUDIENCE]),
    "within the leeway": lambda: signed(exp=int(time.time()) - 5, iat=int(time.time()) + 10),
}


@pytest.mark.parametrize("token", GOOD)
async def test_a_good_token_says_who_and_where(token: str) -> None:
    """Of every algorithm; what a header brings along is not looked at."""
    grant = await JwtAuthenticator(settings()).renew(GOOD[token]())
    assert grant is not None
    assert tuple(grant.user) == ("u-1", "Ann")
    assert LOBBY in grant.rooms
    assert Address("match", "1") not in grant.rooms


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_only_configured_algorithms_count(algorithm: str) -> None:
    """A good signature of a known key is refused where its algorithm is not asked for."""
    judge = JwtAuthenticator(settings(algorithms=("HS256",)))
    kid, key = {"RS256": ("rsa1", RSA), "ES256": ("ec1", EC), "EdDSA": ("ed1", ED)}[algorithm]
    assert await judge.renew(signed(key, algorithm, {"kid": kid})) is None
    assert await judge.renew(signed()) is not None


async def test_without_a_claim_of_rooms_there_is_none() -> None:
    """Who may go where has to be said; in a text it may be said, too."""
    judge = JwtAuthenticator(settings())
    nowhere, text = await judge.renew(signed(rooms=None)), await judge.renew(signed(rooms="chat/lobby match/*"))
    assert nowhere is not None and LOBBY not in nowhere.rooms  # noqa: PT018 - one fact
    assert text is not None and LOBBY in text.rooms  # noqa: PT018 - one fact
    renamed = await JwtAuthenticator(settings(rooms_claim="spaces")).renew(signed(spaces=["*"]))
    assert renamed is not None and Address("any", "x") in renamed.rooms  # noqa: PT018 - one fact


async def test_two_secrets_count_while_they_are_rotated() -> None:
    """Tokens without a key id are tried with each key that has none."""
    judge = JwtAuthenticator(settings(keys=(Key("", SECRET, "HS256"), Key("", OTHER, "HS256"))))
    assert await judge.renew(signed(SECRET)) is not None
    assert await judge.renew(signed(OTHER)) is not None
    assert await judge.renew(signed(b"x" * 32)) is None


@pytest.mark.parametrize(
    "carried",
    [
        {"Authorization": "Bearer {}"},
        {"Authorization": "bearer  {}"},
        {"Sec_WebSocket_Protocol": "innkeeper.v1, bearer.{}"},
        {"query": "?token={}&name=x"},
        {"query": "?token={}", "Authorization": "Bearer {}"},  # the same twice
    ],
)
async def test_a_token_may_come_in_three_ways(carried: dict[str, str]) -> None:
    """A header, a subprotocol for browsers, the query for what can do neither."""
    token = signed()
    grant = await JwtAuthenticator(settings()).grant(request(**{k: v.format(token) for k, v in carried.items()}))
    assert isinstance(grant, Grant)


@pytest.mark.parametrize(
    ("carried", "text"),
    [
        ({}, "send a token"),
        ({"Authorization": "Basic {}"}, "only Authorization: Bearer"),
        ({"Authorization": "Bearer {}", "query": "?token=other"}, "several"),
        ({"query": "?token={}&token=x"}, "several"),
        ({"Sec_WebSocket_Protocol": "bearer.{}, bearer.x"}, "several"),
        ({"query": "?token=" + "a" * 4097}, "at most"),
        ({"query": "?token="}, "at most"),
        ({"query": "?token=a%20b"}, "at most"),
    ],
)
async def test_a_request_brings_one_token(carried: dict[str, str], text: str) -> None:
    """Two different ones, none, or one that cannot be: refused in words."""
    token = signed()
    refused = await JwtAuthenticator(settings()).grant(request(**{k: v.format(token) for k, v in carried.items()}))
    assert not isinstance(refused, Grant)
    assert refused.status == 401
    assert text in refused.message


# --- keys --------------------------------------------------------------------------------------------------------
def jwk(private: Any, kid: str, **more: Any) -> dict[str, Any]:
    """Return the public half as a JWK."""
    algorithm: Any = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
    }.get(cast("Any", rsa.RSAPrivateKey if isinstance(private, rsa.RSAPrivateKey) else ec.EllipticCurvePrivateKey))
    if isinstance(private, ed25519.Ed25519PrivateKey):
        algorithm = jwt.algorithms.OKPAlgorithm
    return {**json.loads(algorithm.to_jwk(private.public_key())), "kid": kid, **more}


def test_keys_of_a_jwks() -> None:
    """Those that sign count; secrets only where nobody else reads the document."""
    secret = {"kty": "oct", "k": part(SECRET), "kid": "s1"}
    document = {"keys": [
        jwk(RSA, "r1", use="sig", alg="RS256"), jwk(EC, "e1"), jwk(ED, "d1"), secret,
        jwk(RSA, "enc", use="enc"), jwk(RSA, "ps", alg="PS256"), {"kty": "new"}, 7,
        {"kty": "oct", "k": part(b"short"), "kid": "weak"},
    ]}  # fmt: skip
    data = json.dumps(document).encode()
    assert [key.kid for key in jwks_keys(data, secrets=True)] == ["r1", "e1", "d1", "s1"]
    assert [key.kid for key in jwks_keys(data, secrets=False)] == ["r1", "e1", "d1"]
    for bad in (b"", b"[]", b"{}", b'{"keys":7}'):
        with pytest.raises(AuthInvalid, match="JWKS"):
            jwks_keys(bad, secrets=True)


def test_keys_of_files(tmp_path: Path) -> None:
    """A public key or a secret; anything else is told."""
    good = tmp_path / "k"
    der = serialization.Encoding.DER
    public = RSA.public_key().public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo)
    for data, algorithm in (
        (pem(RSA), "RS256"), (pem(EC), "ES256"), (pem(ED), "EdDSA"), (SECRET + b"\n", "HS256"),
        (b"of the issuer, 2026\n" + pem(RSA), "RS256"), (public, "RS256"),
    ):  # fmt: skip
        good.write_bytes(data)
        assert file_key(good, kid="a").algorithm == algorithm
    private, hidden = (
        RSA.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        for encoding in (serialization.Encoding.PEM, der)
    )
    small = pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))  # noqa: S505 - to be refused
    other = pem(ec.generate_private_key(ec.SECP384R1()))
    for data, text in (
        (private, "public key"), (hidden, "public key"), (small, "too weak"), (other, "none of"), (b"abc", "32 random"),
        (b"-----BEGIN PUBLIC KEY-----\nx", "no public key"), (json.dumps(jwk(RSA, "a")).encode(), "--jwt-jwks"),
        (b"ssh-ed25519 " + SECRET, "SSH"),
    ):  # fmt: skip
        good.write_bytes(data)
        with pytest.raises(AuthInvalid, match=text):
            file_key(good)
    with pytest.raises(AuthInvalid, match="No such file"):
        jwks_file(tmp_path / "none")
    good.write_bytes(b'{"keys":[]}')
    with pytest.raises(AuthInvalid, match="no signing key"):
        jwks_file(good)
    with pytest.raises(AuthInvalid, match="two keys"):
        check_distinct([secret_key(SECRET, kid="a"), secret_key(OTHER, kid="a")])


async def test_keys_are_fetched_and_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown key id asks once more, not more often than every ten seconds; a failure keeps what is known."""
    served, fetched = [jwk(RSA, "r1")], 0

    async def fetch(url: str) -> bytes:
        nonlocal fetched
        fetched += 1
        await asyncio.sleep(0)
        if not served:
            raise ValueError(f"{url} is away")
        return json.dumps({"keys": served}).encode()

    monkeypatch.setattr("innkeeper_edge.auth.tokens._fetch", fetch)
    judge = JwtAuthenticator(settings(keys=(), jwks="https://keys.example"))
    await judge.open()
    new = signed(EC, "ES256", {"kid": "e2"})
    assert await judge.renew(signed(RSA, "RS256", {"kid": "r1"})) is not None
    served.append(jwk(EC, "e2"))
    assert (await judge.renew(new), fetched) == (None, 1)  # asked just now
    judge._tried_at_s -= 11
    assert await judge.renew(new) is not None
    served.clear()
    judge._tried_at_s -= 11
    assert await judge.renew(signed(ED, "EdDSA", {"kid": "d3"})) is None
    assert (await judge.renew(new) is not None, fetched) == (True, 3)


async def test_known_keys_wait_for_no_jwks(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is fetched again, for however long, tokens of known keys count, with an id or without one."""
    served, fetched = [jwk(RSA, "r1")], asyncio.Event()

    async def fetch(url: str) -> bytes:  # noqa: ARG001 - as the real one
        await fetched.wait()
        return json.dumps({"keys": served}).encode()

    monkeypatch.setattr("innkeeper_edge.auth.tokens._fetch", fetch)
    judge = JwtAuthenticator(settings(keys=(), jwks="https://keys.example"))
    fetched.set()
    await judge.open()
    fetched.clear()
    served.append(jwk(EC, "e2"))
    judge._tried_at_s = judge._fetched_at_s = -1e6
    async with asyncio.timeout(1):
        for kid in ({"kid": "r1"}, {}, {"kid": "r1"}):
            assert await judge.renew(signed(RSA, "RS256", kid)) is not None
    fetched.set()
    assert await judge.renew(signed(EC, "ES256", {"kid": "e2"})) is not None
    await judge.close()


async def test_an_edge_ends_while_keys_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fetch ends with it."""
    monkeypatch.setattr("innkeeper_edge.auth.tokens._fetch", lambda _: asyncio.Event().wait())
    judge = JwtAuthenticator(settings(jwks="https://keys.example"))
    assert await judge.renew(signed()) is not None
    async with asyncio.timeout(1):
        await judge.close()


async def test_a_token_without_an_id_is_tried_with_every_key() -> None:
    """So a new key may be named while tokens name none."""
    judge = JwtAuthenticator(settings(keys=(Key("", SECRET, "HS256"), Key("new", OTHER, "HS256"))))
    assert await judge.renew(jwt.encode(claims(), OTHER, "HS256")) is not None
    assert await judge.renew(jwt.encode(claims(), b"x" * 32, "HS256")) is None


async def test_a_jwks_file_is_read_again(tmp_path: Path) -> None:
    """A key that is put into it counts without a restart; while the file makes no sense the old ones count."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [jwk(RSA, "r1")]}))
    judge = JwtAuthenticator(settings(keys=(), jwks=str(path)))
    await judge.open()
    old, new = signed(RSA, "RS256", {"kid": "r1"}), signed(EC, "ES256", {"kid": "e2"})
    path.write_text(json.dumps({"keys": [jwk(RSA, "r1"), jwk(EC, "e2")]}))
    judge._tried_at_s -= 11
    assert await judge.renew(new) is not None
    path.write_text("{")
    judge._tried_at_s -= 11
    assert await judge.renew(signed(ED, "EdDSA", {"kid": "d3"})) is None
    assert await judge.renew(old) is not None


async def test_without_any_key_the_client_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    """An edge that could not fetch its keys yet blames no token: 503; and says that it fetches without TLS."""
    judge = JwtAuthenticator(settings(keys=(), jwks="http://me:hunter2@127.0.0.1:1/keys?key=hunter2"))
    await judge.open()
    refused = await judge.grant(request(Authorization=f"Bearer {signed()}"))
    assert not isinstance(refused, Grant)
    assert (refused.status, dict(refused.headers)) == (503, {"Retry-After": "1"})
    assert "could not be had" in caplog.text
    assert "without TLS" in caplog.text
    assert "http://me:***@127.0.0.1:1/keys?***" in caplog.text
    assert "hunter2" not in caplog.text
