"""Sessions over whole houses: sockets and edges die, the session goes on; nothing is lost, doubled or reordered."""

import asyncio
import random
import secrets
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.house import House, until
from harness.v1 import V1Client, V1Socket


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Two edges and two workers."""
    async with House(tmp_path, edges=2, workers=2) as running:
        yield running


async def opened(house: House, room: str, *, edge: int = 0, name: str = "ann") -> V1Socket:
    """Return a socket that has said nothing yet."""
    return await V1Socket.open(house.url(room, edge=edge, name=name))


async def session(
    house: House, room: str, *, edge: int = 0, name: str = "ann", secret: str = ""
) -> tuple[V1Socket, str, dict[str, Any]]:
    """Start a session; return its socket, its secret, and the answer to its hello."""
    secret = secret or secrets.token_hex(16)
    socket = await opened(house, room, edge=edge, name=name)
    await socket.hello(secret, 1)
    return socket, secret, await socket.control("hello")


def last_of(socket: V1Socket) -> str:
    """Return the id of the last output that a socket saw, while there was one owner."""
    answer = next(c[w] for c in socket.controls for w in ("hello", "resumed", "resync") if w in c)
    era = next((c["era"] for c in reversed(socket.controls) if "era" in c), answer["at"].partition("-")[2])
    return f"{socket.outputs[-1][0]}-{era}" if socket.outputs else str(answer["at"])


async def state_of(house: House, room: str, field: str) -> Any:
    """Return a field of a room's state."""
    stored = await house.redis.hget(f"inn:{{{room}}}:state", field)
    return orjson.loads(stored) if stored else None


async def test_numbered_both_ways(house: House) -> None:
    """A session says hello, then gets numbered outputs, and hears of each message that it is accepted and applied."""
    socket, _, hello = await session(house, "ledger/a")
    assert hello["accepted"] == 0
    assert await socket.output({"welcome": 0}) == int(hello["at"].partition("-")[0]) + 1
    for i in range(3):
        await socket.send(i + 1, {"i": i})
    await until(lambda: any(c.get("applied") == 3 for c in socket.controls), "3 applied", seen=socket.controls)
    assert max(c.get("ack", 0) for c in socket.controls) == 3
    assert [(p["n"], p["i"]) for _, p in socket.outputs if "n" in p] == [(1, 0), (2, 1), (3, 2)]
    assert [n for n, _ in socket.outputs] == list(range(socket.outputs[0][0], socket.outputs[0][0] + 5))
    row = orjson.loads((await house.redis.hgetall("inn:{ledger/a}:members"))[hello["conn"].encode()])
    assert (row["gen"], row["user"]) == (1, ["", "ann"])
    await socket.close()
    await until(lambda: state_of(house, "ledger/a", "left"), "the leave")


async def test_a_raw_room_carries_text_and_bytes(house: House) -> None:
    """Text and binary frames carry their numbers both ways; raw sockets in the room see plain payloads."""
    raw = await house.join("rawecho/a")
    socket, _, _ = await session(house, "rawecho/a")
    await until(lambda: _count(house, "rawecho/a", 2), "both are in")
    await socket.socket.send("1 !not a control: {")
    await socket.send(2, b"\x00\xff")
    await socket.output("!not a control: {")
    await socket.output(b"\x00\xff")
    await raw.expect(lambda frame: frame == b"\x00\xff", "bytes")
    assert raw.got == ["!not a control: {", b"\x00\xff"]


