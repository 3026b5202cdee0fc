"""The pages of the examples, as ``make dev EXAMPLE=…`` serves them, each in tabs of real headless Chromium."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import Image

from harness.browser import Tab, chromium
from harness.house import Role

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
WATCH = """
window.errors = []
addEventListener("error", (event) => errors.push(`${event.message} ${event.target.src ?? ""}`), true)
addEventListener("unhandledrejection", (event) => errors.push(String(event.reason)))
const { send } = WebSocket.prototype
WebSocket.prototype.send = function (data) {
  const isHello = window.hasForgotten && typeof data === "string" && data.startsWith("!")
  send.call(this, isHello ? data.replace(/"last":"[^"]*"/, '"last":"0-0"') : data)
}
"""
FORGET = "window.hasForgotten = true; dispatchEvent(new Event('online')); 0"  # it comes back, from nowhere in the log
STRANGERS = """performance.getEntriesByType("resource").map((entry) => entry.name)
  .filter((name) => !name.startsWith("data:") && new URL(name).host !== location.host)"""
Open = Callable[..., Awaitable[Tab]]


@asynccontextmanager
async def pages_of(example: str, folder: Path, examples: Path = ROOT / "examples") -> AsyncIterator[Open]:
    """Run an example; return what opens its page. At the end no page had an error or loaded from another host."""
    target = str(examples / f"{example}.py")
    options = ["--port", "0", "--data-dir", str(folder / "house"), "--no-reload", "--log-level", "info"]
    dev = await asyncio.to_thread(Role, ["dev", target, *options], folder / "dev.log")
    tabs = []
    try:
        async with chromium(folder) as browser:

            async def open_page(query: str = "", condition: str = "true") -> Tab:
                tab = await browser.open("about:blank")
                await tab.call("Page.enable")
                await tab.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
                await tab.call("Page.navigate", url=f"http://127.0.0.1:{dev.facts['port']}/{query}")
                await tab.shows(f"document.readyState === 'complete' && {condition}")
                tabs.append(tab)
                return tab

            yield open_page
            for tab in tabs:
                if not tab.is_closed:
                    assert await tab.run("errors") == []
                    assert await tab.run(STRANGERS) == []
    finally:
        await asyncio.to_thread(dev.end)


async def test_cursors(tmp_path: Path) -> None:
    """Who points is seen by the others where it points, by newcomers too, until its page is closed."""
    async with pages_of("cursors", tmp_path) as open_page:
        ann, bob = [await open_page(f"?name={name}") for name in ("ann", "bob")]
        for tab in (ann, bob):
            await tab.shows("document.getElementById('count').textContent === '2'")
        width, height = await bob.run("[innerWidth, innerHeight]")
        await ann.point(width // 4, height // 2)
        await bob.shows("document.querySelector('.cursor')?.innerText === 'ann'")
        x, y = await bob.run(
            "((style) => [style.left, style.top].map(parseFloat))(document.querySelector('.cursor').style)"
        )
        assert (x, y) == (pytest.approx(25, abs=1), pytest.approx(50, abs=1))
        carl = await open_page("?name=carl")
        await carl.shows("document.querySelector('.cursor')?.innerText === 'ann'")
        assert await ann.run("document.querySelectorAll('.cursor').length") == 0
        await carl.run(f"window.old = document.querySelector('.cursor'); {FORGET}")
        await carl.shows("![old, null].includes(document.querySelector('.cursor'))")
        await ann.close()
        for tab in (bob, carl):
            await tab.shows(
                "!document.querySelector('.cursor') && document.getElementById('count').textContent === '2'"
            )


LOWEST = """(() => {
  const colour = %s
  const { width, height } = document.querySelector("canvas")
  const { data } = document.querySelector("canvas").getContext("2d").getImageData(0, 0, width, height)
  for (let at = data.length - 4; at >= 0; at -= 4) {
    if (colour.every((part, n) => data[at + n] === part)) return Math.floor(at / 4 / width / 20) + 1
  }
  return 0
})()"""
MINE, THEIRS = LOWEST % "[0xc0, 0x39, 0x2b]", LOWEST % "[0x24, 0x71, 0xa3]"


async def tick(tab: Tab, *, after: int = 0) -> int:
    """Return the tick a page shows, once it is later than another."""
    shown = "Number(/tick (\\d+)/.exec(document.getElementById('status').textContent)?.[1] ?? 0)"
    await tab.shows(f"{shown} > {after}")
    return int(await tab.run(shown))


async def test_arena(tmp_path: Path) -> None:
    """The field moves by itself; who steers changes its row in both pages, the other one does not."""
    async with pages_of("arena", tmp_path) as open_page:
        ann, bob = [await open_page(f"?name={name}") for name in ("ann", "bob")]
        for tab in (ann, bob):
            await tab.shows(
                "['ann: ', 'bob: '].every((name) => document.getElementById('status').textContent.includes(name))"
            )
        await bob.press("ArrowDown")
        row = await ann.shows(MINE)
        begun = await tick(bob)
        await tick(bob, after=begun + 10)
        assert [await ann.shows(MINE), await bob.shows(THEIRS)] == [row, row]
        await ann.press("ArrowUp")
        await ann.shows(f"![0, {row}].includes({MINE})")
        await bob.shows(f"![0, {row}].includes({THEIRS})")
        await bob.close()
        await ann.shows("!document.getElementById('status').textContent.includes('bob')")


async def test_thumbnail(tmp_path: Path) -> None:
    """A picture that one page sends is shown small in all, by a process for jobs that `dev` started."""
    picture, nonsense = tmp_path / "red.png", tmp_path / "nonsense.png"
    Image.new("RGB", (400, 200), "#c0392b").save(picture)
    nonsense.write_text("no picture")
    red = """(async (image) => {
      await image.decode()
      const pen = new OffscreenCanvas(160, 80).getContext("2d")
      pen.drawImage(image, 0, 0)
      return [image.naturalWidth, image.naturalHeight, ...pen.getImageData(80, 40, 1, 1).data.slice(0, 3)]
    })(document.querySelector("#wall img"))"""
    async with pages_of("thumbnail", tmp_path) as open_page:
        ann, bob = [await open_page(f"?name={name}") for name in ("ann", "bob")]
        await ann.choose("#file", picture)
        carl = await open_page("?name=carl")
        for tab in (ann, bob, carl):
            await tab.shows("document.querySelectorAll('#wall img').length === 1")
            assert await tab.run(red) == [160, 80, 0xC0, 0x39, 0x2B]
        await carl.run(f"window.old = document.querySelector('#wall img'); {FORGET}")
        await carl.shows("![old, null].includes(document.querySelector('#wall img'))")
        await bob.choose("#file", nonsense)
        await bob.shows("document.getElementById('status').textContent.includes('failed: UnidentifiedImageError')")
        assert await ann.run("document.getElementById('status').textContent") == ""


def cell(number: int) -> str:
    """Return the selector of a cell of the board."""
    return f"#board button:nth-child({number + 1})"


async def says(tab: Tab, text: str) -> None:
    """Wait until the page's status is a text."""
    await tab.shows(f"document.getElementById('status').textContent === '{text}'")


async def test_tictactoe(tmp_path: Path) -> None:
    """Two are taken from the lobby to a match and play until one has won; then a third and the winner play."""
    async with pages_of("tictactoe", tmp_path) as open_page:
        ann = await open_page()
        await says(ann, "Waiting for another player: open this page once more.")
        bob = await open_page()
        for tab in (ann, bob):
            await tab.shows("/^(Your|The other.s) turn/.test(document.getElementById('status').textContent)")
        x, o = (
            (ann, bob)
            if await ann.run("document.getElementById('status').textContent.endsWith('(X).')")
            else (bob, ann)
        )
        for player, number, mark in ((x, 0, "X"), (o, 3, "O"), (x, 1, "X"), (o, 4, "O")):
            await says(player, f"Your turn ({mark}).")
            await player.click(cell(number))
            for tab in (x, o):
                await tab.shows(f"document.querySelector('{cell(number)}').textContent === '{mark}'")
        assert await o.run(f"document.querySelector('{cell(2)}').disabled")
        await x.run(f"document.getElementById('status').textContent = ''; {FORGET}")
        await says(x, "Your turn (X).")
        await x.click(cell(2))
        await says(x, "You won.")
        await says(o, "You lost.")
        await x.click("#again")
        await says(x, "Waiting for another player: open this page once more.")
        carl = await open_page()
        for tab in (x, carl):
            await tab.shows("/^(Your|The other.s) turn/.test(document.getElementById('status').textContent)")
        await says(o, "You lost.")


@pytest.fixture
def _packages() -> None:
    """Install what the page of the Yjs example loads, as ``make dev EXAMPLE=yjs`` does."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed: the page's packages come from it")
    subprocess.run(["make", "examples/yjs/node_modules/.ready"], cwd=ROOT, check=True, timeout=50)


VALUE = "document.querySelector('textarea').value"


async def select(tab: Tab, start: int, end: int) -> None:
    """Put the focus into the text, with a selection."""
    await tab.run(
        f"((area) => {{ area.focus(); area.setSelectionRange({start}, {end}) }})(document.querySelector('textarea'))"
    )


@pytest.mark.usefixtures("_packages")
async def test_yjs(tmp_path: Path) -> None:
    """What two write at once converges in both; cursors stay where they were; newcomers get the text."""
    ready = "!document.querySelector('textarea').disabled"
    async with pages_of("yjs", tmp_path) as open_page:
        ann, bob = await open_page(condition=ready), await open_page(condition=ready)
        for tab in (ann, bob):
            await tab.shows("document.getElementById('status').textContent === '2 here.'")
        await select(ann, 0, 0)
        await ann.write("one 😀 two")
        await bob.shows(f"{VALUE} === 'one 😀 two'")
        await select(bob, 4, 6)
        await bob.write("😁")  # half of it stays the same
        await ann.shows(f"{VALUE} === 'one 😁 two'")
        await select(ann, 10, 10)
        await select(bob, 0, 3)
        await asyncio.gather(ann.write(" three"), bob.write("zero"))
        for tab in (ann, bob):
            await tab.shows(f"{VALUE} === 'zero 😁 two three'")
        caret = "document.querySelector('textarea').selectionStart"
        assert [await ann.run(caret), await bob.run(caret)] == [len("zero 😁 two three") + 1, len("zero")]
        await select(ann, 5, 8)
        await ann.press("Backspace")
        carl = await open_page(condition=ready)
        for tab in (ann, bob, carl):
            await tab.shows(f"{VALUE} === 'zero two three'")


async def test_yjs_without_its_packages(tmp_path: Path) -> None:
    """The page says what to do."""
    for name in ("yjs.py", "yjs.html"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    (tmp_path / "yjs").mkdir()
    async with pages_of("yjs", tmp_path, tmp_path) as open_page:
        tab = await open_page()
        await says(tab, "A package of npm is missing: run npm install in the folder yjs, then start again.")
        await tab.run("errors.length = 0")
