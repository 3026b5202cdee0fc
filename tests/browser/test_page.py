"""The page to play with, in real headless Chromium: two tabs of one room. Run it with ``make browser``."""

import asyncio
import itertools
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from harness.house import House, until

pytestmark = pytest.mark.browser
CHAT = str(Path(__file__).parents[2] / "examples" / "chat.py")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
)


class Tab:
    """One page, driven over the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def run(self, script: str) -> Any:
        """Return what a script evaluates to in the page."""
        number = next(self._numbers)
        parameters = {"expression": script, "returnByValue": True, "awaitPromise": True}
        await self._socket.send_json({"id": number, "method": "Runtime.evaluate", "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=10)
            if answer.get("id") == number:
                result = answer["result"]
                assert "exceptionDetails" not in result, result
                return result["result"].get("value")

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
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "Chromium is not installed (on Debian: apt-get install chromium)"
    profile = tmp_path / "profile"
    process = await asyncio.create_subprocess_exec(
        program, *QUIET, f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    port_file = profile / "DevToolsActivePort"
    await until(lambda: port_file.exists() and port_file.read_text().count("\n"), "Chromium is up", timeout_s=30)
    base = f"http://127.0.0.1:{port_file.read_text().split()[0]}"
    async with aiohttp.ClientSession() as session:

        async def open_one() -> Tab:
            url = f"http://127.0.0.1:{house.edges[0].facts['port']}/"
            async with session.put(f"{base}/json/new?{url}") as answer:
                target = await answer.json()
            return Tab(await session.ws_connect(target["webSocketDebuggerUrl"]))

        yield open_one
    process.terminate()
    await process.wait()


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
