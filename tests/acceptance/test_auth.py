"""Who may enter: tokens through a real edge, rooms that refuse, tokens that expire, and secrets that stay secret."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import orjson
import pytest
import pytest_asyncio
import websockets

from harness.house import House, until
from harness.v1 import SUBPROTOCOL, V1Socket
from innkeeper.client import Down, Opened, connect
from innkeeper.errors import RoomClosed
from innkeeper_edge.auth.tokens import LEEWAY_S

TARGET = str(Path(__file__).parents[1] / "harness" / "auth_rooms.py")
SECRET = secrets.token_hex(24)
RAW = websockets.Subprotocol("innkeeper.raw")


def token(user: str = "ann", *, rooms: Any = ("vault/*",), left_s: float = 300, **more: Any) -> str:
    """Return a token that counts for so long, the leeway included."""
    expires_s = time.time() + left_s - LEEWAY_S
    return jwt.encode(
        {"sub": f"id-{user}", "name": user, "aud": "rooms", "exp": expires_s, "rooms": list(rooms), **more}, SECRET
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One worker, two edges that take tokens, and one that asks a function."""
    folder = tmp_path_factory.mktemp("auth")
    (folder / "key").write_text(SECRET)
    async with House(folder, edges=0, workers=1, target=TARGET) as running:
        for _ in range(2):
            await running.add_edge(
                "--auth", "jwt", "--jwt-key", str(folder / "key"), "--jwt-audience", "rooms", "--log-level", "debug"
            )
        await running.add_edge("--auth", "harness.doors:who")
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")


def url(house: House, room: str, *, edge: int = 0, scheme: str = "ws", query: str = "") -> str:
    """Return a room's address at an edge."""
    return f"{scheme}://127.0.0.1:{house.edges[edge].facts['port']}/parties/{room}{query}"


async def _first(socket: websockets.ClientConnection) -> Any:
    async with asyncio.timeout(15):
        return orjson.loads(await socket.recv())


async def test_a_token_comes_in_three_ways(house: House) -> None:
    """The room knows who it is; the edge selects no subprotocol that holds a token."""
    good, room = token(), url(house, "vault/a")
    for arguments in (
        {"uri": room, "additional_headers": {"Authorization": f"Bearer {good}"}},
        {"uri": room, "subprotocols": [RAW, websockets.Subprotocol(f"bearer.{good}")]},
        {"uri": f"{room}?token={good}&name=eve"},
    ):
        async with websockets.connect(**arguments) as socket:
            assert socket.subprotocol == (RAW if "subprotocols" in arguments else None)
            assert await _first(socket) == {"you": ["id-ann", "ann"]}


@pytest.mark.parametrize(
    ("room", "given", "status", "error"),
    [
        ("vault/b", None, 401, "unauthorized"),
        ("vault/b", "nonsense", 401, "unauthorized"),
        ("vault/b", {"left_s": -1}, 401, "unauthorized"),
        ("lounge/b", {}, 403, "forbidden"),
        ("nowhere/b", {}, 403, "forbidden"),  # nobody learns which kinds there are
        ("nowhere/b", {"rooms": ["*"]}, 404, "unknown_kind"),
        ("vault/b{", {}, 400, "invalid_room"),
    ],
    ids=range(7),
)
async def test_the_door_stays_shut(house: House, room: str, given: Any, status: int, error: str) -> None:
    """Refused before the upgrade, for sockets and requests alike, and nothing of it reaches Redis."""
    given = token(**given) if isinstance(given, dict) else given
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    upgrade = {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Version": "13",
               "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
    async with aiohttp.ClientSession(headers=headers) as http:
        for more in ({}, upgrade):
            async with http.get(url(house, room, scheme="http"), headers=more) as answer:
                body = await answer.json()
                assert (answer.status, body["error"], set(body)) == (status, error, {"error", "message"})
    assert await house.redis.keys(f"inn:{{{room}}}*") == []


async def test_requests_bring_a_user_and_no_token(house: House) -> None:
    """The room hears who asks; what proved it stays at the edge."""
    good = token()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {good}"}) as http:
        async with http.get(url(house, "vault/c", scheme="http", query=f"?token={good}&x=1")) as answer:
            got = await answer.json()
        assert (got["you"], got["query"], "authorization" in got["headers"]) == (["id-ann", "ann"], {"x": "1"}, False)
        offered = {"Sec-WebSocket-Protocol": f"bearer.{good}"}
        async with http.get(url(house, "vault/c", scheme="http"), headers=offered) as answer:
            assert good not in await answer.text()
        page = {"Referer": f"https://app.example/?token={good}", "Cookie": "theme=dark"}
        async with http.get(url(house, "vault/c", scheme="http"), headers=page) as answer:
            text = await answer.text()
            assert (good in text, "theme=dark" in text) == (False, True)
        async with http.get(url(house, "vault/closed", scheme="http")) as answer:
            assert (answer.status, await answer.json()) == (403, {"error": "forbidden"})


@pytest.mark.parametrize(("room", "user"), [("vault/closed", "ann"), ("vault/d", "barred"), ("vault/broken", "ann")])
async def test_the_room_has_the_last_word(house: House, room: str, user: str) -> None:
    """What authorize does not allow, or cannot say, is closed with 4403, and says no more than that."""
    async with websockets.connect(url(house, room, query=f"?token={token(user)}")) as socket:
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4403, "refused")
    with pytest.raises(RoomClosed, match="4403"):
        async with connect(url(house, room), token=token(user)):
            pass