async def test_a_resume_replays_what_was_missed(house: House) -> None:
    """A client whose socket was cut comes back at another edge and gets what it missed once, in order; nobody left."""
    raw = await house.join("ledger/b", name="bob")
    await raw.expect(lambda f: "welcome" in f, "its welcome")
    socket, secret, hello = await session(house, "ledger/b")
    await socket.send(1, {"i": 1})
    await raw.numbers(1)
    last = last_of(socket)
    await socket.abort()
    await until(lambda: _row_is(house, "ledger/b", hello["conn"], up=False), "the drop")
    for i in range(5):
        await raw.send({"i": i})
    await raw.numbers(6)
    again = await opened(house, "ledger/b", edge=1)
    await again.hello(secret, 2, last)
    resumed = await again.control("resumed")
    assert (resumed["at"], resumed["accepted"], resumed["conn"]) == (last, 1, hello["conn"])
    await again.send(2, {"i": 2})
    await raw.numbers(7)
    await until(lambda: any(p.get("n") == 7 for _, p in again.outputs), "its own", seen=again.frames)
    assert [p["n"] for _, p in again.outputs] == [2, 3, 4, 5, 6, 7]
    assert not any("gone" in frame for frame in raw.got)
    assert await house.redis.hlen("inn:{ledger/b}:timers") == 0
    await until(lambda: any(c.get("applied") == 2 for c in again.controls), "applied", seen=again.controls)


async def _count(house: House, room: str, count: int) -> bool:
    return bool(await house.redis.hlen(f"inn:{{{room}}}:members") == count)


async def _row_is(house: House, room: str, connection: str, *, up: bool) -> bool:
    row = await house.redis.hget(f"inn:{{{room}}}:members", connection)
    return row is not None and orjson.loads(row).get("up", True) is up


async def talk(clients: list[V1Client], rounds: int, *, pause_s: float) -> AsyncIterator[int]:
    """Let each client send the number of each round; yields it, while the messages are under way."""
    for round_ in range(rounds):
        for client in clients:
            client.send({"i": round_})
        await asyncio.sleep(pause_s)
        yield round_


async def test_an_edge_is_killed(house: House) -> None:
    """With kill -9 of an edge sessions go on at the other one, every message applied once, every output seen once."""
    clients = [V1Client(house, "ledger/c", f"m{n}", edge=n % 2) for n in range(4)]
    async for round_ in talk(clients, 60, pause_s=0.02):
        if round_ == 20:
            house.edges[0].signal(signal.SIGKILL)
    for client in clients:
        await client.all_applied()
    await _judge(house, "ledger/c", clients, 240)
    assert sum(client.resumes for client in clients) >= 1
    assert await state_of(house, "ledger/c", "left") is None
    await asyncio.gather(*(client.end() for client in clients))


async def test_an_edge_is_drained(house: House) -> None:
    """An edge that is told to stop closes its sockets with 1012; their sessions go on at the other one."""
    clients = [V1Client(house, "ledger/k", f"m{n}", edge=n % 2) for n in range(2)]
    async for round_ in talk(clients, 40, pause_s=0.02):
        if round_ == 15:
            house.edges[0].signal(signal.SIGTERM)
    for client in clients:
        await client.all_applied()
    await _judge(house, "ledger/k", clients, 80)
    assert sum(client.resumes for client in clients) == 1
    assert await state_of(house, "ledger/k", "left") is None
    await asyncio.gather(*(client.end() for client in clients))


@pytest.mark.long
async def test_everything_at_once(house: House) -> None:
    """Sockets cut at random, edges and workers killed and replaced: nothing is lost, doubled or reordered."""
    draw = random.Random(4)
    clients = [V1Client(house, "ledger/l", f"m{n}", edge=n % 2) for n in range(6)]
    async for round_ in talk(clients, 200, pause_s=0.03):
        victim = draw.choice(clients)
        if draw.random() < 0.2 and victim.socket is not None:
            victim.socket.socket.transport.abort()
        if round_ in (40, 120):
            house.edges[-1 if round_ > 100 else 0].signal(signal.SIGKILL)
            await house.add_edge()
        if round_ in (70, 130):
            (await house.owner_of("ledger/l")).signal(signal.SIGKILL)
            await house.add_worker()
    for client in clients:
        await client.all_applied()
    await _judge(house, "ledger/l", clients, 1200)
    assert sum(client.resumes for client in clients) >= 20
    assert await state_of(house, "ledger/l", "left") is None
    assert await house.redis.hlen("inn:{ledger/l}:members") == 6
    await asyncio.gather(*(client.end() for client in clients))
    await until(lambda: _count(house, "ledger/l", 0), "all have left")


