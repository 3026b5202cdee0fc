"""An answer to a request that its client does not read: the connection ends, and with it what was kept for it."""

import asyncio
import contextlib
import socket

import pytest
from aiohttp import web

from innkeeper_edge import requests

_BYTES = 8 * 1_048_576  # more than kernels keep for a peer


@pytest.mark.parametrize("reads", [True, False])
async def test_an_answer_that_nobody_reads_ends_the_connection(monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    """Whoever reads gets all of it."""
    monkeypatch.setattr(requests, "_READ_S", 0.5)
    ended = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await requests.sent(request, web.Response(body=b"x" * _BYTES))
        finally:
            ended.set()

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, runner.addresses[0])
    await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    if not reads:
        async with asyncio.timeout(5):
            await ended.wait()
        await asyncio.sleep(0.1)
    got = 0
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            while piece := await loop.sock_recv(client, 1_048_576):
                got += len(piece)
    client.close()
    await runner.cleanup()
    assert (got > _BYTES) == reads
