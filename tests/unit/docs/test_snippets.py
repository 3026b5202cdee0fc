"""The Python in README.md and docs/*.md: it runs, the rooms it defines are played with, and its tests pass."""

import datetime as dt
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from innkeeper import Room
from innkeeper.testing import RoomHarness

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def snippets() -> list[Any]:
    """Return every Python snippet of the pages, named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in SNIPPET.finditer(text):
            line = text.count("\n", 0, match.start()) + 2
            found.append(pytest.param(page, line, match[1], id=f"{page.name}:{line}"))
    return found


def rooms_of(page: Path, line: int, code: str) -> dict[str, type[Room[Any]]]:
    """Run a snippet; return the rooms it defines. Errors name the page's lines."""
    names: dict[str, Any] = {"__name__": f"snippet_{line}"}
    exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)  # noqa: S102 - our own pages
    return {
        name: value
        for name, value in names.items()
        if inspect.isclass(value) and issubclass(value, Room) and value is not Room
    }


@pytest.mark.parametrize(("page", "line", "code"), snippets())
def test_every_snippet_runs(page: Path, line: int, code: str) -> None:
    """What is shown can be copied; whatever says that it defines a room does."""
    assert bool(rooms_of(page, line, code)) == ("(Room" in code)


SAID: dict[str, tuple[Any, Any]] = {
    "Counter": ("x", {"count": 1, "by": "ann"}),
    "Chat": ({"text": "hi"}, {"from": "ann", "text": "hi"}),
    "Board": ({"type": "move", "x": 1, "y": 2}, {"type": "at", "x": 1, "y": 2}),
    "Poll": ("tea", {"tea": 1}),
    "Table": ({"points": 2}, {"score": {"ann": 2}}),
    "Door": ("open", "open"),
    "Auction": (dt.timedelta(hours=1, seconds=1), {"closed": True}),
    "Forgetful": ("x", 1),
    "Careful": ("x", 1),
}
"""What each room of the pages is told, or how long it is left alone, and what it says to that at last."""


@pytest.mark.parametrize(("page", "line", "code"), snippets())
async def test_the_rooms_of_the_pages_do_what_they_say(page: Path, line: int, code: str) -> None:
    """Each is joined and spoken to; one that is not in the table above fails."""
    for name, room_class in rooms_of(page, line, code).items():
        message, answer = SAID[name]
        room = RoomHarness(room_class)
        ann = await room.join("ann")
        ann.take()
        if isinstance(message, dt.timedelta):
            await room.clock.advance(message.total_seconds())
        else:
            await ann.send(message)
        assert ann.take()[-1] == answer, name
        room.check()


async def test_the_auction_of_the_pages_closes() -> None:
    """Its timers run when the page says."""
    page, line, code = next(found.values for found in snippets() if "class Auction" in str(found.values[2]))
    room = RoomHarness(rooms_of(page, line, code)["Auction"])
    ann = await room.join("ann")
    await room.clock.advance(1250)
    assert ann.take() == [{"text": "still open"}] * 2
    await room.clock.advance(10_000)
    assert ann.take()[-1] == {"closed": True}
    assert not room._stored.timers


def test_the_tests_of_the_pages_pass(tmp_path: Path) -> None:
    """The examples of testing.md are tests; a pytest of their own runs them all."""
    page = ROOT / "docs" / "testing.md"
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    codes = [match[1] for match in SNIPPET.finditer(page.read_text(encoding="utf-8"))]
    (tmp_path / "conftest.py").write_text(codes.pop(0))
    for number, code in enumerate(codes):
        (tmp_path / f"test_{number}.py").write_text(code)
    arguments = ["-p", "no:cacheprovider", "-p", "no:randomly", "-q", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    count = sum(code.count("async def test_") for code in codes)
    assert re.search(rf"^{count} passed", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert count >= 3
