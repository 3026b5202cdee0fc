"""The fault proxy of the chaos runs does to bytes what it says, and nothing else."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chaos.proxy import Proxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Far:
    """The far end: echoes, and remembers what reached it."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Echo until nothing more comes."""
        self.writers.append(writer)
        try:
            while data := await reader.read(4096):
                self.got += data
                writer.write(data)
        except ConnectionError:
            pass
        self.ended.set()


@pytest.fixture
async def far() -> AsyncIterator[tuple[Far, Proxy]]:
    """A far end and a proxy before it."""
    end = Far()
    server = await asyncio.start_server(end.serve, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1], seed=1)
    await proxy.start()
    yield end, proxy
    await proxy.close()
    server.close()
    for writer in end.writers:
        writer.transport.abort()
    await asyncio.sleep(0.01)


async def opened(far: tuple[Far, Proxy]) -> Streams:
    """Connect through the proxy and see that it passes bytes."""
    end, proxy = far
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    end.writers.append(writer)
    writer.write(b"hello;")
    assert await reader.readexactly(6) == b"hello;"
    return reader, writer


async def test_delayed_bytes_keep_their_order(far: tuple[Far, Proxy]) -> None:
    """What was delayed comes before what was sent after the delay had ended."""
    _, proxy = far
    reader, writer = await opened(far)
    proxy.delay_s = 0.05
    writer.write(b"slow;")
    await asyncio.sleep(0.01)
    proxy.heal()
    writer.write(b"quick;")
    assert await reader.readexactly(11) == b"slow;quick;"
    assert proxy.bitten["pieces delayed"] >= 1


async def test_held_requests_arrive_when_the_link_heals(far: tuple[Far, Proxy]) -> None:
    """Nothing passes while the link is held; what was sent arrives late, even if its sender has gone meanwhile."""
    end, proxy = far
    reader, writer = await opened(far)
    proxy.hold_up = True
    writer.write(b"late;")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.readexactly(1)
    writer.close()
    await writer.wait_closed()
    assert end.got == b"hello;"
    proxy.heal()
    await asyncio.wait_for(end.ended.wait(), 2)
    assert end.got == b"hello;late;"


async def test_held_answers_come_when_the_link_heals(far: tuple[Far, Proxy]) -> None:
    """The request is carried out, its answer waits."""
    end, proxy = far
    reader, writer = await opened(far)
    proxy.hold_down = True
    writer.write(b"x;")
    while end.got != b"hello;x;":  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.readexactly(1)
    proxy.heal()
    assert await reader.readexactly(2) == b"x;"


async def test_a_dropped_reply_was_carried_out(far: tuple[Far, Proxy]) -> None:
    """The request reaches the far end, its answer is swallowed and the connection cut."""
    end, proxy = far
    reader, writer = await opened(far)
    proxy.lose_reply = 1.0
    writer.write(b"done;")
    with pytest.raises(ConnectionError):
        await reader.readexactly(1)
    assert end.got == b"hello;done;"
    assert proxy.bitten["replies dropped"] == 1


@pytest.mark.parametrize("towards_role", [True, False])
async def test_half_close_ends_one_direction(far: tuple[Far, Proxy], towards_role: bool) -> None:
    """The side told that no more comes reads an end."""
    end, proxy = far
    reader, _ = await opened(far)
    assert proxy.half_close(towards_role=towards_role) == 1
    if towards_role:
        assert await reader.read() == b""
    else:
        await asyncio.wait_for(end.ended.wait(), 2)


async def test_cut_resets_both_sides(far: tuple[Far, Proxy]) -> None:
    """Both ends lose the connection at once."""
    end, proxy = far
    reader, _ = await opened(far)
    assert proxy.cut() == 1
    with pytest.raises(ConnectionError):
        await reader.readexactly(1)
    await asyncio.wait_for(end.ended.wait(), 2)
