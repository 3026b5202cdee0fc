"""Which rooms a pattern means, functions that say who it is, and the options that choose between them."""

import asyncio
import contextlib
import os
import random
import re
import string
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from innkeeper.address import Address, InvalidAddress, check_address
from innkeeper.connection import User
from innkeeper.errors import Refused
from innkeeper.keys import room_keys
from innkeeper_edge.auth import Anybody, Grant, PatternInvalid, Patterns
from innkeeper_edge.auth import function as functions
from innkeeper_edge.auth.errors import AuthInvalid
from innkeeper_edge.auth.function import FunctionAuthenticator
from innkeeper_edge.auth.options import SECRET_VARIABLE, AuthOptions
from innkeeper_edge.auth.renewal import left_s
from innkeeper_edge.auth.tokens import JwtAuthenticator

REQUEST = make_mocked_request("GET", "/parties/chat/lobby?name=%20Ann%0a")
PLAIN = AuthOptions("none", (), "", (), (), "", "rooms")


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("chat/lobby", ["chat/lobby"], ["chat/lobby2", "chat/lobb", "chat/Lobby", "chats/lobby"]),
        ("chat/*", ["chat/lobby", "chat/a:b"], ["chats/lobby", "cha/t"]),
        ("chat/team-*", ["chat/team-1", "chat/team-"], ["chat/team", "chat/x-team-1"]),
        ("*", ["chat/lobby", "match/7"], []),
        ("chat/..*", ["chat/..a"], ["chat/a"]),
    ],
)
def test_what_a_pattern_means(pattern: str, inside: list[str], outside: list[str]) -> None:
    """A room, or all that begin so, within one kind."""
    rooms = Patterns([pattern])
    assert [text for text in inside if Address(*text.split("/")) not in rooms] == []
    assert [text for text in outside if Address(*text.split("/")) in rooms] == []


@pytest.mark.parametrize(
    "pattern", ["chat*", "ch*", "chat", "chat/", "/x", "chat/a b", "chat/{*", "chat/a*b", "", 7, None]
)
def test_what_is_no_pattern(pattern: object) -> None:
    """Nothing is guessed: what names no rooms is told."""
    with pytest.raises(PatternInvalid):
        Patterns([pattern])


def test_so_many_patterns_are_a_mistake() -> None:
    """A token is read for every socket."""
    with pytest.raises(PatternInvalid):
        Patterns(["chat/x"] * 1001)


def test_ten_thousand_names_stay_in_their_keys() -> None:
    """Whatever a name is made of: it is refused, or its keys are its own, with one hash tag in them."""
    seed = random.randrange(2**32)
    print("SEED", seed)
    draw = random.Random(seed)
    letters = string.printable + "{}*?[]\r\n\0\\/é\u202e\ud800" + "{}" * 5
    accepted = 0
    for _ in range(10_000):
        kind = draw.choice(["chat", "chat", "Chat", "c{", "chat}:x", ""])
        name = "".join(
            draw.choices(letters if draw.random() < 0.5 else string.ascii_letters + "_.:~-", k=draw.randint(0, 12))
        )
        try:
            address = check_address(kind, name)
        except InvalidAddress:
            continue
        accepted += 1
        for key in room_keys(address):
            assert key.startswith(f"inn:{{{kind}/{name}}}:")
            assert (key.count("{"), key.count("}"), key.isprintable(), " " in key) == (1, 1, True, False)
    assert 1_000 < accepted < 9_000


async def test_nobody_is_asked() -> None:
    """Without authentication the query's name is all there is, and no token means anything."""
    anybody = Anybody()
    await anybody.open()
    grant = await anybody.grant(REQUEST)
    assert (tuple(grant.user), Address("any", "x") in grant.rooms) == (("", "Ann"), True)
    assert await anybody.renew("x") is None
    await anybody.close()


def judge(answer: Any, monkeypatch: pytest.MonkeyPatch) -> FunctionAuthenticator:
    """Return what asks a function that answers so."""
    module = type(sys)("own_auth")
    module.who = answer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_auth", module)
    return FunctionAuthenticator("own_auth:who")


async def later(answer: Any) -> Any:
    """Return the answer in a while."""
    await asyncio.sleep(0)
    return answer


