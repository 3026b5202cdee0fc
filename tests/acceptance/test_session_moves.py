"""conn.move of clients of innkeeper.v1: each room has its messages once and in order, whatever dies on the way."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import orjson
import pytest

from chaos.proxy import Proxy
from harness import moving
from harness.bots import Bot, bot
from harness.house import House, until
from harness.v1 import V1Socket

pytestmark = pytest.mark.long

LANGUAGES = ["python", "js"]


class Stage:
    """A house, and the way to it: a proxy that the test leads to one edge or the other."""

    def __init__(self, house: House, proxy: Proxy) -> None:
        self.house, self.proxy = house, proxy

    def url(self, room: str) -> str:
        """Return a room's address."""
        return f"ws://127.0.0.1:{self.proxy.port}/parties/{room}"

    async def lines(self, room: str) -> list[str]:
        """Return what a room has noted."""
        stored = await self.house.redis.hget(f"inn:{{{room}}}:state", "lines")
        return list(orjson.loads(stored)) if stored else []

    async def noted(self, rooms: list[str]) -> list[int]:
        """Return the numbers that the rooms have noted, one after the other."""
        return [int(line.split()[1]) for room in rooms for line in await self.lines(room) if line[0] == "c"]

    async def is_in(self, room: str, count: int) -> bool:
        """Return whether a room has so many members."""
        return bool(await self.house.redis.hlen(f"inn:{{{room}}}:members") == count)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Two edges, two workers, and the way to them."""
    async with House(tmp_path, edges=2, workers=2, target=moving.__file__) as house:
        proxy = Proxy(house.edges[0].facts["port"], seed=1)
        await proxy.start()
        yield Stage(house, proxy)
        await proxy.close()


def rooms_of(one: Bot) -> list[str]:
    """Return the rooms that a bot was told it goes to, in order."""
    return [event["room"] if isinstance(event, dict) else event.room for kind, event in one.seen if kind == "moved"]


async def _tour(one: Bot, rooms: list[str], each: int) -> None:
    """Talk without a break, and go from room to room meanwhile."""
    for n in range(each * (len(rooms) + 1)):
        one.send({"n": n})
        if n % each == each - 1 and n // each < len(rooms):
            one.send({"go": rooms[n // each]})
        await asyncio.sleep(0.004)
    await one.sees("moved", len(rooms))
    assert rooms_of(one) == rooms


async def _judge(one: Bot, stage: Stage, rooms: list[str], total: int) -> None:
    """All was applied, each in one room only, and in each room in the order in which it was sent."""
    await one.is_told(list(range(one.said)))
    assert await stage.noted(rooms) == list(range(total))
    assert one.lost == {}
    assert one.failed == []
    assert one.accepted == one.applied == list(range(one.said))
    assert one.count("resync") == one.count("close") == one.count("error") == 0, one.seen


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_session_moves_on_one_socket(stage: Stage, language: str) -> None:
    """From room to room in mid-sentence: nothing is lost, doubled or reordered, and no socket is opened for it."""
    rooms = [f"hall/{n}" for n in range(4)]
    async with bot(language, stage.url(rooms[0]), "ann") as ann:
        await _tour(ann, rooms[1:], 60)
        await _judge(ann, stage, rooms, 240)
        assert ann.count("down") == 0
        assert ann.count("open") == 4
        await until(partial(stage.is_in, rooms[3], 1), "it is in the last room")
    await until(partial(stage.is_in, rooms[3], 0), "it has left")
    for room in rooms:
        signs = [line[0] for line in await stage.lines(room)]
        assert (signs[0], signs[-1], signs.count("+"), signs.count("-")) == ("+", "-", 1, 1)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_session_moves_while_edges_die(stage: Stage, language: str) -> None:
    """The edge is killed and started anew in the middle of moves, and a worker is killed: the same holds."""
    async with AsyncExitStack() as stack:
        bots = {
            name: await stack.enter_async_context(bot(language, stage.url(f"hall/{name}0"), name)) for name in "abcd"
        }
        tours = [
            asyncio.create_task(_tour(one, [f"hall/{name}{n}" for n in range(1, 6)], 60)) for name, one in bots.items()
        ]
        await asyncio.sleep(0.25)
        stage.proxy.redis_port = stage.house.edges[1].facts["port"]
        stage.house.edges[0].signal(signal.SIGKILL)
        await asyncio.sleep(0.5)
        stage.house.workers[0].signal(signal.SIGKILL)
        await asyncio.gather(*tours)
        for name, one in bots.items():
            await _judge(one, stage, [f"hall/{name}{n}" for n in range(6)], 360)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_session_that_is_away_moves_when_it_is_back(stage: Stage, language: str) -> None:
    """A member without a socket stays until it is back; then it goes to the other room with what it had to say."""
    raw = await stage.house.join("hall/a")
    async with bot(language, stage.url("hall/a"), "ann") as ann:
        await until(partial(stage.is_in, "hall/a", 2), "both are in")
        stage.proxy.redis_port = 9
        ann.reconnect()
        await ann.sees("down")
        ann.send({"n": 0})
        await raw.send({"take": "hall/b"})
        await raw.send({"n": 7})
        await raw.expect(lambda f: f == {"at": "a", "n": 7}, "the room went on")
        assert await stage.is_in("hall/a", 2)
        stage.proxy.redis_port = stage.house.edges[1].facts["port"]
        await ann.sees("moved")
        await ann.is_told([0])
        assert rooms_of(ann) == ["hall/b"]
        assert await stage.noted(["hall/b"]) == [0]
        await until(partial(stage.is_in, "hall/a", 1), "it has left")
        ann.reconnect()
        await ann.sees("open", 3)
        ann.send({"n": 1})
        await ann.is_told([0, 1])
        assert await stage.noted(["hall/b"]) == [0, 1]


async def test_a_thousand_cuts(stage: Stage) -> None:
    """Forty members go to and fro while their edge dies in the very middle of it: each says all it has to say once."""
    async with AsyncExitStack() as stack:
        bots = [await stack.enter_async_context(bot("python", stage.url(f"hall/m{n}-0"), f"m{n}")) for n in range(40)]

        async def tour(one: Bot) -> None:
            for n in range(60):
                one.send({"n": n})
                if n % 10 == 9 and n < 50:
                    one.send({"go": f"hall/{one.name}-{n // 10 + 1}"})
                    await one.sees("moved", n // 10 + 1)

        tours = [asyncio.create_task(tour(one)) for one in bots]
        await asyncio.sleep(random.uniform(0.02, 0.4))
        stage.proxy.redis_port = stage.house.edges[1].facts["port"]
        stage.house.edges[0].signal(signal.SIGKILL)
        await asyncio.gather(*tours)
        for one in bots:
            await _judge(one, stage, [f"hall/{one.name}-{n}" for n in range(6)], 60)


SECRETS = [f"{n:032x}" for n in range(1, 8)]


async def _v1(
    stage: Stage, secret: str, room: str = "hall/a", *, generation: int = 1, last: str | None = None
) -> V1Socket:
    socket = await V1Socket.open(stage.url(room))
    await socket.hello(secret, generation, last)
    return socket


async def _in(stage: Stage, secret: str, room: str = "hall/a") -> V1Socket:
    socket = await _v1(stage, secret, room)
    await socket.control("hello")
    return socket


async def test_a_client_that_never_heard_is_told_again(stage: Stage) -> None:
    """It asks its old room, and is told where it went and what stayed there, each time it asks."""
    socket = await _in(stage, SECRETS[0])
    for n in range(1, 4):
        await socket.send(n, {"n": n})
    await socket.send(4, {"go": "hall/b"})
    told = {"room": "hall/b", "accepted": 4}
    assert await socket.control("moved") == told
    assert socket.controls[-2]["applied"] == 4
    await socket.abort()
    for generation, last in ((2, "0-0"), (3, None)):
        again = await _v1(stage, SECRETS[0], generation=generation, last=last)
        assert await again.control("moved") == told
        assert len(again.frames) == 1
        await again.abort()
    last_one = await _v1(stage, SECRETS[0], generation=4, last="0-0")
    await last_one.control("moved")
    await last_one.hello(SECRETS[1], 1)
    assert (await last_one.control("hello"))["accepted"] == 0
    await last_one.send(1, {"n": 9})
    await last_one.output({"at": "b", "n": 9})
    await last_one.close()


async def test_what_was_on_its_way_is_not_taken(stage: Stage) -> None:
    """Frames of the old numbering are passed over until the hello; then numbers begin at 1."""
    socket = await _in(stage, SECRETS[0])
    await socket.send(1, {"go": "hall/b"})
    await socket.control("moved")
    await socket.send(2, {"n": 2})
    await socket.send(3, b"bytes")
    await socket.hello(SECRETS[1], 1)
    await socket.send(1, {"n": 11})
    await socket.output({"at": "b", "n": 11})
    assert await stage.noted(["hall/a", "hall/b"]) == [11]
    assert [c for c in socket.controls if "ack" in c][-1]["ack"] == 1
    await socket.close()


async def test_it_moves_to_where_it_is(stage: Stage) -> None:
    """A move to the same room is a leave and a join."""
    socket = await _in(stage, SECRETS[0])
    await socket.send(1, {"go": "hall/a"})
    await socket.control("moved")
    await socket.hello(SECRETS[1], 1)
    await until(lambda: sum("hello" in c for c in socket.controls) == 2, "the second answer", seen=socket.frames)
    await until(partial(stage.is_in, "hall/a", 1), "one member")
    assert [line[0] for line in await stage.lines("hall/a")] == ["+", "-", "+"]
    await socket.close()


async def test_moves_of_sessions_that_cannot_end_well(stage: Stage) -> None:
    """No hello: 1013. Another word: 4400. No such kind: 1013. A full room: 4503. The smaller limit holds there."""
    silent, odd, lost, one, two = [await _in(stage, secret) for secret in SECRETS[:5]]
    await silent.send(1, {"go": "hall/b"})
    await odd.send(1, {"go": "hall/b"})
    await odd.control("moved")
    await odd.say(hallo={})
    assert await odd.closed() == 4400
    await lost.send(1, {"go": "nosuch/room"})
    await lost.control("moved")
    await lost.hello("a" * 32, 1)
    assert await lost.closed() == 1013
    for socket, secret in ((one, "b" * 32), (two, "c" * 32)):
        await socket.send(1, {"go": "small/s"})
        await socket.control("moved")
        await socket.hello(secret, 1)
        if socket is one:
            await until(partial(stage.is_in, "small/s", 1), "it is in")
    assert await two.closed() == 4503
    await one.send(1, {"n": "x" * 200})
    assert await one.closed() == 1009
    assert await silent.closed() == 1013
    await until(partial(stage.is_in, "hall/a", 0), "all have left")
