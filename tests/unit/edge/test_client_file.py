"""The JavaScript client, as an edge serves it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from innkeeper_edge.client_file import ClientFile

SOURCE = Path(__file__).parents[3] / "clients" / "js" / "innkeeper.js"

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Return a caller of an application with nothing but this route."""
    app = web.Application()
    app.router.add_get("/innkeeper.js", ClientFile().answer)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_pages_of_any_origin_get_the_client_as_a_module(client: Client) -> None:
    """The file is the one of clients/js, with the type that modules need and leave for every origin."""
    async with client.get("/innkeeper.js") as answer:
        assert answer.status == 200
        assert await answer.read() == SOURCE.read_bytes()
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert answer.headers["Cache-Control"] == "no-cache"


async def test_who_has_it_does_not_get_it_again(client: Client) -> None:
    """The same version is answered 304 without a body, another one with the file."""
    async with client.get("/innkeeper.js") as answer:
        etag = answer.headers["ETag"]
    async with client.get("/innkeeper.js", headers={"If-None-Match": f'"older", {etag}'}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
        assert answer.headers["ETag"] == etag
    async with client.get("/innkeeper.js", headers={"If-None-Match": '"older"'}) as answer:
        assert answer.status == 200


async def test_head_tells_the_length(client: Client) -> None:
    """HEAD is answered as GET, without the file."""
    async with client.head("/innkeeper.js") as answer:
        assert int(answer.headers["Content-Length"]) == SOURCE.stat().st_size
        assert await answer.read() == b""
