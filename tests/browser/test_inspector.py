"""The inspector's page in real headless Chromium; pictures of it go to the test's folder. ``make browser``."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.browser import Tab, chromium
from harness.house import House, until

pytestmark = pytest.mark.browser
TARGET = str(Path(__file__).parents[1] / "harness" / "operated_rooms.py")
PASSWORD = "open sesame, please"  # noqa: S105 - of a test's own inspector
MARKUP = "<img src=x onerror='window.broken = 1'><b>bold</b>"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """An edge, two workers and an inspector."""
    async with House(tmp_path, edges=1, workers=2, target=TARGET) as running:
        await running.add_inspector(PASSWORD)
        yield running


@pytest.fixture
async def open_tab(tmp_path: Path, house: House) -> AsyncIterator[Any]:
    """Return what opens a tab on the inspector."""
    async with chromium(tmp_path) as browser:

        async def opened(fragment: str = "") -> Tab:
            tab: Tab = await browser.open("about:blank")
            await tab.call("Page.navigate", url=f"http://127.0.0.1:{house.inspectors[0].facts['port']}/{fragment}")
            return tab

        yield opened


async def enter(open_tab: Any, hash_: str = "#/") -> Tab:
    """Open a tab with the password in its address, as `innkeeper dev` prints it."""
    tab: Tab = await open_tab(f"#password={PASSWORD.replace(' ', '%20')}")
    await tab.shows("document.querySelector('#figures b') !== null")
    if hash_ != "#/":
        await tab.run(f"location.hash = '{hash_}'")
    return tab


async def text_of(tab: Tab, selector: str = "main") -> str:
    """Return what a part of the page shows."""
    return str(await tab.run(f"document.querySelector('{selector}').innerText"))


async def reads(tab: Tab, text: str, selector: str = "main") -> None:
    """Wait until a part of the page shows a text."""

    async def is_there() -> bool:
        return text in await text_of(tab, selector)

    await until(is_there, f"{selector} shows {text}")


async def click_button(tab: Tab, label: str, within: str = "main") -> None:
    """Click the first button with a label."""
    buttons = f"[...document.querySelectorAll('{within} button')]"
    await tab.shows(f"{buttons}.some((one) => one.innerText === '{label}')")
    await tab.run(f"{buttons}.find((one) => one.innerText === '{label}').click()")


async def test_signing_in_and_out(open_tab: Any) -> None:
    """By hand, after a wrong password; a reload keeps it, signing out ends it."""
    tab = await open_tab()
    await tab.shows("document.getElementById('login')?.open")
    for password, open_ in (("wrong password", "true"), (PASSWORD, "false")):
        await tab.run("password.value = ''; password.focus()")
        await tab.write(password)
        await tab.run("document.querySelector('#login button').click()")
        await tab.shows(f"login.open === {open_}")
        if open_ == "true":
            await reads(tab, "that is not the password", "#login")
    await tab.shows("document.querySelector('#figures b') !== null")
    await tab.run("window.before = true; location.reload()")
    await tab.shows("!window.before && document.querySelector('#figures b') !== null")
    await tab.run("document.getElementById('sign-out').click()")
    await tab.shows("document.getElementById('login')?.open")


async def test_the_password_leaves_the_address(open_tab: Any) -> None:
    """It stands in no history, and everything comes from the inspector itself."""
    tab = await enter(open_tab)
    assert await tab.run("location.hash") == "#/"
    entries = (await tab.call("Page.getNavigationHistory"))["entries"]
    assert not any("password" in entry["url"] for entry in entries)
    origins = await tab.run("performance.getEntriesByType('resource').map(({ name }) => new URL(name).origin)")
    assert set(origins) == {await tab.run("location.origin")}


async def test_the_list_by_keyboard(house: House, open_tab: Any) -> None:
    """Search, walk, open, come back; the stuck alone; another page."""
    for n in range(60):
        await house.join(f"desk/room-{n:02}", name="ann")
    await house.join("desk/lobby", name="bob")
    tab = await enter(open_tab)
    await reads(tab, "1\u201350 of 61")
    await tab.strike("n")
    await reads(tab, "51\u201361 of 61")
    await tab.strike("p")
    await reads(tab, "1\u201350 of 61")
    await tab.strike("/")
    assert await tab.run("document.activeElement.id") == "search"
    await tab.write("lob")
    await reads(tab, "1\u20131 of 1 (of 61)")
    await tab.press("Escape")
    await tab.strike("j")
    assert await tab.run("document.activeElement.innerText") == "desk/lobby"
    await asyncio.sleep(2.5)  # the list is renewed meanwhile
    assert await tab.run("document.activeElement.innerText") == "desk/lobby"
    await tab.run("document.activeElement.click()")
    await reads(tab, "bob")
    await tab.press("Escape")
    await reads(tab, "1\u20131 of 1 (of 61)")
    assert await tab.run("search.value") == "lob"
    await tab.strike("s")
    await reads(tab, "No room fits.")
    await tab.strike("?")
    await tab.shows("help.open")


async def test_a_room_is_live(house: House, open_tab: Any, tmp_path: Path) -> None:
    """State, members and outputs follow by themselves; what rooms hold is text, never markup."""
    ann = await house.join("desk/lobby", name="ann%20%3Ci%3E")
    tab = await enter(open_tab, "#/rooms/desk/lobby")
    await reads(tab, "ann <i>")
    await ann.send(orjson.dumps(MARKUP).decode())
    await reads(tab, "<b>bold</b>")
    await reads(tab, '"by": "ann <i>"')
    assert await tab.run("document.querySelector('main img, main b, main i') === null")
    assert await tab.run("window.broken === undefined")
    bob = await house.join("desk/lobby", name="bob")
    await reads(tab, "bob")
    await bob.abort()
    await until(lambda: _gone(tab, "bob"), "bob is gone from the page")
    await tab.look(tmp_path / "room.png", width=1280, height=1400)
    await tab.look(tmp_path / "room-dark.png", width=1280, height=1400, scheme="dark")


async def _gone(tab: Tab, text: str) -> bool:
    members = "[...document.querySelectorAll('.block')].find((one) => one.innerText.startsWith('Members')).innerText"
    return text not in await tab.run(members)


async def test_deeds(house: House, open_tab: Any) -> None:
    """Send, kick after a question, retry and drop; each says what came of it."""
    ann = await house.join("desk/acts", name="ann")
    await ann.expect(lambda f: "welcome" in f, "its welcome")
    await ann.send('"fail"')
    tab = await enter(open_tab, "#/rooms/desk/acts")
    await reads(tab, "RuntimeError")
    await tab.run("document.querySelector('details').open = true")
    await reads(tab, "Traceback")
    await asyncio.sleep(1.5)
    assert await tab.run("document.querySelector('details').open")  # renewing does not close it
    await tab.run("message.focus()")
    await tab.write('{"x": 1}')
    await click_button(tab, "Send")
    await ann.expect(lambda f: f == {"posted": {"x": 1}, "by": ""}, "the post")
    await reads(tab, "the message is accepted", "#said")
    await click_button(tab, "Retry")
    await reads(tab, "is tried again as event", "#said")
    await reads(tab, await until(lambda: _dead_again(house), "it has failed again"))
    await click_button(tab, "Drop")
    await click_button(tab, "No", "#confirm")
    assert await house.redis.xlen("inn:{desk/acts}:dead") == 1
    await click_button(tab, "Drop")
    await click_button(tab, "Delete", "#confirm")
    await reads(tab, "is deleted", "#said")
    assert await house.redis.xlen("inn:{desk/acts}:dead") == 0
    await click_button(tab, "Kick")
    await click_button(tab, "Kick", "#confirm")
    assert await ann.closed() == 4405
    await reads(tab, "nobody is in")


async def _dead_again(house: House) -> str:
    """Return the id of the second dead event, which is there alone."""
    entries = await house.redis.xrange("inn:{desk/acts}:dead")
    return str(entries[0][0].decode()) if len(entries) == 1 and int(entries[0][1][b"id"].split(b"-")[0]) > 2 else ""


async def test_who_is_stuck_and_why(house: House, open_tab: Any, tmp_path: Path) -> None:
    """From the first page: the figure, the reason in the list, and the event at the head in the room."""
    ann = await house.join("desk/slow", name="ann")
    await ann.send('"wait"')
    await ann.send('"next"')
    await house.join("faulty/x", name="bob")
    tab = await enter(open_tab)
    await reads(tab, "a handler is slow or waits")
    await reads(tab, "the disk is full")
    await tab.click('a[href="#/?stuck=1"]')
    await tab.shows("stuck.checked")
    for name, width, scheme in (("list", 1280, "light"), ("list-dark", 1280, "dark"), ("list-narrow", 360, "light")):
        await tab.look(tmp_path / f"{name}.png", width=width, height=900, scheme=scheme)
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth"), name
    grounds = []
    for scheme in ("light", "dark"):
        await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        grounds.append(await tab.run("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]
    await tab.run("location.hash = '#/rooms/desk/slow'")
    await reads(tab, '"wait"')
    assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
    await tab.run("location.hash = '#/processes'")
    await reads(tab, "desk faulty")
    assert await tab.run("document.documentElement.scrollWidth <= innerWidth")


async def test_redis_away(house: House, open_tab: Any) -> None:
    """The page says so, shows what it knew, and goes on by itself."""
    await house.join("desk/lobby", name="ann")
    tab = await enter(open_tab)
    await reads(tab, "desk/lobby")
    house.valkey.kill()
    await tab.shows("!document.getElementById('problem').hidden")
    assert "desk/lobby" in await text_of(tab)
    house.valkey.start()
    await tab.shows("document.getElementById('problem').hidden")