@pytest.mark.parametrize(
    ("answer", "user", "enters"),
    [
        ("u-1", ("u-1", "u-1"), True),
        (User("u-1", "Ann"), ("u-1", "Ann"), True),
        ({"id": "u-1", "name": "Ann", "rooms": ["match/*"]}, ("u-1", "Ann"), False),
        (later("u-1"), ("u-1", "u-1"), True),
    ],
)
async def test_a_function_says_who(
    answer: Any, user: tuple[str, str], enters: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sync or async, in several forms."""
    grant = await judge(lambda _: answer, monkeypatch).grant(REQUEST)
    assert isinstance(grant, Grant)
    assert (tuple(grant.user), Address("chat", "lobby") in grant.rooms) == (user, enters)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, 401),
        (False, 401),
        ("", 503),
        ("a\nb", 503),
        ({"name": "x"}, 503),
        ({"id": "x", "rooms": ["x*"]}, 503),
        ({"id": "x", "expires_s": 1_000_000_000}, 401),
        ({"id": "x", "expires_s": "soon"}, 503),
        (7, 503),
    ],
)
async def test_a_function_says_nobody_or_nonsense(answer: Any, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is refused; nonsense lets nobody in, and is the operator's to mend."""
    refused = await judge(lambda _: answer, monkeypatch).grant(REQUEST)
    assert not isinstance(refused, Grant)
    assert refused.status == status


async def test_a_function_that_fails_or_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is told to come again, and hears nothing of what happened."""

    def broken(_: Any) -> str:
        raise OSError("the secret is hunter2")

    async def leaving(_: Any) -> str:
        sys.exit("hunter2")

    async def hanging(_: Any) -> str:
        await asyncio.sleep(3600)
        return "late"

    async def stubborn(_: Any) -> str:
        while not done.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        return "late"

    def blocking(_: Any) -> str:
        done.wait(20)
        return "late"

    done = threading.Event()
    monkeypatch.setattr(functions, "_DECIDE_S", 0.05)
    for function in (hanging, stubborn, blocking):
        refused = await judge(function, monkeypatch).grant(REQUEST)
        assert not isinstance(refused, Grant)
        assert refused.status == 503
    done.set()
    monkeypatch.setattr(functions, "_DECIDE_S", 10)
    for failing in (broken, leaving):
        refused = await judge(failing, monkeypatch).grant(REQUEST)
        assert not isinstance(refused, Grant)
        assert (refused.status, "hunter2" in refused.message) == (503, False)
    assert caplog.text.count("took longer") == 3
    assert "hunter2" not in caplog.text
    assert re.search(r"failed: OSError in .*test_grants.py:\d+", caplog.text)


async def test_a_function_may_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of Refused is for the client; the loop is free while a function without await is asked."""
    loop_thread = threading.get_ident()

    def who(_: Any) -> str:
        raise Refused("log in first" if threading.get_ident() != loop_thread else "the loop was held")

    refused = await judge(who, monkeypatch).grant(REQUEST)
    assert not isinstance(refused, Grant)
    assert (refused.status, refused.message) == (401, "log in first")


async def test_what_a_function_grants_is_not_renewed_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """So clients are not told when it ends: a new socket is the way."""
    asked = judge(lambda _: {"id": "u-1", "rooms": "chat/* match/1", "expires_s": 2_000_000_000}, monkeypatch)
    grant = await asked.grant(REQUEST)
    assert isinstance(grant, Grant)
    assert (grant.expires_s, left_s(grant), Address("match", "1") in grant.rooms) == (2_000_000_000, None, True)
    assert await asked.renew("x") is None


def test_options_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, tokens or a function; the same options again for more processes, without the secret."""
    assert isinstance(PLAIN.authenticator(), Anybody)
    monkeypatch.setenv(SECRET_VARIABLE, f"{'a' * 32} {'b' * 40}")
    key = tmp_path / "new.key"
    key.write_bytes(b"c" * 32)
    chosen = PLAIN._replace(auth="jwt", audiences=("rooms",), keys=(f"k2={key}",), issuer="me")
    made = chosen.authenticator()
    assert isinstance(made, JwtAuthenticator)
    assert [known.kid for known in made._settings.keys] == ["", "", "k2"]
    assert made._settings.algorithms == ("HS256",)
    monkeypatch.delenv("INNKEEPER_JWT_JWKS", raising=False)
    listed = chosen._replace(jwks="https://me:hunter2@keys.example").arguments()
    assert (os.environ["INNKEEPER_JWT_JWKS"], "hunter2" in str(listed)) == ("https://me:hunter2@keys.example", False)
    assert chosen.arguments() == listed == [
        "--auth", "jwt", "--jwt-rooms-claim", "rooms", "--jwt-key", f"k2={key}", "--jwt-audience", "rooms",
        "--jwt-issuer", "me",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"auth": "jwt", "audiences": ("x",)}, "needs keys"),
        ({"auth": "jwt", "jwks": "https://keys.example"}, "--jwt-audience"),
        ({"auth": "jwt", "audiences": ("x",), "keys": ("none.pem",)}, "No such file"),
        ({"auth": "jwt", "audiences": ("",), "keys": ("SECRET",)}, "--jwt-audience"),
        ({"auth": "jwt", "audiences": ("x",), "keys": ("SECRET",), "algorithms": ("RS256",)}, "RS256: there is no key"),
        (
            {
                "auth": "jwt",
                "audiences": ("x",),
                "keys": ("SECRET",),
                "jwks": "https://k.example",
                "algorithms": ("ES256",),
            },
            "a key of HS256 is given",
        ),
        ({"auth": "yes"}, "it is none, jwt or pkg.mod:function"),
        ({"auth": "no_such_module:who"}, "cannot be imported"),
        ({"auth": "string:who"}, "there is no function 'who'"),
    ],
)
def test_options_that_make_no_sense(
    changes: dict[str, Any], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said at the start, in words."""
    monkeypatch.chdir(tmp_path)
    Path("SECRET").write_bytes(b"s" * 32)
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    with pytest.raises(AuthInvalid, match=text):
        PLAIN._replace(**changes).authenticator()
