"""Real headless Chromium, driven over the DevTools protocol."""

import asyncio
import base64
import itertools
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from harness.house import until

_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
)
_KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Backspace": 8,
    "Escape": 27,
}  # fmt: skip


class TabBusy(Exception):
    """Another page is about to stand there."""


class Tab:
    """One page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.is_closed = False

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call a method of the protocol; return its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=10)
            if answer.get("id") == number:
                if "error" in answer:
                    raise TabBusy(answer["error"]["message"])
                return answer["result"]

    async def run(self, script: str) -> Any:
        """Return what a script evaluates to in the page."""
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def shows(self, condition: str) -> Any:
        """Wait until a script is true in the page; return what it is."""

        async def holds() -> Any:
            try:
                return await self.run(condition)
            except TabBusy:
                return None

        return await until(holds, condition)

    async def close(self) -> None:
        """Close it, as its user does."""
        self.is_closed = True
        await self.call("Page.close")

    async def point(self, x: int, y: int) -> None:
        """Move the pointer to a place of the page, as the mouse does."""
        await self.call("Page.bringToFront")
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def click(self, selector: str) -> None:
        """Click into the middle of an element, as the mouse does."""
        await self.run(f"{_element(selector)}.scrollIntoView({{ block: 'center' }})")
        place = "[box.x + box.width / 2, box.y + box.height / 2]"
        x, y = await self.run(f"((box) => {place})({_element(selector)}.getBoundingClientRect())")
        await self.point(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def press(self, key: str) -> None:
        """Press and release a key that writes nothing."""
        await self.call("Page.bringToFront")
        for kind in ("rawKeyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=_KEYS[key])

    async def strike(self, character: str) -> None:
        """Press and release a key that writes a character."""
        await self.call("Page.bringToFront")
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=character, text=character)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=character)

    async def look(self, file: Path, *, width: int, height: int, scheme: str = "light") -> None:
        """Take a picture of the page in a window of that size, in the colours of that scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await asyncio.sleep(0.2)  # until it is painted
        picture = await self.call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(file.write_bytes, base64.b64decode(picture["data"]))

    async def write(self, text: str) -> None:
        """Insert text where the cursor is."""
        await self.call("Page.bringToFront")
        await self.call("Input.insertText", text=text)

    async def choose(self, selector: str, file: Path) -> None:
        """Choose a file in an input for files."""
        document = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=document["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node["nodeId"])


def _element(selector: str) -> str:
    return f"document.querySelector('{selector}')"


class Browser:
    """A running Chromium: what opens tabs in it, and puts it to sleep."""

    def __init__(self, base: str, session: aiohttp.ClientSession, group: int) -> None:
        self._base = base
        self._session = session
        self._group = group

    async def open(self, url: str) -> Tab:
        """Open a tab on an address."""
        async with self._session.put(f"{self._base}/json/new?{url}") as answer:
            target = await answer.json()
        return Tab(await self._session.ws_connect(target["webSocketDebuggerUrl"]))

    def sleep(self) -> None:
        """Stop all its processes, as a closed laptop does: nothing runs, sockets stay open."""
        os.killpg(self._group, signal.SIGSTOP)

    def wake(self) -> None:
        """Let them go on."""
        os.killpg(self._group, signal.SIGCONT)


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Browser]:
    """Start Chromium."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "Chromium is not installed (on Debian: apt-get install chromium)"
    profile = folder / "profile"
    process = await asyncio.create_subprocess_exec(
        program, *_QUIET, f"--user-data-dir={profile}", "about:blank", start_new_session=True,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port_file = profile / "DevToolsActivePort"
        await until(lambda: port_file.exists() and port_file.read_text().count("\n"), "Chromium is up", timeout_s=30)
        base = f"http://127.0.0.1:{port_file.read_text().split()[0]}"
        async with aiohttp.ClientSession() as session:
            yield Browser(base, session, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        process.terminate()
        await process.wait()