async def test_an_old_token_ends_the_socket(house: House) -> None:
    """Within a second or two of its time; a client that has but this one stays away."""
    began_s = time.time()
    async with websockets.connect(url(house, "vault/e", query=f"?token={token(left_s=2)}")) as socket:
        await _first(socket)
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 15)
        assert (socket.close_code, socket.close_reason) == (4401, "token expired")
    assert 1 < time.time() - began_s < 12


async def test_a_client_renews_its_token_and_stays(house: House) -> None:
    """A function is asked before the old one expires: one socket, for longer than any of its tokens."""
    asked = 0

    async def fresh() -> str:
        nonlocal asked
        asked += 1
        return token(left_s=3)

    async with connect(url(house, "vault/f"), token=fresh) as room:
        until_s = time.time() + 7
        while time.time() < until_s:
            await room.send("still here")
            await asyncio.sleep(0.2)
    seen = [event async for event in room.events()]
    assert asked >= 3
    assert sum(isinstance(event, Opened) for event in seen) == 1  # and Closed, by itself, at the end
    assert not any(isinstance(event, Down) for event in seen)


async def test_another_users_token_renews_nothing(house: House) -> None:
    """Nor does one that is not valid, or one without this room: the socket ends when its own is over."""
    socket = await _session(house, "vault/g", token(left_s=4))
    await socket.hello(secrets.token_hex(16), 1)
    assert (await socket.control("hello"))["expires"] in (2, 3)
    for bad in (token("eve"), "nonsense", token(rooms=["lounge/*"])):
        socket.controls.clear()
        await socket.say(token=bad)
        assert await socket.control("error") == "token_refused"
    await until(lambda: socket.close_code, "its end")
    assert socket.close_code == 4401


async def _session(house: House, room: str, bearer: str, *, edge: int = 0) -> V1Socket:
    offered = [SUBPROTOCOL, websockets.Subprotocol(f"bearer.{bearer}")]
    return V1Socket(await websockets.connect(url(house, room, edge=edge), subprotocols=offered, ping_interval=None))


async def test_a_stolen_secret_is_of_no_use_to_another_user(house: House) -> None:
    """A session is its secret and its user: with the secret alone nobody resumes it, and its owner notices nothing."""
    secret = secrets.token_hex(16)
    mine = await _session(house, "vault/h", token("ann"))
    await mine.hello(secret, 1)
    at = (await mine.control("hello"))["at"]
    thief = await _session(house, "vault/h", token("eve"), edge=1)
    await thief.hello(secret, 2, at)
    await until(lambda: thief.close_code, "the thief is sent away")
    assert (thief.close_code, thief.outputs) == (4410, [])
    await mine.send(1, "hello")
    await until(lambda: [value for _, value in mine.outputs if "said" in value], "an answer", seen=mine.frames)
    assert mine.outputs[-1][1] == {"from": "id-ann", "said": "hello"}
    again = await _session(house, "vault/h", token("ann"), edge=1)
    await again.hello(secret, 2, at)
    assert (await again.control("resumed"))["accepted"] == 1
    for socket in (mine, again):
        await socket.socket.close()


async def test_a_room_moves_nobody_where_its_token_does_not_lead(house: House) -> None:
    """Within what the token grants it does, beyond that the socket is closed with 4403."""
    async with websockets.connect(url(house, "vault/i", query=f"?token={token()}")) as socket:
        await _first(socket)
        await socket.send('"move"')
        assert await _first(socket) == {"you": ["id-ann", "ann"]}
        await socket.send('"out"')
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 15)
        assert socket.close_code == 4403


