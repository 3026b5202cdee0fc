"""Posts between rooms, through real workers, also killed ones."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import websockets

from harness.cluster import Cluster
from harness.house import Client, House, Role, until

TARGET = str(Path(__file__).parents[1] / "harness" / "post_rooms.py")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One edge and two workers on a private Valkey."""
    async with House(tmp_path, edges=1, workers=2, target=TARGET) as running:
        yield running


async def state(house: House, room: str) -> dict[str, Any]:
    """Return a room's stored state."""
    rows = await house.redis.hgetall(f"inn:{{{room}}}:state")
    return {key.decode(): orjson.loads(value) for key, value in rows.items()}


async def stored(house: House, room: str, check: Callable[[dict[str, Any]], bool], what: str, **limits: Any) -> None:
    """Wait until a room's stored state passes a check."""

    async def passes() -> bool:
        return check(await state(house, room))

    await until(passes, f"{room}: {what}", **limits)


def has(sender: str, count: int) -> Callable[[dict[str, Any]], bool]:
    """Return a check of a sink: so many came from that sender."""

    def check(found: dict[str, Any]) -> bool:
        got: list[int] = found.get(sender, [])
        return len(got) >= count

    return check


async def emptied(house: House, room: str) -> None:
    """Wait until a room owes nothing."""

    async def is_empty() -> bool:
        count: int = await house.redis.xlen(f"inn:{{{room}}}:outbox")
        return count == 0

    await until(is_empty, f"{room} owes nothing")


async def test_a_post_arrives_once_and_in_order(house: House) -> None:
    """A hundred posts to each of two rooms, which nobody had made: every number, in order, and the outbox is empty."""
    client = await house.join("source/a")
    for _ in range(100):
        await client.send({"to": ["sink/a", "sink/b"]})
    for sink in ("sink/a", "sink/b"):
        await stored(house, sink, has("source/a", 100), "all have come")
        assert (await state(house, sink))["source/a"] == list(range(1, 101))
    await emptied(house, "source/a")
    member = await house.join("sink/a")
    await member.expect(lambda f: "got" in f, "the greeting")
    await client.send({"to": ["sink/a"]})
    await member.expect(lambda f: f == {"from": "source/a", "n": 101}, "the broadcast of a post")


async def test_rooms_talk_to_each_other_and_to_themselves(house: House) -> None:
    """A post may be answered by a post, and a room may post to itself."""
    client = await house.join("pinger/a")
    await client.send({"other": "pinger/b", "n": 1, "goal": 100})
    await stored(house, "pinger/a", lambda found: found.get("n") == 100, "it has counted")
    assert (await state(house, "pinger/b"))["n"] == 99
    await client.send({"other": "pinger/a", "n": 1, "goal": 50})
    await stored(house, "pinger/a", lambda found: found.get("n") == 50, "it has counted alone")


async def test_a_failed_event_posts_nothing(house: House) -> None:
    """What a hook that raised had posted is never sent; bad targets and values fail the event at the call."""
    client = await house.join("source/b")
    for message in (
        {"to": ["sink/c"], "fail": True},
        {"to": ["sink/c", "no address"]},
        {"to": ["sink/c"], "pad": 2**20},
    ):
        await client.send(message)
        await client.expect(lambda f: f == {"error": "handler_failed"}, "the error")
        client.got.clear()
    await client.send({"to": ["sink/c"]})
    await stored(house, "sink/c", lambda found: found == {"source/b": [1]}, "the one that counts")


async def test_a_room_posts_with_its_last_breath(house: House) -> None:
    """What the event that destroys a room has posted is sent."""
    client = await house.join("source/c")
    await client.send({"to": ["sink/d"], "end": True})
    assert await client.closed() == 4404
    await stored(house, "sink/d", lambda found: found == {"source/c": [1]}, "the last post")


async def test_posts_that_fail_at_the_target_are_put_aside(house: House) -> None:
    """on_post that raises is undone, in dead and told to on_error; a class without on_post leaves a record too."""
    client = await house.join("source/d")
    await client.send({"to": ["grumpy/a", "wall/a"]})
    await stored(house, "grumpy/a", lambda found: found == {"error": ["no", "post"]}, "the error")
    for room, error in (("grumpy/a", b"RuntimeError: no"), ("wall/a", b"Wall has no on_post")):
        ((_, fields),) = await until(partial(house.redis.xrange, f"inn:{{{room}}}:dead"), f"{room} has a record")
        assert (fields[b"type"], fields[b"error"]) == (b"post", error)
        assert orjson.loads(fields[b"data"])["sender"] == "source/d"
    await emptied(house, "source/d")


async def test_a_full_target_holds_up_no_other(house: House) -> None:
    """Sixty posts to a narrow room all come in order in the end; those to another room do not wait for them."""
    client = await house.join("source/e")
    for _ in range(60):
        await client.send({"to": ["narrow/a"]})
    await client.send({"to": ["sink/e"]})
    await stored(house, "sink/e", lambda found: found == {"source/e": [1]}, "the other target")
    assert len((await state(house, "narrow/a")).get("source/e", ())) < 60
    await stored(house, "narrow/a", has("source/e", 60), "the full target", timeout_s=30)
    assert (await state(house, "narrow/a"))["source/e"] == list(range(1, 61))


