"""The JavaScript client: its own tests, run by Node, and its table of close codes."""

import re
import subprocess
from pathlib import Path

import pytest

from harness.node_client import FOLDER, node
from innkeeper.close_codes import TABLE

SOURCE = Path(__file__).parents[2] / "clients" / "js" / "innkeeper.js"


@pytest.mark.parametrize("file", sorted((FOLDER / "client").glob("*.test.js")), ids=lambda path: path.stem)
def test_its_own_tests(file: Path) -> None:
    """Node's test runner finds nothing wrong, and runs a fair number of tests."""
    result = subprocess.run(
        [node(), "--test", "--test-reporter=tap", str(file)], capture_output=True, text=True, timeout=50, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"^# pass (\d+)$", result.stdout, re.MULTILINE)
    assert passed, result.stdout
    assert int(passed[1]) >= {"move.test": 3}.get(file.stem, 15)


def _table(name: str) -> dict[int, str]:
    match = re.search(rf"export const {name} = Object\.freeze\(\{{(.*?)\}}\);", SOURCE.read_text("utf-8"), re.DOTALL)
    assert match, name
    rows = re.findall(r'(\d{4}): "([^"]*)",', match[1])
    assert len(rows) == match[1].count(":")
    return {int(code): reason for code, reason in rows}


def test_its_close_codes_are_the_tables() -> None:
    """Every code and reason of close_codes.py stands in the client, under what it does about it, and no other."""
    assert _table("FINAL_CODES") == {code.code: code.reason for code in TABLE if not code.retry}
    assert _table("RETRY_CODES") == {code.code: code.reason for code in TABLE if code.retry}
