"""Other programs and the rooms, through real workers."""

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cluster import Cluster
from harness.house import House, until
from harness.valkey import Valkey
from innkeeper import Innkeeper, NoAnswer, OutputInvalid, RoomBusy
from innkeeper.address import InvalidAddress
from innkeeper.errors import KindUnknown, RedisUnavailable, RedisUnusable
from innkeeper.outside import Output, OutsideRoom

HARNESS = Path(__file__).parents[1] / "harness"
WEB, POSTS = str(HARNESS / "web_rooms.py"), str(HARNESS / "post_rooms.py")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One edge and one worker on a private Valkey, with the rooms for requests."""
    async with House(tmp_path, edges=1, workers=1, target=WEB) as running:
        yield running


@pytest.fixture
async def inn(house: House) -> AsyncIterator[Innkeeper]:
    """A program's connection to that house."""
    async with Innkeeper.connect(house.redis_url) as running:
        yield running


async def got(room: OutsideRoom, count: int, **limits: Any) -> list[int]:
    """Return what programs posted to a sink, once it is that many."""

    async def look() -> list[int]:
        found: list[int] = (await room.state()).get("outside", [])
        return found if len(found) >= count else []

    numbers: list[int] = await until(look, f"{count} have come", **limits)
    return numbers


async def test_requests_are_answered(inn: Innkeeper) -> None:
    """Method, path, query, headers and body reach the handler; the answer comes back with status and headers."""
    room = inn.room("web/a")
    answer = await room.request("PUT", "/echo?q=%C3%A9&name=x", body={"a": 1}, headers={"X-One": "1"})
    assert answer.json() == {
        "method": "PUT", "query": {"q": "é", "name": "x"}, "all": [["q", "é"], ["name", "x"]],
        "headers": {"x-one": "1"}, "text": '{"a":1}', "user": "", "cookie": None,
    }  # fmt: skip
    answer = await room.request("GET", "/teapot")
    assert (answer.status, answer.content_type, answer.header("x-pot"), answer.body) == (418, "x/y", "1", b"short")
    assert (await room.request("GET", "/none")).status == 204
    assert (await room.request("GET", "/raise")).json() == {"error": "handler_failed"}


