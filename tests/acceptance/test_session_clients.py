"""Both clients of innkeeper.v1 against real houses: whatever dies, nothing is lost, doubled or reordered."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from chaos.proxy import Proxy
from harness import session_rooms
from harness.bots import Bot, NodeBot, bot
from harness.house import House, until
from innkeeper.client import connect
from innkeeper.client import room as room_module
from innkeeper.errors import RoomClosed

pytestmark = pytest.mark.long

LANGUAGES = ["python", "js"]


class Stage:
    """A house, and the way of the clients to it: a proxy that the test leads to one edge or the other."""

    def __init__(self, house: House, proxy: Proxy) -> None:
        self.house = house
        self.proxy = proxy
        self.edges = list(house.edges)
        self.edge = 0

    def url(self, room: str) -> str:
        """Return a room's address."""
        return f"ws://127.0.0.1:{self.proxy.port}/parties/{room}"

    def turn(self) -> None:
        """Lead new connections to the other edge."""
        self.edge = 1 - self.edge
        self.proxy.redis_port = self.edges[self.edge].facts["port"]

    def block(self) -> None:
        """Lead new connections nowhere."""
        self.proxy.redis_port = 9

    def unblock(self) -> None:
        """Lead them to an edge again."""
        self.proxy.redis_port = self.edges[self.edge].facts["port"]

    async def state(self, room: str, key: str) -> Any:
        """Return a value of a room's stored state."""
        stored = await self.house.redis.hget(f"inn:{{{room}}}:state", key)
        return None if stored is None else orjson.loads(stored)

    async def notes(self, room: str, name: str) -> list[str]:
        """Return what a diary noted of one member."""
        return [what for what, who in await self.state(room, "notes") or [] if who == name]

    async def leaves(self, room: str, name: str, *, timeout_s: float = 15) -> None:
        """Wait until a diary noted that a member left."""

        async def is_gone() -> bool:
            return "left" in await self.notes(room, name)

        await until(is_gone, f"{name} has left", timeout_s=timeout_s)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Two edges, two workers, and the way to them."""
    async with House(tmp_path, edges=2, workers=2, target=session_rooms.__file__) as house:
        proxy = Proxy(house.edges[0].facts["port"], seed=1)
        await proxy.start()
        yield Stage(house, proxy)
        await proxy.close()


async def _judge(bots: list[Bot]) -> None:
    """All was applied, and every bot got every number once, in one order, which is each sender's own, too."""
    total = sum(one.said for one in bots)
    for one in bots:
        await one.is_told(list(range(one.said)))
    for one in bots:
        await one.gets(lambda story: len(story) >= total, f"all {total} numbers")
    stories = [one.story for one in bots]
    for one, story in zip(bots, stories, strict=True):
        assert [n for n, _, _ in story] == list(range(1, total + 1)), one.name
        assert story == stories[0]
        assert [i for _, name, i in story if name == one.name] == list(range(one.said))
        assert one.lost == {}
        assert one.failed == []
        assert one.accepted == one.applied == list(range(one.said))
        odd = [n for n, (kind, _) in enumerate(one.seen) if kind in ("resync", "close", "error")]
        assert odd == [], (one.name, [one.seen[max(0, n - 4) : n + 2] for n in odd])


@asynccontextmanager
async def _talking(stage: Stage, language: str) -> AsyncIterator[tuple[str, list[Bot]]]:
    """Let two bots of a language talk while the body does harm; then judge what they saw, and that they left once."""
    room = f"diary/{language}"
    async with AsyncExitStack() as stack:
        bots = [await stack.enter_async_context(bot(language, stage.url(room), name)) for name in ("ann", "bob")]
        talking = asyncio.create_task(_talk(bots, 150))
        await asyncio.sleep(0.6)
        yield room, bots
        await talking
        await _judge(bots)
    for name in ("ann", "bob"):
        await stage.leaves(room, name)
        notes = await stage.notes(room, name)
        assert notes.count("came") == notes.count("left") == 1
        assert notes[-1] == "left"


async def _talk(bots: list[Bot], count: int) -> None:
    """Let every bot say something now and then."""
    for _ in range(count):
        for one in bots:
            one.say()
        await asyncio.sleep(random.uniform(0, 0.02))


@asynccontextmanager
async def _frozen(stage: Stage) -> AsyncIterator[None]:
    """Stop the edge of the moment, lead new connections to the other, and wake it in the end."""
    frozen = stage.edges[stage.edge]
    frozen.signal(signal.SIGSTOP)
    stage.turn()
    yield
    frozen.signal(signal.SIGCONT)


