"""Real headless Chromium, driven over the DevTools protocol."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from harness.house import until

_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
)


class Tab:
    """One page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol; return its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=10)
            if answer.get("id") == number:
                return answer["result"]

    async def run(self, script: str) -> Any:
        """Return what a script evaluates to in the page."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Callable[[str], Awaitable[Tab]]]:
    """Start Chromium; return what opens a tab on an address."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "Chromium is not installed (on Debian: apt-get install chromium)"
    profile = folder / "profile"
    process = await asyncio.create_subprocess_exec(
        program, *_QUIET, f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    port_file = profile / "DevToolsActivePort"
    await until(lambda: port_file.exists() and port_file.read_text().count("\n"), "Chromium is up", timeout_s=30)
    base = f"http://127.0.0.1:{port_file.read_text().split()[0]}"
    async with aiohttp.ClientSession() as session:

        async def open_one(url: str) -> Tab:
            async with session.put(f"{base}/json/new?{url}") as answer:
                target = await answer.json()
            return Tab(await session.ws_connect(target["webSocketDebuggerUrl"]))

        yield open_one
    process.terminate()
    await process.wait()
