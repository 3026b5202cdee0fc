"""The JavaScript client: its own tests, run by Node, and its table of close codes."""

import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

from harness.node_client import FOLDER, node
from innkeeper.close_codes import TABLE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "js"
SOURCE = PACKAGE / "innkeeper.js"


@pytest.mark.parametrize("file", sorted((FOLDER / "client").glob("*.test.js")), ids=lambda path: path.stem)
def test_its_own_tests(file: Path) -> None:
    """Node's test runner finds nothing wrong, and runs a fair number of tests."""
    result = subprocess.run(
        [node(), "--test", "--test-reporter=tap", str(file)], capture_output=True, text=True, timeout=50, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"^# pass (\d+)$", result.stdout, re.MULTILINE)
    assert passed, result.stdout
    assert int(passed[1]) >= {"move.test": 3, "token.test": 5}.get(file.stem, 15)


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


def _npm(home: Path, *words: str) -> str:
    """Run npm in the package, without the network, and return what it printed; skip the test without npm."""
    program = shutil.which("npm")
    if program is None:
        pytest.skip("npm is not installed: it packs the JavaScript client")
    node()
    env = {**os.environ, "npm_config_cache": str(home / "cache"), "npm_config_offline": "true"}
    result = subprocess.run(
        [program, *words], cwd=PACKAGE, env=env, capture_output=True, text=True, timeout=50, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_what_npm_would_publish(tmp_path: Path) -> None:
    """The client, its types and its page; nothing of the tests, and nothing is missing that package.json names."""
    (packed,) = json.loads(_npm(tmp_path, "pack", "--dry-run", "--json"))
    paths = {file["path"] for file in packed["files"]}
    assert paths == {"README.md", "innkeeper.d.ts", "innkeeper.js", "package.json"}
    facts = json.loads((PACKAGE / "package.json").read_text("utf-8"))
    named = {facts["main"], facts["types"], *facts["exports"]["."].values()}
    assert {name.removeprefix("./") for name in named} <= paths


def test_the_package_is_ready() -> None:
    """It is not private, and says the version and the license of the project."""
    facts = json.loads((PACKAGE / "package.json").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "private" not in facts
    assert facts["version"] == project["version"]
    assert facts["license"] == project.get("license", "UNLICENSED")


def test_the_packed_package_is_imported_by_its_name(tmp_path: Path) -> None:
    """As an application that has installed it does."""
    _npm(tmp_path, "pack", "--pack-destination", str(tmp_path))
    (archive,) = tmp_path.glob("innkeeper-client-*.tgz")
    modules = tmp_path / "node_modules"
    with tarfile.open(archive) as tar:
        tar.extractall(modules, filter="data")
    (modules / "package").rename(modules / "innkeeper-client")
    script = tmp_path / "app.mjs"
    script.write_text('import * as client from "innkeeper-client"; console.log(Object.keys(client).join());')
    result = subprocess.run([node(), str(script)], capture_output=True, text=True, timeout=20, check=True)
    assert result.stdout.strip().split(",") == ["FINAL_CODES", "RETRY_CODES", "Room", "RoomError", "connect", "isFinal"]


def test_its_test_script_finds_the_tests(tmp_path: Path) -> None:
    """`npm test` in the package runs them."""
    out = _npm(tmp_path, "test")
    passed = re.search(r"^\S+ pass (\d+)$", out, re.MULTILINE)
    assert passed, out
    assert int(passed[1]) >= 40