async def _cut(stage: Stage, bots: list[Bot]) -> None:
    """Cut every connection, and wait until all are back: who closes while away leaves only after the grace."""
    opens = [one.count("open") for one in bots]
    stage.proxy.cut()
    for one, count in zip(bots, opens, strict=True):
        await one.sees("open", count + 1)


@pytest.mark.parametrize("language", [*LANGUAGES, "ws"])
async def test_edge_kill(stage: Stage, language: str) -> None:
    """The edge dies with both sockets; both go on at the other, and no leave is seen."""
    async with _talking(stage, language) as (_, bots):
        stage.edges[stage.edge].signal(signal.SIGKILL)
        stage.turn()
    assert all(one.count("open") == 2 for one in bots)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_cut_connections(stage: Stage, language: str) -> None:
    """Connections are cut again and again, and lead to either edge afterwards."""
    async with _talking(stage, language) as (_, bots):
        for _ in range(6):
            stage.turn()
            await _cut(stage, bots)
    assert all(one.count("open") == 7 for one in bots)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_worker_kill(stage: Stage, language: str) -> None:
    """The room's owner dies: no socket notices."""
    async with _talking(stage, language) as (room, bots):
        (await stage.house.owner_of(room)).signal(signal.SIGKILL)
    assert all(one.count("down") == 0 for one in bots)
    assert await stage.notes(room, "ann") == ["came", "left"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_edge_and_owner_die_together(stage: Stage, language: str) -> None:
    """Both at one moment, and then the connections to their successors."""
    async with _talking(stage, language) as (room, bots):
        (await stage.house.owner_of(room)).signal(signal.SIGKILL)
        stage.edges[stage.edge].signal(signal.SIGKILL)
        stage.turn()
        await stage.house.add_worker()
        await _cut(stage, bots)


async def test_python_frozen_edge(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge that is stopped answers no pings: the client goes to the other; woken up, the edge takes nothing back."""
    monkeypatch.setattr(room_module, "PING_S", 1.0)
    async with _talking(stage, "python") as (_, bots), _frozen(stage):
        for one in bots:
            await one.sees("open", 2)


async def test_js_frozen_edge(stage: Stage) -> None:
    """A page's sign (online, a tab looked at again) gives the dead socket up; what stood in it is not applied twice."""
    async with _talking(stage, "js") as (_, bots), _frozen(stage):
        await asyncio.sleep(0.3)  # what is written now stands in the frozen edge's buffers
        for one in bots:
            one.reconnect()
        for one in bots:
            await one.sees("open", 2)


@pytest.mark.chaos
@pytest.mark.timeout(150)
async def test_js_finds_a_frozen_edge_by_itself(stage: Stage) -> None:
    """By the acknowledgements that do not come, before its grace is over."""
    async with _talking(stage, "js") as (_, bots), _frozen(stage):
        for one in bots:
            await one.sees("open", 2, timeout_s=60)


@pytest.mark.chaos
@pytest.mark.timeout(120)
async def test_an_idle_page_finds_a_frozen_edge_by_itself(stage: Stage) -> None:
    """By the sign of life that does not come, before its grace is over: then it is shown what it missed."""
    room = "diary/idle"
    direct = stage.house.url(room, edge=1).partition("?")[0]
    async with bot("js", stage.url(room), "ann") as ann, bot("python", direct, "bob") as bob, _frozen(stage):
        for _ in range(40):
            bob.say()
            await asyncio.sleep(0.1)
        await ann.sees("open", 2, timeout_s=60)
        await bob.is_told(list(range(40)))
        await ann.gets(lambda story: len(story) >= 40, "all 40 numbers")
        assert ann.story == bob.story
        assert ann.count("resync") == 0
        assert (await stage.notes(room, "ann")).count("left") == 0


@pytest.mark.chaos
@pytest.mark.timeout(90)
async def test_js_wakes_up_from_sleep(stage: Stage) -> None:
    """A laptop closed for 17 s finds its timers late and resumes at once, with everything it missed."""
    async with _talking(stage, "js") as (_, bots):
        sleeper = bots[0]
        assert isinstance(sleeper, NodeBot)
        sleeper.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(17)
        sleeper.process.send_signal(signal.SIGCONT)
        await sleeper.sees("open", 2, timeout_s=10)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_too_long_away(stage: Stage, language: str) -> None:
    """After its grace a member has left; the client comes as a new one, and nothing is silent about it."""
    room = f"hasty/{language}"
    async with bot(language, stage.url(room), "ann") as ann, bot(language, stage.url(room), "bob") as bob:
        await ann.is_told([ann.say(), ann.say()])
        stage.block()
        stage.proxy.cut()
        await ann.sees("down")
        lost = ann.say()
        await stage.leaves(room, "ann")
        stage.unblock()
        await ann.sees("resync")
        await until(lambda: ann.lost == {lost: "no"}, "the message is told as not applied", seen=ann.lost)
        await bob.sees("resync")
        assert ann.seen[-1][0] == "resync"
        await ann.is_told([ann.say()])
        assert await stage.state(room, "n") == 3
        assert await stage.notes(room, "ann") == ["came", "dropped", "left", "came"]
        await until(lambda: {"welcome": 2} in ann.got, "the new session's snapshot", seen=ann.got)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_log_that_was_trimmed_is_a_resync(stage: Stage, language: str) -> None:
    """Away while the outlog was lost, a client is told so and gets the snapshot; what it sent is applied once."""
    room = f"diary/trim-{language}"
    direct = stage.house.url(room).partition("?")[0]
    async with bot(language, stage.url(room), "ann") as ann, bot("python", direct, "bob") as bob:
        await ann.is_told([ann.say()])
        stage.block()
        stage.proxy.cut()
        await ann.sees("down")
        said = [ann.say() for _ in range(3)]
        await bob.is_told([bob.say() for _ in range(5)])
        await stage.house.redis.delete(f"inn:{{{room}}}:outlog")
        stage.unblock()
        await ann.sees("resync")
        await ann.is_told(said)
        await until(lambda: {"n": 9, "from": "ann", "i": 3} in ann.got, "the last number", seen=ann.got)
        numbers = [value["n"] for value in ann.got if "n" in value]
        snapshot = next(value["snapshot"] for value in ann.got if "snapshot" in value)
        assert numbers == [1, *range(snapshot + 1, 10)]
        assert ann.got.index({"snapshot": snapshot}) == 2  # after the welcome and the first number
        assert await stage.state(room, "n") == 9
        notes = await stage.notes(room, "ann")
        assert notes[0] == "came"
        assert "left" not in notes


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_failed_handler_breaks_applied_alone(stage: Stage, language: str) -> None:
    """The message was accepted and is in no state; the next ones are handled."""
    room = f"diary/fail-{language}"
    async with bot(language, stage.url(room), "ann") as ann:
        broken = ann.send({"no": "i"})
        await ann.is_told([ann.say()])
        await ann.sees("error")
        assert ann.failed == [broken]
        assert broken in ann.accepted
        assert ann.lost == {}


@pytest.mark.parametrize(
    ("room", "why"), [("nosuch/a", "HTTP 404 unknown_kind: .*kind"), ("diary/a b", "HTTP 400 invalid_room: .*name")]
)
async def test_python_is_told_why_a_handshake_is_refused(stage: Stage, room: str, why: str) -> None:
    """The edge's own words are in the error."""
    with pytest.raises(RoomClosed, match=why):
        await connect(stage.url(room)).__aenter__()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("last", ["close me", "end"])
async def test_messages_that_close_their_sender(stage: Stage, language: str, last: str) -> None:
    """The commit that closes the socket has applied the message, and its sender hears of both."""
    for n in range(6):
        async with bot(language, stage.url(f"doors/{language}-{n}"), "ann") as ann:
            ids = [ann.send(word) for word in ("hello", last)]
            await ann.sees("close")
            await ann.is_told(ids)
            assert (ann.lost, ann.failed) == ({}, [])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size_bytes", [101, 1000])
async def test_messages_that_are_too_large(stage: Stage, language: str, size_bytes: int) -> None:
    """They end the connection, and were certainly not applied, nor was what came after them."""
    async with bot(language, stage.url(f"doors/big-{language}"), "ann") as ann:
        await ann.is_told([ann.send("hello")])
        ids = [ann.send("x" * (size_bytes - 2)), ann.send("more")]
        await ann.sees("close")
        await until(lambda: len(ann.lost) == 2, "both are lost", seen=ann.lost)
        assert ann.lost == dict.fromkeys(ids, "no")
        assert await stage.state(f"doors/big-{language}", "heard") == 1


@pytest.mark.parametrize("language", [*LANGUAGES, "ws"])
async def test_bytes_and_raw_rooms(stage: Stage, language: str) -> None:
    """Bytes are bytes in both kinds of rooms, text is text in a raw one, also such that looks like a control."""
    data = bytes(range(256)) * 200
    async with bot(language, stage.url("diary/bytes"), "ann") as ann:
        ann.send(data)
        await until(lambda: data in ann.got, "the bytes are back")
    async with bot(language, stage.url(f"rawdiary/{language}"), "ann", "raw") as ann:
        for value in ("!{}", "1 2", "", data):
            ann.send(value)
        await until(lambda: ann.got == ["!{}", "1 2", "", data], "all is back", seen=ann.got[:3])


@pytest.mark.parametrize("language", LANGUAGES)
async def test_leaving_is_immediate(stage: Stage, language: str) -> None:
    """Who closes has left without a grace."""
    room = f"diary/leave-{language}"
    async with bot(language, stage.url(room), "ann") as ann:
        await ann.is_told([ann.say()])
        ann.close()
        await stage.leaves(room, "ann", timeout_s=5)
        assert await stage.notes(room, "ann") == ["came", "left"]


@pytest.mark.parametrize(
    ("count", "seconds"), [(10, 8), pytest.param(40, 90, marks=[pytest.mark.chaos, pytest.mark.timeout(300)])]
)
async def test_storm(stage: Stage, count: int, seconds: float) -> None:
    """Members of two rooms talk while edges and owners are killed and stopped, and connections cut."""
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    rooms: dict[str, list[Bot]] = {"diary/one": [], "diary/two": []}
    done: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        for number in range(count):
            room = list(rooms)[number % 2]
            rooms[room].append(await stack.enter_async_context(bot("python", stage.url(room), f"bot{number}")))
        everybody = [one for members in rooms.values() for one in members]
        talking = asyncio.create_task(_chat(everybody, seconds, chance))
        plan: list[str] = []
        while not talking.done():
            if not plan:
                plan = ["cut", *chance.sample(["edge", "owner", "stop", "reconnect"], 4)]
            harm = plan.pop(0)
            done[harm] += 1
            await _harm(stage, harm, chance.choice(list(rooms)), everybody, chance)
            await asyncio.sleep(chance.uniform(0.2, 1.0))
        await talking
        said, opens = sum(one.said for one in everybody), sum(one.count("open") for one in everybody)
        print(f"seed {seed}: {dict(done)}, {said} messages of {count} members, {opens} connections")
        for members in rooms.values():
            await _judge(members)
        assert opens > count


async def _chat(bots: list[Bot], seconds: float, chance: random.Random) -> None:
    end_s = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end_s:
        chance.choice(bots).say()
        await asyncio.sleep(chance.expovariate(200))


async def _harm(stage: Stage, harm: str, room: str, bots: list[Bot], chance: random.Random) -> None:
    edge = stage.edges[stage.edge]
    match harm:
        case "edge":
            edge.signal(signal.SIGKILL)
            stage.turn()
            stage.edges[1 - stage.edge] = await stage.house.add_edge()
        case "owner":
            (await stage.house.owner_of(room)).signal(signal.SIGKILL)
            await stage.house.add_worker()
        case "stop":
            edge.signal(signal.SIGSTOP)
            await asyncio.sleep(chance.uniform(0.1, 4))
            edge.signal(signal.SIGCONT)
        case "cut":
            stage.turn()
            stage.proxy.cut()
        case _:
            chance.choice(bots).reconnect()


@pytest.mark.parametrize("language", LANGUAGES)
async def test_what_a_rollback_took_is_sent_again(stage: Stage, language: str) -> None:
    """Redis goes back to before messages that were accepted and applied: they are applied anew, and this is told."""
    room = f"diary/back-{language}"
    async with bot(language, stage.url(room), "ann") as ann:
        await ann.is_told([ann.say() for _ in range(5)])
        kept = await _dump(stage, room)
        await ann.is_told([ann.say() for _ in range(5)])
        await _restore(stage, kept)
        await ann.sees("resync")
        await ann.is_told([ann.say()])
        await ann.gets(lambda story: story[-1:] == [(11, "ann", 10)], "the last number")
        assert await stage.state(room, "n") == 11
        snapshot = ann.got.index({"snapshot": 5})
        again = [(value["n"], value["i"]) for value in ann.got[snapshot + 1 :]]
        assert again == [(n, n - 1) for n in range(6, 12)]
        assert ann.lost == {}
        assert await stage.notes(room, "ann") == ["came"]


async def _dump(stage: Stage, room: str) -> dict[bytes, bytes]:
    """Return all that is stored of a room, but for its lock, which has no history."""
    redis = stage.house.redis
    keys = [key for key in await redis.keys(f"inn:{{{room}}}:*") if not key.endswith(b":lock")]
    return {key: await redis.dump(key) for key in keys}


async def _restore(stage: Stage, kept: dict[bytes, bytes]) -> None:
    """Take a room back to what was stored, at one moment."""
    async with stage.house.redis.pipeline(transaction=True) as pipe:
        for key, data in kept.items():
            pipe.restore(key, 0, data, replace=True)
        await pipe.execute()