async def test_a_target_that_nobody_serves_waits(house: House) -> None:
    """Posts to a kind without a worker stand in its inbox, and the source owes nothing."""
    client = await house.join("source/f")
    await client.send({"to": ["future/a"]})
    await client.expect(lambda f: f == {"sent": True}, "the confirmation")
    await emptied(house, "source/f")
    ((_, fields),) = await house.redis.xrange("inn:{future/a}:inbox")
    assert fields[b"t"] == b"post"


@pytest.mark.long
async def test_posts_of_a_worker_that_died_are_brought_by_another(house: House) -> None:
    """The owner dies with posts in its outbox and no socket: a sweep finds them, although nobody wakes the room."""
    client = await house.join("source/g")
    await client.send({"to": ["sink/g"]})
    await stored(house, "sink/g", lambda found: found == {"source/g": [1]}, "the first")
    await client.close()
    for role in house.workers:
        role.signal(signal.SIGKILL)
        role.process.wait()
    # What a commit leaves whose owner died right after it: the entry, its number, the note in the index, and no lock.
    mark = (await house.redis.hget("inn:{source/g}:meta", "token") or b"1:7").decode().partition(":")[2] or "7"
    await house.redis.xadd(
        "inn:{source/g}:outbox",
        {"type": "post", "target": "sink/g", "data": b'{"sender":"source/g","value":{"n":2}}'},
        id=f"2-{mark}",
    )
    await house.redis.hset("inn:{source/g}:meta", "posted", 2)
    await house.redis.delete("inn:workers")
    assert await house.redis.zcard(await _shard(house, "source/g")) == 1
    await house.add_worker()
    await stored(house, "sink/g", lambda found: found == {"source/g": [1, 2]}, "the second", timeout_s=25)
    await until(lambda: _unlisted(house, "source/g"), "the index forgets it", timeout_s=25)


async def _shard(house: House, room: str) -> str:
    for n in range(16):
        if await house.redis.zscore(f"inn:outboxes:{n}", room) is not None:
            return f"inn:outboxes:{n}"
    return "none"


async def _unlisted(house: House, room: str) -> bool:
    return await _shard(house, room) == "none"


async def _talk(house: House, room: str, sinks: list[str], stop: asyncio.Event) -> None:
    """Have a source post to all sinks, again and again; where its socket is closed, by another."""
    client, sent = await house.join(room), 0
    while not stop.is_set():
        try:
            await client.send({"to": sinks, "pad": 200 * (sent % 7)})
        except websockets.ConnectionClosed:
            client = await house.join(room)
        sent += 1
        await asyncio.sleep(0.01)


@pytest.mark.timeout(180)
@pytest.mark.long
async def test_killed_owners_lose_and_double_nothing(tmp_path: Path) -> None:
    """Owners of sources and targets are killed under load: every target gets every post once, in order."""
    sources, sinks = [f"source/k{n}" for n in range(4)], [f"sink/k{n}" for n in range(3)]
    async with House(tmp_path, edges=1, workers=3, target=TARGET) as house:
        stop = asyncio.Event()
        talks = [asyncio.create_task(_talk(house, room, sinks, stop)) for room in sources]
        killed = 0
        while killed < 8:
            await asyncio.sleep(0.7)
            for room in (sources[killed % 4], sinks[killed % 3]):
                with contextlib.suppress(StopIteration, AssertionError):
                    victim: Role = await house.owner_of(room)
                    victim.signal(signal.SIGKILL)
                    victim.process.wait()
                    killed += 1
                    await house.add_worker()
        stop.set()
        await asyncio.gather(*talks)
        for room in sources:  # nothing comes any more
            await until(partial(_is_done, house, room), f"{room} has done all", timeout_s=40)
        sent = {room: (await state(house, room))["sent"] for room in sources}
        for sink in sinks:
            for room in sources:
                await stored(house, sink, has(room, sent[room][sink]), f"all of {room} have come", timeout_s=40)
            assert await state(house, sink) == {room: list(range(1, sent[room][sink] + 1)) for room in sources}
        counts = [count for rooms in sent.values() for count in rooms.values()]
        assert min(counts) > 100
        for room in sources:
            await emptied(house, room)
        print(f"{sum(counts)} posts, {killed} kills")


async def _is_done(house: House, room: str) -> bool:
    last, done = await house.redis.hmget(f"inn:{{{room}}}:sessions", "#", "@")
    return bool(last == done)


@pytest.mark.timeout(120)
@pytest.mark.long
async def test_posts_cross_a_cluster(tmp_path: Path) -> None:
    """Source and targets on different primaries: every post arrives once, in order."""
    sinks = [f"sink/c{n}" for n in range(8)]
    async with Cluster() as cluster, House(tmp_path, url=cluster.url, target=TARGET) as house:
        assert len({(await cluster.node_of(room)).port for room in (*sinks, "source/c")}) == 3
        client = await house.join("source/c")
        for _ in range(40):
            await client.send({"to": sinks})
        for sink in sinks:
            member = await house.join(sink)
            await member.expect(lambda f: "got" in f, "the greeting")
            await until(partial(numbers, member, 40), "all have come", timeout_s=20)
            assert numbers(member, 40) == list(range(1, 41))


def numbers(member: Client, count: int) -> list[int]:
    """Return what a sink's member knows of what came from source/c, once it is that many."""
    found = [*member.got[0]["got"].get("source/c", []), *(frame["n"] for frame in member.got[1:])]
    return found if len(found) >= count else []