async def test_a_function_says_who(house: House) -> None:
    """What it says holds for as long as it says: then the socket ends, and the client resumes with the next answer."""
    asked = house.edges[2]
    named = f"http://127.0.0.1:{asked.facts['port']}/parties/vault/own"
    for name, room, status, text in (
        ("", "own", 401, "not known here"),
        ("banned", "own", 401, "you were banned"),
        ("crash", "own", 503, "could not be decided"),
        ("ann", "closed", 403, ""),
    ):
        headers = {"Authorization": f"Bearer {name}"} if name else {}
        async with aiohttp.request("GET", named.replace("/own", f"/{room}"), headers=headers) as answer:
            assert (answer.status, text in (await answer.json()).get("message", "")) == (status, True)
    async with connect(named, token=lambda: "ann") as member:
        opened: list[Any] = []
        codes: list[int] = []
        async with asyncio.timeout(20):
            async for event in member.events():
                opened += [event.resumed] if isinstance(event, Opened) else []
                codes += [event.code] if isinstance(event, Down) else []
                if len(opened) == 2:
                    break
    assert (opened, codes) == ([False, True], [4401])
    assert "--auth harness.doors:who failed: RuntimeError in " in asked.log
    assert "hunter2" not in asked.log


@pytest.mark.parametrize("body", [b"", b"x" * 50_000])
async def test_a_function_that_reads_the_body_leaves_it_to_the_room(house: House, body: bytes) -> None:
    """A signature over it, say, is looked at by both."""
    at = f"http://127.0.0.1:{house.edges[2].facts['port']}/parties/vault/body"
    headers = {"Authorization": "Bearer reader"}
    async with aiohttp.ClientSession(headers=headers) as http, http.post(at, data=body) as answer:
        assert (answer.status, (await answer.json())["size"]) == (200, len(body))
    async with aiohttp.ClientSession(headers=headers) as http, http.post(at, data=b"x" * 70_000) as answer:
        assert answer.status == 413


async def _answer_to(house: House, sent: str) -> bytes:
    """Return how the answer to raw bytes begins."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.edges[0].facts["port"])
    writer.write(sent.encode())
    async with asyncio.timeout(15):
        answer = await reader.read(12)
    writer.close()
    return answer


async def test_no_token_is_in_any_log(house: House) -> None:
    """After all that, at level debug, with good tokens and bad in every place: no token, no key, no forged line."""
    forged = token("x\n2026-01-01 00:00:00,000 ERROR innkeeper: forged")
    for room, bearer in (
        ("vault/z", token()),
        ("vault/z", token(left_s=-9)),
        ("lounge/z", token()),
        ("vault/z", forged),
    ):
        for arguments in (
            {"additional_headers": {"Authorization": f"Bearer {bearer}"}},
            {"subprotocols": [RAW, websockets.Subprotocol(f"bearer.{bearer}")]},
            {},
        ):
            query = "" if arguments else f"?token={bearer}"
            try:
                async with websockets.connect(url(house, room, query=query), **arguments) as socket:
                    await _first(socket)
            except (websockets.InvalidStatus, websockets.ConnectionClosed):
                pass
    only = websockets.Subprotocol(f"bearer.{token()}")
    async with websockets.connect(url(house, "vault/z"), subprotocols=[only]) as socket:
        assert await _first(socket) == {"you": ["id-ann", "ann"]}
    for malformed in (
        f"GET /parties/vault/z?token={token()} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\0\r\n\r\n",
        f"GET /parties/vault/z HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token() * 60}\r\n\r\n",
        f"GET /parties/vault/z?token={token()} HTTP/7\r\nHost: x\r\n\r\n",
        f"GET /parties/vault/z\r\nAuthorization {token()}\r\n\r\n",
        f"{token()}\r\n\r\n",
    ):
        assert (await _answer_to(house, malformed)).endswith(b" 400")
    logs = "".join(role.log for role in (*house.edges, *house.workers))
    assert "a malformed request was refused" in logs
    assert "a token was refused: it has expired" in logs
    assert SECRET not in logs
    assert "eyJ" not in logs  # what every JSON in a token begins with
    assert "\n2026-01-01 00:00:00,000 ERROR innkeeper: forged" not in logs
