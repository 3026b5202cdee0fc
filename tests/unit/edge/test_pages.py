"""What an edge serves beside its rooms, to whoever asks on the wire."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestClient
from yarl import URL

from innkeeper_edge import pages as pages_module
from innkeeper_edge.auth import Anybody
from innkeeper_edge.edge import Kind
from innkeeper_edge.handshake import Rejection
from innkeeper_edge.pages import Pages

Client = TestClient[web.BaseRequest, None]


@contextlib.asynccontextmanager
async def calling(pages: Pages) -> AsyncIterator[Client]:
    """Serve pages on a free port; yield a caller."""
    client: Client = TestClient(cast("Any", RawTestServer(pages.answer)))
    await client.start_server()
    try:
        yield client
    finally:
        await client.close()


def edge(*, ready: bool = True) -> Any:
    """Return as much of an edge as pages need."""
    event = asyncio.Event()
    if ready:
        event.set()
    return SimpleNamespace(
        ready=event, draining=False, incarnation="e-1", kinds={"chat": Kind("json", 60, 10)}, authenticator=Anybody()
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where a page of the user's lies, with a file beside it, and secrets around it."""
    (tmp_path / "board").mkdir()
    (tmp_path / "board.html").write_text("<p>mine")
    (tmp_path / "board" / "app.js").write_text("let x")
    (tmp_path / "board" / "in").mkdir()
    (tmp_path / "board" / "in" / "a b.txt").write_text("deep")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "boards.txt").write_text("secret")
    (tmp_path / "board" / "link").symlink_to(tmp_path / "secret.txt")
    return tmp_path


@pytest.fixture
async def client(folder: Path) -> AsyncIterator[Client]:
    """Return a caller of an edge that shows the user's page."""
    async with calling(Pages(edge(), page=True, page_file=folder / "board.html")) as caller:
        yield caller


@pytest.mark.parametrize(
    ("path", "begin"),
    [
        ("/", "<p>mine"), ("/play", "<!doctype html>"), ("/kinds.json", '{"chat": {"codec": "json"}}'),
        ("/healthz", '{"ready": true'), ("/files/app.js", "let x"), ("/files/in/a%20b.txt", "deep"),
    ],
)  # fmt: skip
async def test_what_is_there(client: Client, path: str, begin: str) -> None:
    """Everything is there to be read, by HEAD without its body."""
    async with client.get(path) as answer:
        assert answer.status == 200
        assert (await answer.text()).lower().startswith(begin.lower())
    async with client.head(path) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    async with client.post(path) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/healthz/", "/files", "/files/", "/files/in", "/files/none.js", "/files/link",
        "/files/..%2fsecret.txt", "/files/%2e%2e/secret.txt", "/files//etc/passwd", "/files/%2fetc%2fpasswd",
        "/files/..%2fboards.txt",
        "/files/a%00b", "/files/" + "x" * 5_000,
    ],
)  # fmt: skip
async def test_what_is_not_there(client: Client, path: str) -> None:
    """Nor is anything outside the folder."""
    async with client.get(URL(path, encoded=True)) as answer:
        assert answer.status == 404
        assert "secret" not in await answer.text()


@pytest.mark.parametrize(
    ("knocks", "grants", "status"),
    [(None, None, 200), (None, Rejection(401, "unauthorized", "no"), 401), (Rejection(503, "busy", "no"), None, 503)],
)
async def test_kinds_are_for_those_who_may_enter(
    knocks: Rejection | None, grants: Rejection | None, status: int
) -> None:
    """And to be asked as often as rooms may be."""
    house = edge()
    house.authenticator = SimpleNamespace(grant=AsyncMock(return_value=grants))
    async with calling(Pages(house, page=True, knock=lambda: knocks)) as caller, caller.get("/kinds.json") as answer:
        assert answer.status == status
        assert ("chat" in await answer.text()) is (status == 200)


async def test_who_does_not_read_a_file_is_cut_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one file and a client that reads nothing of it would hold a connection for ever."""
    monkeypatch.setattr(pages_module, "_READ_FILE_S", 0.3)
    (folder / "board" / "large.bin").write_bytes(bytes(32_000_000))
    async with calling(Pages(edge(), page_file=folder / "board.html")) as caller:
        reader, writer = await asyncio.open_connection("127.0.0.1", caller.port, limit=1000)
        writer.write(b"GET /files/large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1)
        with contextlib.suppress(ConnectionResetError):
            size = 0
            while piece := await reader.read(1_000_000):
                size += len(piece)
            assert size < 32_000_000
        writer.transport.abort()


@pytest.mark.parametrize(("path", "status"), [("/", 404), ("/files/x", 404), ("/innkeeper.js", 200), ("/healthz", 503)])
async def test_without_a_page_there_is_none(path: str, status: int) -> None:
    """Only health, which says that Redis was not reached yet, and the client."""
    async with calling(Pages(edge(ready=False))) as caller, caller.get(path) as answer:
        assert answer.status == status
