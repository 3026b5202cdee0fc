"""Connections that are reset while they are being opened, on uvloop, as a busy role meets them."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection

from harness.house import until
from harness.valkey import Valkey
from innkeeper.errors import RedisUnavailable
from innkeeper.redis_client import Connect, Link, connector
from innkeeper.subscriber import Subscriber

RESETS = 3
TIMEOUT_S = 0.5

_open_connection = asyncio.open_connection


async def _busy(*arguments: object, **options: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and come to use it late, as in a loop with much to do."""
    opened = await _open_connection(*arguments, **options)  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    return opened


async def _reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


@asynccontextmanager
async def _first_reset(url: str) -> AsyncIterator[Connect]:
    """Yield what meets a server that resets at first, and then the real one."""
    server = await asyncio.start_server(_reset, "127.0.0.1", 0)
    bad = connector(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", timeout_s=TIMEOUT_S)
    good = connector(url, timeout_s=TIMEOUT_S)
    attempts = 0

    async def connect() -> AbstractConnection:
        nonlocal attempts
        attempts += 1
        return await (bad if attempts <= RESETS else good)()

    try:
        yield connect
    finally:
        server.close()
        await server.wait_closed()


async def _answers(link: Link) -> bool:
    try:
        return bool(await link.call("PING") == b"PONG")
    except RedisUnavailable:
        return False


def test_a_link_outlives_resets_in_the_handshake(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reset before the first byte was written is a lost connection like any other: the link connects again."""
    monkeypatch.setattr(asyncio, "open_connection", _busy)

    async def run() -> None:
        async with _first_reset(valkey.url) as connect:
            link = Link(connect, timeout_s=TIMEOUT_S, name="test")
            try:
                await until(lambda: _answers(link), "the link works", timeout_s=5)
            finally:
                await link.close()

    uvloop.run(run())


def test_subscriptions_outlive_resets_in_the_handshake(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for subscriptions."""
    monkeypatch.setattr(asyncio, "open_connection", _busy)

    async def run() -> None:
        async with _first_reset(valkey.url) as connect:
            subscriber = Subscriber(connect, on_message=lambda *_: None, on_fresh=lambda _: None, name="test")
            try:
                async with asyncio.timeout(5):
                    await subscriber.subscribe("test:resets")
                assert subscriber.is_subscribed("test:resets")
            finally:
                await subscriber.close()

    uvloop.run(run())
