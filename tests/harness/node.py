"""Node, for clients of others: the program, with their packages installed beside the scripts."""

import shutil
import subprocess
from pathlib import Path

import pytest

NODE = Path(__file__).parents[1] / "node"
_PACKAGES = ("partysocket", "y-websocket")


def node_program() -> str:
    """Return Node's path, or skip the test that needs it."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        pytest.skip("Node is not installed: clients written for it need it")
    if not all((NODE / "node_modules" / name).exists() for name in _PACKAGES):
        subprocess.run([npm, "install", "--silent"], cwd=NODE, check=True, timeout=120)
    return program
