"""A member whose connection is gone before its leave: it must not stand in the way of the others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import uvloop

from innkeeper_edge.fanout import Fanout
from innkeeper_edge.guarded_socket import GuardedSocket
from innkeeper_edge.member import Member


class End(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self, made: list[Any]) -> None:
        self._made = made
        self.got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Show it."""
        self.transport = transport
        self._made.append(transport)

    def data_received(self, data: bytes) -> None:
        """Keep what comes."""
        self.got += data


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[tuple[Any, End]]:
    """Yield the edge's transport and the client's end of one connection."""
    loop = asyncio.get_running_loop()
    made: list[Any] = []
    server = await loop.create_server(lambda: End(made), "127.0.0.1", 0)
    client, end = await loop.create_connection(lambda: End([]), "127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        while not made:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        yield made[0], end
    finally:
        client.close()
        for transport in made:
            transport.close()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)


def test_a_connection_that_is_gone_costs_the_others_nothing() -> None:
    """On uvloop too, a batch reaches the members behind one whose connection was just lost; a ping spares that one."""

    async def run() -> None:
        async with connection() as (lost, _), connection() as (kept, end):
            fanout = Fanout()
            for join, transport in enumerate((lost, kept), 1):
                member = Member(GuardedSocket(transport, lambda _: None, linger_s=1), transport, 0.0)
                member.join = join
                fanout.members[member.id] = fanout.live[join] = member
            lost.abort()
            await asyncio.sleep(0.01)  # the transport is closed, nobody has told the room yet
            fanout.deliver([(b"text *", b"hello")])
            fanout.deliver([(b"text -7", b"again")])
            fanout.live[1].ping()
            await asyncio.sleep(0.01)
            assert end.got == b"\x81\x05hello\x81\x05again"

    uvloop.run(run())
