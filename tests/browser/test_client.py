"""The JavaScript client as edges serve it, in real headless Chromium. Run it with ``make browser``."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from chaos.proxy import Proxy
from harness import session_rooms
from harness.bots import bot
from harness.browser import Browser, Tab, chromium
from harness.house import House, until

pytestmark = pytest.mark.browser

CONNECT = """(async () => {
  const { connect } = await import("/innkeeper.js");
  window.room = connect("/parties/%s", %s);
  window.got = [];
  window.seen = [];
  room.addEventListener("message", (event) => got.push(event.data));
  for (const type of ["open", "resync", "down", "error", "close"]) room.addEventListener(type, () => seen.push(type));
  await new Promise((yes) => room.addEventListener("open", yes, { once: true }));
})()"""


class Stage:
    """A house behind one address, and a browser."""

    def __init__(self, house: House, proxy: Proxy, browser: Browser) -> None:
        self.house = house
        self.proxy = proxy
        self.browser = browser

    @property
    def url(self) -> str:
        """A page of the edge's own: modules and sockets are of the same origin."""
        return f"http://127.0.0.1:{self.proxy.port}/healthz"

    async def enter(self, room: str, **options: Any) -> Tab:
        """Open a tab whose page connects to a room."""
        tab = await self.browser.open(self.url)
        await self.connect(tab, room, **options)
        return tab

    async def connect(self, tab: Tab, room: str, **options: Any) -> None:
        """Let a tab's page connect, once it is loaded."""
        await until(
            lambda: tab.run("location.pathname === '/healthz' && document.readyState === 'complete'"), "the page"
        )
        await tab.run(CONNECT % (room, orjson.dumps(options).decode()))

    async def notes(self, room: str) -> list[list[str]]:
        """Return what a diary noted."""
        stored = await self.house.redis.hget(f"inn:{{{room}}}:state", "notes")
        notes: list[list[str]] = orjson.loads(stored or b"[]")
        return notes


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Two edges behind one address, two workers, and Chromium."""
    async with House(tmp_path, edges=2, workers=2, target=session_rooms.__file__) as house:
        proxy = Proxy(house.edges[0].facts["port"], seed=1)
        await proxy.start()
        async with chromium(tmp_path) as browser:
            yield Stage(house, proxy, browser)
        await proxy.close()


async def test_a_page_outlives_its_edge_and_the_owner(stage: Stage) -> None:
    """Two tabs talk while the edge and the room's owner are killed: everything once, in order, in both."""
    room = "diary/browser"
    ann, bob = [await stage.enter(room, query={"name": name}) for name in ("ann", "bob")]
    for number in range(100):
        for tab in (ann, bob):
            await tab.run(f"(window.sent ??= []).push(room.send({{ i: {number} }})); 0")
        if number == 40:
            (await stage.house.owner_of(room)).signal(signal.SIGKILL)
            stage.house.edges[0].signal(signal.SIGKILL)
            stage.proxy.redis_port = stage.house.edges[1].facts["port"]
    for tab in (ann, bob):
        await tab.run("Promise.all(sent.flatMap((one) => [one, one.applied])).then(() => 0)")
    stories = []
    for tab in (ann, bob):
        await _shows(tab, "got.filter((value) => value.n).length === 200")
        stories.append(await tab.run("got.filter((value) => value.n)"))
        assert await tab.run("seen") == ["open", "down", "open"]
    assert stories[0] == stories[1]
    assert [value["n"] for value in stories[0]] == list(range(1, 201))
    for name in ("ann", "bob"):
        assert [value["i"] for value in stories[0] if value["from"] == name] == list(range(100))


