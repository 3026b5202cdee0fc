"""Node, where there is one: the JavaScript client's own tests, and scripts that use it."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "node"
_OLDEST = 18
_WITH_FLAG = (20, 10)
_WITH_SOCKET = 22


@cache
def _found() -> tuple[str, tuple[int, int]] | None:
    program = shutil.which("node")
    if program is None:
        return None
    version = subprocess.run([program, "--version"], check=True, capture_output=True, text=True, timeout=20).stdout
    match = re.match(r"v(\d+)\.(\d+)", version)
    assert match, version
    return program, (int(match[1]), int(match[2]))


def node() -> str:
    """Return the program, or skip the test."""
    found = _found()
    if found is None or found[1][0] < _OLDEST:
        pytest.skip("Node 18 or newer is not installed")
    return found[0]


def node_with_websocket() -> list[str]:
    """Return the program and what it must be told to have a global WebSocket, or skip the test."""
    program = node()
    found = _found()
    assert found is not None
    if found[1] < _WITH_FLAG:
        pytest.skip("this Node has no WebSocket of its own: it takes 20.10 or newer")
    return [program] if found[1][0] >= _WITH_SOCKET else [program, "--experimental-websocket", "--no-warnings"]