async def test_a_worker_is_killed(house: House) -> None:
    """With kill -9 of the owner no socket notices, and nothing is lost or doubled."""
    clients = [V1Client(house, "ledger/d", f"m{n}") for n in range(3)]
    async for round_ in talk(clients, 60, pause_s=0.02):
        if round_ == 20:
            (await house.owner_of("ledger/d")).signal(signal.SIGKILL)
    for client in clients:
        await client.all_applied()
    await _judge(house, "ledger/d", clients, 180)
    assert [client.generation for client in clients] == [1, 1, 1]
    assert any("era" in control for control in clients[0].socket.controls)  # type: ignore[union-attr]
    await asyncio.gather(*(client.end() for client in clients))


def _has(client: V1Client, count: int) -> bool:
    return any(p.get("n") == count for _, p in client.outputs)


async def _judge(house: House, room: str, clients: list[V1Client], count: int) -> None:
    assert await state_of(house, room, "n") == count
    for client in clients:
        numbers = [p["n"] for _, p in client.outputs if "n" in p]
        await until(partial(_has, client, count), "the end", seen=numbers)
        seen = [(p["n"], p["from"], p["i"]) for _, p in client.outputs if "n" in p]
        assert [n for n, _, _ in seen] == list(range(seen[0][0], count + 1)), f"{client.name}: a hole or a repeat"
        for other in clients:
            said = [i for _, name, i in seen if name == other.name]
            assert said == list(range(said[0], len(said) + said[0])), "out of order"


async def test_a_duplicate_tab_takes_over(house: House) -> None:
    """A newer connection of the session closes the older one with 4409, at the same edge or another; no on_leave."""
    first, secret, hello = await session(house, "ledger/e")
    second = await opened(house, "ledger/e", edge=1)
    await second.hello(secret, 2, last_of(first))
    assert (await second.control("resumed"))["conn"] == hello["conn"]
    assert await first.closed() == 4409
    third = await opened(house, "ledger/e", edge=1)
    await third.hello(secret, 3, last_of(second))
    await third.control("resumed")
    assert await second.closed() == 4409
    stale = await opened(house, "ledger/e", edge=0)
    await stale.hello(secret, 2, last_of(second))
    assert await stale.closed() == 4409
    await third.send(1, {"i": 1})
    await until(lambda: any(p.get("n") == 1 for _, p in third.outputs), "its message", seen=third.frames)
    assert await state_of(house, "ledger/e", "left") is None
    assert await house.redis.hlen("inn:{ledger/e}:members") == 1


async def test_a_wrong_secret_finds_nothing(house: House) -> None:
    """A resume of a session that is not there, and one of a session that has left, are told that it is over."""
    socket, secret, _ = await session(house, "ledger/f")
    last = last_of(socket)
    other = await opened(house, "ledger/f")
    await other.hello(secrets.token_hex(16), 2, last)
    assert (await other.closed(), other.close_reason) == (4410, "session over")
    await socket.close()
    await until(lambda: state_of(house, "ledger/f", "left"), "the leave")
    late = await opened(house, "ledger/f")
    await late.hello(secret, 2, last)
    assert await late.closed() == 4410


async def test_a_resume_from_the_future_resyncs(house: House) -> None:
    """A last id that the outlog does not hold gives a resync with what on_resync sends, and the numbers go on."""
    socket, secret, _ = await session(house, "snapshot/a")
    await socket.send(1, {"x": 1})
    await socket.output({"count": 1})
    at, _, mark = last_of(socket).partition("-")
    for n, last in enumerate((f"{int(at) + 1000}-{mark}", f"{at}-{int(mark) + 1}", "0-0"), 2):
        again = await opened(house, "snapshot/a", edge=n % 2)
        await again.hello(secret, n, last)
        resync = await again.control("resync")
        assert resync["accepted"] == n - 1
        place = int(resync["at"].partition("-")[0])
        assert await again.output({"snapshot": n - 1}) == place + 1
        await again.send(n, {"x": n})
        await again.output({"count": n})
    assert await state_of(house, "snapshot/a", "resyncs") == 3


