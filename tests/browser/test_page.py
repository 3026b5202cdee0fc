"""The page to play with, in real headless Chromium: two tabs of one room. Run it with ``make browser``."""

import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from harness.browser import Tab, chromium
from harness.house import House, until

pytestmark = pytest.mark.browser
CHAT = str(Path(__file__).parents[2] / "examples" / "chat.py")


class Page:
    """The page to play with, in one tab."""

    def __init__(self, tab: Tab) -> None:
        self.run = tab.run

    async def enter(self, room: str, name: str) -> None:
        """Fill in the form and enter a room."""
        await until(lambda: self.run("document.querySelectorAll('#kind option').length"), "the kinds are listed")
        await self.run(f"room.value = '{room}'; user.value = '{name}'; document.getElementById('enter').click()")

    async def say(self, text: str) -> None:
        """Type a message and send it."""
        await until(lambda: self.run("!document.getElementById('send').disabled"), "Send can be clicked")
        await self.run(f"text.value = '{text}'; send.click()")

    async def shows(self, text: str, where: str = "log") -> None:
        """Wait until a part of the page shows a text."""
        await until(lambda: self.run(f"document.getElementById('{where}').innerText.includes('{text}')"), text)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """One edge with the page, two workers."""
    async with House(tmp_path, edges=0, workers=2, target=CHAT) as running:
        await running.add_edge("--page")
        yield running


@pytest.fixture
async def open_tab(tmp_path: Path, house: House) -> AsyncIterator[Any]:
    """Return what opens a tab on the edge's page."""
    async with chromium(tmp_path) as browser:

        async def open_page() -> Page:
            return Page(await browser.open(f"http://127.0.0.1:{house.edges[0].facts['port']}/"))

        yield open_page


async def test_the_page_takes_a_token_along(house: House, tmp_path: Path) -> None:
    """Where an edge wants one, that of the page's own address lets it in, under its user's name; nobody else is."""
    secret = "s" * 32
    (tmp_path / "key").write_text(secret)
    jwt_options = ("--auth", "jwt", "--jwt-key", str(tmp_path / "key"), "--jwt-audience", "here")
    port = (await house.add_edge("--page", *jwt_options)).facts["port"]
    token = jwt.encode({"sub": "1", "name": "Ann", "aud": "here", "exp": time.time() + 60, "rooms": ["chat/*"]}, secret)
    async with chromium(tmp_path) as browser:
        page = Page(await browser.open(f"http://127.0.0.1:{port}/?token={token}"))
        await page.enter("lobby", "eve")
        await page.shows("Ann", "members")
        stranger = Page(await browser.open(f"http://127.0.0.1:{port}/"))
        await stranger.enter("lobby", "eve")
        await stranger.shows("trying again", "state")


async def test_two_tabs_chat_through_a_worker_kill(house: House, open_tab: Any) -> None:
    """Two tabs see each other and each other's messages, also after the room's owner was killed."""
    ann, bob = await open_tab(), await open_tab()
    await ann.enter("tabs", "ann")
    await bob.enter("tabs", "bob")
    for tab in (ann, bob):
        await tab.shows("ann", "members")
        await tab.shows("bob", "members")
    await ann.say("hello from ann")
    await bob.shows("hello from ann")
    (await house.owner_of("chat/tabs")).signal(signal.SIGKILL)
    await bob.say("still here")
    for tab in (ann, bob):
        await tab.shows("still here")
        assert await tab.run("document.getElementById('log').innerText.split('still here').length") == 2
    third = await open_tab()
    await third.enter("tabs", "eve")
    await third.shows("hello from ann")
    await ann.shows("eve", "members")
