"""Sessions in a room that was rolled back, as a failover does it: told on the open socket, and nothing sent is lost."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.house import House, until
from harness.v1 import V1Client, V1Socket

pytestmark = pytest.mark.long

PARTS = ("meta", "inbox", "sessions", "members", "state", "outlog", "timers")
Dumps = dict[str, bytes | None]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One edge and one worker."""
    async with House(tmp_path, edges=1, workers=1) as running:
        yield running


async def dump(house: House, room: str) -> Dumps:
    """Return what a room's keys hold, once it has no backlog."""

    async def is_caught_up() -> bool:
        last, cursor = await house.redis.hmget(f"inn:{{{room}}}:sessions", "#", "@")
        return bool(last == cursor)

    await until(is_caught_up, "all is committed")
    return {name: await house.redis.dump(name) for name in (f"inn:{{{room}}}:{part}" for part in PARTS)}


async def roll_back(house: House, dumps: Dumps) -> None:
    """Put a room's keys back, all at once."""
    async with house.redis.pipeline(transaction=True) as pipe:
        for name, data in dumps.items():
            if data is None:
                pipe.delete(name)
            else:
                pipe.restore(name, 0, data, replace=True)
        await pipe.execute()


async def state_of(house: House, room: str, field: str) -> Any:
    """Return a field of a room's state."""
    stored = await house.redis.hget(f"inn:{{{room}}}:state", field)
    return orjson.loads(stored) if stored else None


async def test_what_was_lost_is_sent_again(house: House) -> None:
    """A client on an open socket is told how much the room still has, and sends the rest again, each applied once."""
    clients = [V1Client(house, "ledger/a", name) for name in ("ann", "bob")]
    for client in clients:
        client.send({"i": 0})
        await client.all_applied()
    before = await dump(house, "ledger/a")
    for i in range(1, 11):
        for client in clients:
            client.send({"i": i})
    for client in clients:
        await client.all_applied()
    await roll_back(house, before)
    await until(lambda: all(client.resyncs for client in clients), "both are told", seen=clients[0].outputs[-3:])
    for i in range(11, 21):
        for client in clients:
            client.send({"i": i})
    for client in clients:
        await client.all_applied()
        assert (client.generation, client.final_code) == (1, None)
    assert await state_of(house, "ledger/a", "n") == 42
    await until(lambda: clients[0].outputs[-1][1].get("n") == 42, "the end")
    seen = [p for _, p in clients[0].outputs if "n" in p]
    for name in ("ann", "bob"):
        said = [p["i"] for p in seen if p["from"] == name]
        assert said[-20:] == list(range(1, 21)), "out of order"
    assert int(await house.redis.hget("inn:counters", "resyncs")) >= 1
    await asyncio.gather(*(client.end() for client in clients))


async def test_a_rollback_to_before_the_resume(house: House) -> None:
    """Where the room has forgotten the resume, the open socket brings the member back, on_resume included."""
    watcher = await house.join("brief/a", name="bob")
    await watcher.expect(lambda f: f.get("came") == "bob", "its own join")
    secret = secrets.token_hex(16)
    first = await V1Socket.open(house.url("brief/a", name="ann"))
    await first.hello(secret, 1)
    last = (await first.control("hello"))["at"]
    await first.abort()
    await watcher.expect(lambda f: f.get("dropped") == "ann", "the drop")
    before = await dump(house, "brief/a")
    second = await V1Socket.open(house.url("brief/a", name="ann"))
    await second.hello(secret, 2, last)
    await second.control("resumed")
    for number in range(1, 4):
        await second.send(number, {"i": number})
    await until(lambda: any(c.get("applied") == 3 for c in second.controls), "applied", seen=second.controls)
    await roll_back(house, before)
    assert (await second.control("resync"))["accepted"] == 0
    await second.send(1, {"i": "again"})
    await second.output({"said": {"i": "again"}})
    outlog = await house.redis.xrange("inn:{brief/a}:outlog")
    assert [fields[b"d"] for _, fields in outlog].count(b'{"back":"ann"}') == 1, "the rolled back one aside"
    await asyncio.sleep(1.5)  # the grace that was rolled back must not end
    assert await house.redis.hlen("inn:{brief/a}:members") >= 1
    assert second.close_code is None


async def test_a_rollback_to_before_the_session(house: House) -> None:
    """A room that has never heard of the session ends it with 4410; the client starts another."""
    watcher = await house.join("ledger/b", name="bob")
    await watcher.expect(lambda f: "welcome" in f, "its welcome")
    before = await dump(house, "ledger/b")
    socket = await V1Socket.open(house.url("ledger/b", name="ann"))
    await socket.hello(secrets.token_hex(16), 1)
    await socket.control("hello")
    await socket.send(1, {"i": 1})
    await until(lambda: any(c.get("applied") == 1 for c in socket.controls), "applied", seen=socket.controls)
    await roll_back(house, before)
    assert await socket.closed() == 4410
    assert await watcher.closed() == 4512


async def test_messages_in_flight_while_history_is_cut(house: House) -> None:
    """A client that goes on sending until it hears of the resync is not taken for one that miscounts."""
    socket = await V1Socket.open(house.url("ledger/c", name="ann"))
    await socket.hello(secrets.token_hex(16), 1)
    await socket.control("hello")
    before = await dump(house, "ledger/c")
    for number in range(1, 6):
        await socket.send(number, {"i": number})
    await until(lambda: any(c.get("applied") == 5 for c in socket.controls), "applied", seen=socket.controls)
    await roll_back(house, before)
    number = 5
    while not any("resync" in c for c in socket.controls):
        number += 1
        await socket.send(number, {"i": number})
        await asyncio.sleep(0.02)
    for _ in range(3):  # it has not read it yet
        number += 1
        await socket.send(number, {"i": number})
    accepted = (await socket.control("resync"))["accepted"]
    for again in range(accepted + 1, number + 1):
        await socket.send(again, {"i": again})
    await until(lambda: any(c.get("applied") == number for c in socket.controls), "applied", seen=socket.controls)
    assert socket.close_code is None
    assert await state_of(house, "ledger/c", "n") == number