async def test_numbers_out_of_order(house: House) -> None:
    """A gap in the numbers is told and closed with 4400; a number said again changes nothing."""
    socket, _, _ = await session(house, "ledger/g")
    await socket.send(1, {"i": 1})
    await socket.send(1, {"i": 1})
    await socket.send(3, {"i": 3})
    assert await socket.closed() == 4400
    assert {"error": "out_of_order", "expected": 2} in socket.controls
    await until(lambda: state_of(house, "ledger/g", "n"), "the message")
    assert await state_of(house, "ledger/g", "n") == 1


@pytest.mark.parametrize(
    "frame",
    [
        "hello",
        "!",
        "![]",
        '!{"hello":1}',
        '!{"hello":{"secret":"00","generation":1,"last":null}}',
        '!{"hello":{"secret":"' + "0" * 32 + '","generation":0,"last":null}}',
        '!{"hello":{"secret":"' + "0" * 32 + '","generation":1,"last":"x"}}',
        b"\x00" * 9,
    ],
)
async def test_no_hello(house: House, frame: str | bytes) -> None:
    """A first frame that is no hello is closed with 4400, and nothing reaches the room."""
    socket = await opened(house, "ledger/h")
    await socket.socket.send(frame)
    assert (await socket.closed(), socket.close_reason) == (4400, "bad frame")
    assert not await house.redis.exists("inn:{ledger/h}:inbox")


async def test_bad_frames_later(house: House) -> None:
    """A frame without a number, an unknown control, and a message over the limit end the socket, not the session."""
    secret = ""
    frames: list[tuple[str | bytes, int]] = [
        ("x", 4400),
        ("!{}", 4400),
        (b"short", 4400),
        ("1 " + "x" * 65_537, 1009),
        (b"\x00" * 8 + b"x", 4400),
    ]
    for n, (frame, code) in enumerate(frames, 1):
        socket = await opened(house, "rawecho/h")
        secret = secret or secrets.token_hex(16)
        await socket.hello(secret, n, None)
        await socket.control("hello")
        await socket.socket.send(frame)
        assert await socket.closed() == code
    assert await house.redis.hlen("inn:{rawecho/h}:members") == 1


async def test_silence_instead_of_a_hello(house: House) -> None:
    """Without a hello the socket is closed after five seconds, so that the client tries again."""
    socket = await opened(house, "ledger/i")
    assert await socket.closed() == 1013


async def test_the_grace_ends(house: House) -> None:
    """A client that does not come back leaves once, after on_drop; then its session is over."""
    watcher = await house.join("brief/a", name="bob")
    await watcher.expect(lambda f: f.get("came") == "bob", "its own join")
    socket, secret, _ = await session(house, "brief/a")
    await watcher.expect(lambda f: f.get("came") == "ann", "the join")
    last = last_of(socket)
    await socket.abort()
    await watcher.expect(lambda f: f.get("dropped") == "ann", "the drop")
    await watcher.expect(lambda f: f.get("gone") == "ann", "the leave")
    late = await opened(house, "brief/a")
    await late.hello(secret, 2, last)
    assert await late.closed() == 4410
    assert [f for f in watcher.got if "ann" in f.values()] == [{"came": "ann"}, {"dropped": "ann"}, {"gone": "ann"}]
    assert await house.redis.hlen("inn:{brief/a}:timers") == 0


async def test_the_grace_ends_in_a_room_without_an_owner(house: House) -> None:
    """A killed edge's member leaves when its grace ends, also where the owner has died meanwhile."""
    watcher = await house.join("brief/b", edge=1, name="bob")
    await watcher.expect(lambda f: f.get("came") == "bob", "its own join")
    _socket, _, _ = await session(house, "brief/b", edge=0)
    await watcher.expect(lambda f: f.get("came") == "ann", "the join")
    house.edges[0].signal(signal.SIGKILL)
    await watcher.expect(lambda f: f.get("dropped") == "ann", "the drop")
    (await house.owner_of("brief/b")).signal(signal.SIGKILL)
    await watcher.expect(lambda f: f.get("gone") == "ann", "the leave")
    assert len([f for f in watcher.got if "gone" in f]) == 1


