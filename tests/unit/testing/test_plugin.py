"""The pytest plugin, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

CONFTEST = 'pytest_plugins = ["innkeeper.testing.plugin"]\n'
TESTS = """
import asyncio
from innkeeper import Room

class Fussy(Room):
    def on_message(self, conn, message):
        self.state["n"] = 1 / message

async def say(room, value):
    ann = await room.join()
    await ann.send(value)

def test_fine(make_room):
    room = make_room(Fussy, "lobby", state={"n": 5})
    assert room.state == {"n": 5}
    asyncio.run(say(room, 2))
    assert (room.address, room.state) == ("fussy/lobby", {"n": 0.5})

def test_looked(make_room):
    room = make_room(Fussy)
    asyncio.run(say(room, 0))
    assert len(room.dead) == 1

def test_nobody_looked(make_room):
    make_room(Fussy)
    asyncio.run(say(make_room(Fussy), 0))
"""


def run(folder: Path, conftest: str) -> str:
    """Run the tests above in a folder, with a conftest; return what pytest says."""
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_fussy.py").write_text(TESTS)
    arguments = ["-p", "no:cacheprovider", "-p", "no:randomly", "-q", "-rA", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.stdout


def test_failures_that_nobody_looked_at_fail_the_test(tmp_path: Path) -> None:
    """make_room checks its rooms at the test's end; the report shows the traceback."""
    said = run(tmp_path, CONFTEST)
    assert "3 passed, 1 error" in said
    assert "ERROR test_fussy.py::test_nobody_looked" in said
    assert "fussy/test: 1 events failed, and nobody looked" in said
    assert "ZeroDivisionError: division by zero" in said


def test_nobody_has_the_fixture_who_did_not_ask(tmp_path: Path) -> None:
    """An installed Innkeeper adds nothing to other people's test suites."""
    assert "fixture 'make_room' not found" in run(tmp_path, "")