@pytest.mark.parametrize("size", [10_000, 500_000])
async def test_large_bodies_pass_both_ways(inn: Innkeeper, size: int) -> None:
    """A body comes back byte for byte, also where pub/sub is too small for it."""
    body = bytes(range(256)) * (size // 256)
    assert (await inn.room("web/b").request("POST", "/bytes", body=body)).body == body


async def test_many_requests_at_once(inn: Innkeeper) -> None:
    """A hundred at a time to one room: each is applied once and gets its own answer."""
    room = inn.room("web/c")
    answers = await asyncio.gather(*(room.request("POST", "/count") for _ in range(100)))
    assert sorted(answer.json()["count"] for answer in answers) == list(range(1, 101))


async def test_state_and_members_are_what_was_committed(house: House, inn: Innkeeper) -> None:
    """state() and members() of a room with and without members, and of one that is not there."""
    room = inn.room("web/d")
    assert (await room.state(), await room.members()) == ({}, [])
    await room.request("POST", "/count")
    for name in ("ann", "bob"):
        client = await house.join("web/d", name=name)
        await client.expect(lambda f: f == {"count": 1}, "the greeting")
    assert await room.state() == {"count": 1}
    members = await room.members()
    assert [(member.user.name, member.state, member.tags) for member in members] == [
        ("ann", None, frozenset()), ("bob", None, frozenset()),
    ]  # fmt: skip
    assert members[0].join < members[1].join


async def test_a_tail_hears_every_output_in_order(house: House, inn: Innkeeper) -> None:
    """From the moment it is entered: joins, broadcasts, large ones too, and the close of the room."""
    room = inn.room("web/e")
    client = await house.join("web/e", name="ann")
    await client.expect(lambda f: f == {"count": 0}, "the greeting")
    async with room.tail() as outputs:
        for n in range(50):
            await client.send({"n": n, "pad": "x" * (20_000 if n % 10 == 0 else 10)})
        heard: list[Output] = []
        async for output in outputs:
            heard.append(output)
            if len(heard) == 50:
                break
        assert [output.json()["message"]["n"] for output in heard] == list(range(50))
        assert {output.header for output in heard} == {"text *"}
        await room.destroy()
        kinds = [(await outputs.__anext__()).kind for _ in range(2)]
        assert kinds == ["answer", "close"]
        assert await outputs.next(timeout_s=0.1) is None
    assert await client.closed() == 4404
    assert await room.state() == {}


async def test_kinds_that_nobody_serves(house: House, inn: Innkeeper) -> None:
    """Destroying a room of such a kind is refused at once; a post to one waits, in the keys that the page names."""
    room = inn.room("nosuch/a")
    with pytest.raises(KindUnknown, match="no worker has ever served the kind 'nosuch'"):
        await room.destroy(timeout_s=30)
    assert [key async for key in house.redis.scan_iter("*nosuch*")] == []
    await room.post(1)

    async def left() -> set[str]:
        return {key.decode() async for key in house.redis.scan_iter("*nosuch*")}

    names = {"inn:{nosuch/a}:inbox", "inn:{nosuch/a}:sessions", "inn:wake:nosuch"}
    await until(lambda: _is_same(left, names), "the keys of a post are there")
    assert [await house.redis.ttl(key) for key in sorted(names)] == [-1] * 3
    shards = [await house.redis.zscore(f"inn:rooms:{shard}", "nosuch/a") is not None for shard in range(16)]
    assert sum(shards) == 1
    assert await house.redis.zscore("inn:wake:nosuch", "nosuch/a") is not None


async def _is_same(look: Callable[[], Awaitable[set[str]]], expected: set[str]) -> bool:
    return await look() == expected


async def test_what_is_refused_at_once(inn: Innkeeper) -> None:
    """Bad addresses, methods, paths and values raise before anything is sent."""
    with pytest.raises(InvalidAddress):
        inn.room("Web/a")
    room = inn.room("web/f")
    for method, path in (("GET", "x"), ("GET", "/a b"), ("G T", "/"), ("GET", "/a#b"), ("", "/")):
        with pytest.raises(ValueError, match=r"^(method|path) '"):
            await room.request(method, path)
    for value in (object(), b"x", "x" * 1_048_577):
        with pytest.raises(OutputInvalid):
            await room.post(value)
    assert (await inn.room("nobody/a").request("GET")).json() == {"error": "unknown_kind"}
    assert (await inn.room("deaf/a").request("GET")).json() == {"error": "no_requests"}
    assert (await room.request("POST", body=b"x" * 600_001)).status == 413
    assert (await room.request("GET", headers={"x": "y" * 70_000})).status == 431
    with pytest.raises(ValueError, match="timeout_s"):
        Innkeeper.connect(timeout_s=0)


async def test_no_answer_and_full_rooms_are_told(inn: Innkeeper) -> None:
    """Too late is NoAnswer, a full room RoomBusy; afterwards the room goes on."""
    with pytest.raises(NoAnswer, match=r"within 0\.3 s"):
        await inn.room("web/g").request("GET", "/text?s=1", timeout_s=0.3)
    slow = inn.room("slow/a")
    asked = [asyncio.create_task(slow.request("GET", f"/{n}", timeout_s=0.6 if n > 2 else 5)) for n in range(6)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes[3:]} <= {RoomBusy, NoAnswer}
    assert any(isinstance(outcome, RoomBusy) for outcome in outcomes)
    assert (await inn.room("web/g").request("GET", "/text")).text() == "héllo"


async def test_a_program_without_redis_or_workers(own_valkey: Valkey) -> None:
    """A wrong URL, a Redis without workers, and one that goes away: each is told for what it is."""
    with pytest.raises(RedisUnusable, match="no Redis at"):
        async with Innkeeper.connect("redis://127.0.0.1:1/0"):
            pass
    with pytest.raises(RedisUnusable, match="--redis"):
        async with Innkeeper.connect("http://127.0.0.1:1/0"):
            pass
    inn = Innkeeper.connect(own_valkey.url, timeout_s=0.4)
    with pytest.raises(RuntimeError, match="not connected"):
        await inn.room("web/a").post(1)
    async with inn:
        with pytest.raises(RedisUnavailable, match="start one"):
            await inn.room("web/a").post(1)
        own_valkey.kill()
        started_s = time.monotonic()
        with pytest.raises(RedisUnavailable):
            await inn.room("web/a").post(1)
        assert time.monotonic() - started_s < 3


async def test_posts_survive_a_restart_of_redis_and_a_killed_worker(tmp_path: Path) -> None:
    """Posts sent through a stopped Redis and dying workers: each counts once, in order."""
    async with House(tmp_path, edges=0, workers=2, target=POSTS) as house, Innkeeper.connect(house.redis_url) as inn:
        room = inn.room("sink/a")
        for n in range(300):
            await room.post({"n": n})
            if n in {50, 150, 250}:
                (await house.owner_of("sink/a")).signal(signal.SIGKILL)
                await house.add_worker()
            if n == 100:
                assert house.valkey.process is not None
                house.valkey.process.send_signal(signal.SIGSTOP)
                asyncio.get_running_loop().call_later(1.3, house.valkey.process.send_signal, signal.SIGCONT)
        assert await got(room, 300, timeout_s=20) == list(range(300))
        answers = await asyncio.gather(*(inn.room("sink/b").post({"n": n}) for n in range(200)))
        assert len(answers) == 200
        assert await got(inn.room("sink/b"), 200) == list(range(200))


async def test_a_post_whose_program_died_is_found(tmp_path: Path) -> None:
    """A program dies between the acceptance and the wake: the sweep finds the room, although nobody has a socket."""
    async with House(tmp_path, edges=0, workers=1, target=POSTS) as house, Innkeeper.connect(house.redis_url) as inn:
        room = inn.room("sink/c")

        async def never(address: object) -> None:
            """Die before it."""

        inn._wake = never  # type: ignore[method-assign]
        await room.post({"n": 1})
        assert await got(room, 1, timeout_s=10) == [1]


async def test_without_await(house: House) -> None:
    """The same calls from threads; closing ends a tail that waits in another."""

    def work() -> None:
        with Innkeeper.connect_sync(house.redis_url) as inn:
            room = inn.room("web/s")
            with room.tail() as outputs:
                threads = [threading.Thread(target=room.request, args=("POST", "/count")) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                heard = [next(outputs) for _ in range(16)]
                assert [output.json()["count"] for output in heard if output.header == "text *"] == list(range(1, 9))
            assert room.state() == {"count": 8}
            assert room.members() == []
            room.destroy()
            assert room.state() == {}
            room.post({"n": 1})
            rest: list[Output] = []
            waiting = threading.Thread(target=lambda: rest.extend(room.tail()))
            waiting.start()
            time.sleep(0.3)
        waiting.join(5)
        assert not waiting.is_alive()
        with pytest.raises(RuntimeError, match="not connected"):
            room.post(1)

    await asyncio.to_thread(work)


async def test_closing_ends_what_waits(house: House) -> None:
    """A request that waits gets NoAnswer, a tail ends."""
    inn = Innkeeper.connect(house.redis_url)
    await inn.open()
    room = inn.room("web/z")
    heard: list[Output] = []

    async def listen() -> None:
        async for output in room.tail():
            heard.append(output)  # noqa: PERF401 - it ends only with the connection

    listening = asyncio.create_task(listen())
    asking = asyncio.create_task(room.request("GET", "/text?s=2"))
    await until(lambda: house.redis.exists("inn:{web/z}:inbox"), "it is asked")
    await inn.close()
    with pytest.raises(NoAnswer, match="closed"):
        await asking
    await asyncio.wait_for(listening, 5)


async def test_a_cut_history_is_told(house: House, inn: Innkeeper) -> None:
    """What the room is said to have shown cannot be read: a tail says resync."""
    room = inn.room("web/h")
    await room.request("POST", "/count")
    async with room.tail() as outputs:
        await house.redis.hset("inn:{web/h}:meta", "last", "900-7")
        first = await outputs.next(timeout_s=5)
        assert first is not None
        assert (first.kind, first.id) == ("resync", "900-7")


@pytest.mark.timeout(120)
@pytest.mark.long
async def test_across_a_cluster(tmp_path: Path) -> None:
    """Posts, requests, tails and reads of rooms on three primaries."""
    async with (
        Cluster() as cluster,
        House(tmp_path, url=cluster.url, target=WEB) as house,
        Innkeeper.connect(house.redis_url) as inn,
    ):
        names = [f"web/c{n}" for n in range(9)]
        assert len({(await cluster.node_of(name)).port for name in names}) == 3
        for name in names:
            room = inn.room(name)
            async with room.tail() as outputs:
                answers = await asyncio.gather(*(room.request("POST", "/count") for _ in range(10)))
                assert sorted(answer.json()["count"] for answer in answers) == list(range(1, 11))
                assert (await outputs.__anext__()).json() == {"count": 1}
            assert await room.state() == {"count": 10}
            await room.destroy()
            assert await room.state() == {}