async def test_a_half_open_socket(house: House) -> None:
    """A resume while the old socket seems alive moves the member without a drop; the old one's end does nothing."""
    watcher = await house.join("brief/c", edge=1, name="bob")
    await watcher.expect(lambda f: f.get("came") == "bob", "its own join")
    old, secret, _ = await session(house, "brief/c", edge=0)
    await watcher.expect(lambda f: f.get("came") == "ann", "the join")
    house.edges[0].signal(signal.SIGSTOP)
    new = await opened(house, "brief/c", edge=1)
    await new.hello(secret, 2, last_of(old))
    await new.control("resumed")
    await watcher.expect(lambda f: f.get("back") == "ann", "on_resume")
    house.edges[0].signal(signal.SIGCONT)
    assert await old.closed() in (4409, 1012)
    await new.send(1, {"i": 1})
    await watcher.expect(lambda f: f.get("said") == {"i": 1}, "its message")
    await asyncio.sleep(1.5)  # longer than the grace: nothing may come of the old socket
    assert [f for f in watcher.got if "ann" in f.values()] == [{"came": "ann"}, {"back": "ann"}]


async def test_closed_by_the_room(house: House) -> None:
    """A close by the room reaches a client also where it had no socket just then, and makes it leave."""
    watcher = await house.join("brief/d", name="bob")
    await watcher.expect(lambda f: f.get("came") == "bob", "its own join")
    socket, secret, _ = await session(house, "brief/d")
    await watcher.expect(lambda f: f.get("came") == "ann", "the join")
    last = last_of(socket)
    await socket.abort()
    await watcher.expect(lambda f: f.get("dropped") == "ann", "the drop")
    await watcher.send({"kick": "ann"})
    await watcher.expect(lambda f: f.get("said") == {"kick": "ann"}, "the kick")
    again = await opened(house, "brief/d")
    await again.hello(secret, 2, last)
    assert (await again.closed(), again.close_reason) == (4321, "kicked")
    await watcher.expect(lambda f: f.get("gone") == "ann", "the leave")


async def test_a_destroyed_room(house: House) -> None:
    """Its sessions end with it: the live one is closed with 4404, and one that was away is told that it is over."""
    socket, _, _ = await session(house, "mortal/a")
    away, secret, hello = await session(house, "mortal/a", name="bob")
    last = last_of(away)
    await away.abort()
    await until(lambda: _row_is(house, "mortal/a", hello["conn"], up=False), "the drop")
    await socket.send(1, {"type": "end"})
    assert await socket.closed() == 4404
    late = await opened(house, "mortal/a", name="bob")
    await late.hello(secret, 2, last)
    assert await late.closed() == 4410
    assert not await house.redis.exists("inn:{mortal/a}:members", "inn:{mortal/a}:timers", "inn:{mortal/a}:state")


async def test_errors_name_the_message(house: House) -> None:
    """A message that fails is told to its sender with its number, apart from the room's outputs."""
    socket, _, _ = await session(house, "trouble/a")
    await socket.send(1, {"do": "raise"})
    await socket.socket.send("2 {")
    await until(lambda: sum("error" in c for c in socket.controls) == 2, "two errors", seen=socket.controls)
    errors = [c for c in socket.controls if "error" in c]
    assert [(c["error"], c["n"]) for c in errors] == [("handler_failed", 1), ("invalid_json", 2)]
    assert all("at" in c for c in errors)
    assert socket.outputs == []


async def test_a_lost_answer_to_the_hello(house: House) -> None:
    """A client that never heard the answer to its first hello says it again, and gets all since its join."""
    secret = secrets.token_hex(16)
    lost = await opened(house, "ledger/j")
    await lost.hello(secret, 1)
    await lost.control("hello")
    await lost.send(1, {"i": 1})
    await until(lambda: state_of(house, "ledger/j", "n"), "the message")
    await lost.abort()
    again = await opened(house, "ledger/j", edge=1)
    await again.hello(secret, 2)
    hello = await again.control("hello")
    assert hello["accepted"] == 1
    await again.send(1, {"i": 1})
    await again.send(2, {"i": 2})
    await until(lambda: any(p.get("n") == 2 for _, p in again.outputs), "both", seen=again.frames)
    assert [next(iter(p)) for _, p in again.outputs] == ["welcome", "came", "n", "n"]
