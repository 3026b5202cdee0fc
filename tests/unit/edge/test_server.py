"""Connections without number: who has too many is cut off before a byte of them is read."""

from ipaddress import ip_network
from typing import Any, cast

import pytest

from innkeeper_edge.limits import Limits
from innkeeper_edge.server import Server


class Wire:
    """A connection, with as much of its transport and of aiohttp's handler as the server touches."""

    _task_handler = None

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.is_cut = False

    def get_extra_info(self, name: str) -> tuple[str, int]:
        """Return where the peer is."""
        assert name == "peername"
        return self.peer, 1

    def abort(self) -> None:
        """Note it."""
        self.is_cut = True


class Door:
    """A server and its connections."""

    def __init__(self, *, most: int = 0, **limits: Any) -> None:
        self.cut_count = 0
        self.it = Server(cast("Any", None), limits=Limits(**limits), most=most, on_cut=self._cut)

    def _cut(self) -> None:
        self.cut_count += 1

    def comes(self, peer: str) -> Wire:
        """Connect; who is cut off is soon lost."""
        wire = Wire(peer)
        self.it.connection_made(cast("Any", wire), cast("Any", wire))
        if wire.is_cut:
            self.goes(wire)
        return wire

    def goes(self, wire: Wire) -> None:
        """End a connection."""
        self.it.connection_lost(cast("Any", wire))


async def test_an_address_has_twice_its_sockets_connections() -> None:
    """One more is cut off, a neighbour is not concerned, and who went has made room."""
    door = Door(connections_per_ip=2)
    wires = [door.comes("203.0.113.9") for _ in range(6)]
    assert [wire.is_cut for wire in wires] == [False] * 4 + [True] * 2
    assert not door.comes("203.0.113.8").is_cut
    door.goes(wires[0])
    assert not door.comes("203.0.113.9").is_cut
    assert door.comes("203.0.113.9").is_cut
    assert door.cut_count == 3


async def test_an_ipv6_network_counts_as_one() -> None:
    """Whoever has a /64 has no more than one address has."""
    door = Door(connections_per_ip=1)
    assert [door.comes(f"2001:db8::{n}").is_cut for n in range(1, 4)] == [False, False, True]
    assert not door.comes("2001:db8:0:1::1").is_cut


async def test_proxies_and_this_machine_are_not_limited_by_address() -> None:
    """What is behind them shows in requests only; a Unix socket has no address."""
    door = Door(connections_per_ip=1, trusted_proxy=(ip_network("10.0.0.0/8"),))
    assert not any(door.comes(peer).is_cut for peer in ["10.1.1.1", "127.0.0.1", "::1", ""] * 5)
    free = Door(connections_per_ip=0)
    assert not any(free.comes("203.0.113.9").is_cut for _ in range(500))


async def test_there_is_an_end_for_all(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever they are; the log says so once."""
    door = Door(most=3)
    wires = [door.comes(peer) for peer in ("127.0.0.1", "203.0.113.1", "203.0.113.2", "127.0.0.1", "203.0.113.3")]
    assert [wire.is_cut for wire in wires] == [False] * 3 + [True] * 2
    door.goes(wires[1])
    assert not door.comes("127.0.0.1").is_cut
    assert [record.message for record in caplog.records] == ["connections are cut off: there are more than 3"]


async def test_a_proxy_that_is_not_trusted_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Where it has too many the log says what to do."""
    door = Door(connections_per_ip=1)
    for _ in range(5):
        door.comes("172.16.0.2")
    assert [record.message for record in caplog.records] == [
        "172.16.0.2 is cut off: it has more than 2 connections; if it is your proxy, name it with --trusted-proxy"
    ]
