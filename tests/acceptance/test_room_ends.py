"""Rooms that are put to sleep or destroyed, through real sockets, processes and Redis."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.house import House, until


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Two edges and two workers on a private Valkey."""
    async with House(tmp_path) as running:
        yield running


async def state_of(house: House, room: str) -> dict[str, Any]:
    """Return a room's stored state."""
    stored = await house.redis.hgetall(f"inn:{{{room}}}:state")
    return {key.decode(): orjson.loads(data) for key, data in stored.items()}


async def test_typed_messages_tags_and_state(house: House) -> None:
    """Handlers get checked messages, tags choose who receives, fields of a typed state are keys in Redis."""
    ann = await house.join("mortal/typed", name="ann")
    bob = await house.join("mortal/typed", edge=1, name="bob")
    await bob.expect(lambda f: "lines" in f, "the diary")
    await ann.send({"type": "say", "text": 5})
    await ann.send({"type": "shout"})
    await ann.send({"type": "say", "text": "bonjour"})
    await ann.send({"type": "say", "text": "ahoy"})
    await ann.expect(lambda f: f == {"said": "ahoy"}, "its word")
    await bob.expect(lambda f: f == {"said": "bonjour"}, "its word")
    assert [frame for frame in ann.got if "error" in frame] == [
        {"error": "invalid_message", "message_type": "say", "detail": "Expected `str`, got `int` - at `$.text`"},
        {"error": "unknown_type", "message_type": "shout"},
    ]
    assert {"said": "bonjour"} not in ann.got
    assert {"said": "ahoy"} not in bob.got
    state = await state_of(house, "mortal/typed")
    assert state["lines"] == ["created", "ann: bonjour", "ann: ahoy"]


async def test_destroy(house: House) -> None:
    """Everybody is closed with 4404 after what was sent, numbers alone stay, and a later join finds a new room."""
    room = "mortal/end"
    ann = await house.join(room, name="ann")
    await ann.expect(lambda f: "lines" in f, "the diary")
    bob = await house.join(room, edge=1, name="bob")
    await bob.expect(lambda f: "lines" in f, "the diary")
    await bob.send({"type": "say", "text": "a"})
    await ann.expect(lambda f: f == {"said": "a"}, "the word")
    await ann.send({"type": "end"})
    assert (await ann.closed(), await bob.closed()) == (4404, 4404)
    assert (ann.socket.close_reason, [set(frame) for frame in ann.got[-1:]]) == ("room destroyed", [{"ends"}])
    assert bob.got[-2:] == [ann.got[-1], {"left": "ann"}]
    # The sockets' own leaves come after the end: they are consumed, and create nothing.
    await until(lambda: _is_done(house, room, 6), "both leaves are consumed")
    keys = {key.decode().rpartition(":")[2] for key in await house.redis.keys(f"inn:{{{room}}}:*")}
    assert keys & {"state", "members", "timers", "dead"} == set()
    assert b"created" not in await house.redis.hkeys(f"inn:{{{room}}}:meta")
    eve = await house.join(room, name="eve")
    assert await eve.expect(lambda f: "lines" in f, "the diary") == {"lines": ["created"], "sleeps": 0}
    await eve.send({"type": "end"})
    assert await eve.closed() == 4404
    assert eve.got[-1]["ends"] != ann.got[-1]["ends"]
    await until(lambda: _is_done(house, room, 9), "join, end and leave are consumed")
    await until(lambda: _expires(house, room), "all that is left of the room expires")


async def test_messages_after_the_end_are_void(house: House) -> None:
    """What a member had sent after the message that ended the room reaches no hook; new members are not touched."""
    room = "mortal/void"
    ann = await house.join(room, name="ann")
    await ann.expect(lambda f: "lines" in f, "the diary")
    await asyncio.gather(*(ann.send(m) for m in ({"type": "end"}, *[{"type": "say", "text": "late"}] * 50)))
    assert await ann.closed() == 4404
    eve = await house.join(room, name="eve")
    assert await eve.expect(lambda f: "lines" in f, "the diary") == {"lines": ["created"], "sleeps": 0}
    await eve.send({"type": "say", "text": "e"})
    await eve.expect(lambda f: f == {"said": "e"}, "its word")
    assert (await state_of(house, room))["lines"] == ["created", "eve: e"]


async def test_rooms_destroyed_while_workers_die(house: House) -> None:
    """Each of 40 rooms ends exactly once for all its members although their owners are killed while they do."""
    rooms = [f"mortal/storm{n}" for n in range(40)]
    members = [await house.join(room, edge=n % 2, name="ann") for n, room in enumerate(rooms)]
    for client in members:
        await client.expect(lambda f: "lines" in f, "the diary")
    await house.add_worker()

    async def end(client: Any, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await client.send({"type": "end"})

    ends = [asyncio.create_task(end(client, n * 0.01)) for n, client in enumerate(members)]
    for worker in house.workers[:2]:
        await asyncio.sleep(0.1)
        worker.signal(signal.SIGKILL)
    await asyncio.gather(*ends)
    assert await asyncio.gather(*(client.closed() for client in members)) == [4404] * 40
    await asyncio.sleep(1)  # the sockets' own leaves come after the end, and wake rooms
    for room, client in zip(rooms, members, strict=True):
        assert sum("ends" in frame for frame in client.got) == 1
        assert await state_of(house, room) == {}
        assert await house.redis.exists(f"inn:{{{room}}}:members") == 0


async def test_on_sleep(house: House) -> None:
    """Before an idle room is given back on_sleep runs once and is committed; sockets stay and hear what it sends."""
    room = "mortal/sleep"
    ann = await house.join(room, name="ann")
    await ann.expect(lambda f: f == {"sleeps": 1}, "the first sleep")
    await until(lambda: _asleep(house, room), "the lock is given back")
    assert (await state_of(house, room))["sleeps"] == 1
    await ann.send({"type": "say", "text": "a"})
    await ann.expect(lambda f: f == {"sleeps": 2}, "the second sleep")
    await until(lambda: _asleep(house, room), "the lock is given back")
    assert (await state_of(house, room))["sleeps"] == 2
    assert ann.close_code is None


async def test_on_sleep_at_a_handover(house: House) -> None:
    """A worker that ends puts its rooms to sleep properly; they go on elsewhere with what on_sleep wrote."""
    room = "mortal/handover"
    ann = await house.join(room, name="ann")
    await ann.expect(lambda f: "lines" in f, "the diary")
    await ann.send({"type": "say", "text": "a"})
    await ann.expect(lambda f: f == {"said": "a"}, "its word")
    owner = await house.owner_of(room)
    owner.signal(signal.SIGTERM)
    first = await ann.expect(lambda f: "sleeps" in f and "lines" not in f, "a sleep")
    await asyncio.to_thread(owner.process.wait, 10)
    await ann.send({"type": "say", "text": "again"})
    await until(lambda: ann.got.count({"said": "a"}) == 1 and {"said": "again"} in ann.got, "its word", seen=ann.got)
    assert first["sleeps"] <= (await state_of(house, room))["sleeps"]
    assert ann.close_code is None


async def _expires(house: House, room: str) -> bool:
    keys = await house.redis.keys(f"inn:{{{room}}}:*")
    return all([await house.redis.pttl(key) > 0 for key in keys])


async def _is_done(house: House, room: str, iseq: int) -> bool:
    return await house.redis.hmget(f"inn:{{{room}}}:sessions", "#", "@") == [b"%d" % iseq] * 2  # type: ignore[no-any-return]


async def _asleep(house: House, room: str) -> bool:
    return not await house.redis.exists(f"inn:{{{room}}}:lock")