@pytest.mark.parametrize("way", ["open", "dead"])
async def test_a_laptop_that_slept_goes_on(stage: Stage, way: str) -> None:
    """While it is closed its sockets stand still, or die unheard; awake, the page has and has sent all of it once."""
    room = "diary/sleep"
    tab = await stage.enter(room, query={"name": "ann"})
    url = stage.house.url(room, edge=1).partition("?")[0]
    async with bot("python", url, "bob") as bob:
        await tab.run("window.sent = []; for (let i = 0; i < 50; i++) sent.push(room.send({ i })); 0")
        stage.browser.sleep()
        if way == "dead":
            stage.proxy.hold_up = stage.proxy.hold_down = True
        for number in range(130):
            assert bob.say() == number
            await asyncio.sleep(0.1)
        if way == "dead":
            stage.proxy.cut()
            stage.proxy.heal()
        stage.browser.wake()
        await tab.run("for (let i = 50; i < 100; i++) sent.push(room.send({ i })); 0")
        await tab.run("Promise.all(sent.flatMap((one) => [one, one.applied])).then(() => 0)")
        await bob.is_told(list(range(130)))
        await _shows(tab, "got.filter((value) => value.n).length === 230")
        story = await tab.run("got.filter((value) => value.n).map((value) => [value.n, value.from, value.i])")
        await bob.gets(lambda told: len(told) == 230, "all 230 numbers")
        assert [tuple(one) for one in story] == bob.story
        assert [n for n, _, _ in story] == list(range(1, 231))
        for name, count in (("ann", 100), ("bob", 130)):
            assert [i for _, who, i in story if who == name] == list(range(count))
        assert await tab.run("seen") == ["open", "down", "open"]
        assert await stage.notes(room) == [["came", "ann"], ["came", "bob"], ["dropped", "ann"], ["resumed", "ann"]]


async def test_a_closed_tab_has_left(stage: Stage) -> None:
    """Without storage the page says goodbye: nobody waits for the end of its grace."""
    room = "diary/tab"
    tab = await stage.enter(room, query={"name": "ann"})
    await tab.call("Page.close")
    await until(lambda: _is_last(stage, room, "left"), "ann has left", timeout_s=10)
    assert await stage.notes(room) == [["came", "ann"], ["left", "ann"]]


async def test_a_reloaded_page_takes_its_session_up(stage: Stage) -> None:
    """With storage the member stays the same, gets its snapshot, and goes on."""
    room = "diary/reload"
    tab = await stage.enter(room, query={"name": "ann"}, storage="inn")
    first = await tab.run("room.connId")
    await tab.run("room.send({ i: 0 }).applied")
    await tab.call("Page.reload")
    await until(lambda: tab.run("typeof room === 'undefined'"), "the page is new")
    await stage.connect(tab, room, query={"name": "ann"}, storage="inn")
    await until(lambda: tab.run("got.length"), "the snapshot")
    assert await tab.run("got") == [{"snapshot": 1}]
    assert await tab.run("seen") == ["open", "resync"]
    assert await tab.run("room.connId") == first
    await tab.run("room.send({ i: 1 }).applied")
    await until(lambda: tab.run("got.length === 2"), "the next number")
    assert await tab.run("got[1]") == {"n": 2, "from": "ann", "i": 1}
    assert [what for what, _ in await stage.notes(room)] in (["came", "dropped", "resumed"], ["came", "resumed"])


async def test_a_page_that_is_online_again_comes_back_at_once(stage: Stage) -> None:
    """Offline as the browser means it: what was sent meanwhile is applied once."""
    room = "diary/offline"
    tab = await stage.enter(room, query={"name": "ann"}, backoff={"firstMs": 60000, "mostMs": 60000})
    stage.proxy.redis_port = 9
    stage.proxy.cut()
    await until(lambda: tab.run("room.state === 'down'"), "it is down")
    await tab.run("window.sent = room.send({ i: 0 }); 0")
    stage.proxy.redis_port = stage.house.edges[1].facts["port"]
    await tab.run("dispatchEvent(new Event('online'))")
    await tab.run("sent.applied")
    assert await tab.run("seen") == ["open", "down", "open"]


async def _shows(tab: Tab, condition: str) -> None:
    await until(lambda: tab.run(condition), condition)


async def _is_last(stage: Stage, room: str, what: str) -> bool:
    notes = await stage.notes(room)
    return bool(notes) and notes[-1][0] == what
