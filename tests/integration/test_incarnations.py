"""Who is registered as living: before it takes part, after it was declared dead, and when it goes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast
from unittest.mock import Mock

import pytest
from redis.asyncio.connection import AbstractConnection

from harness.acts import RoomActs, join
from harness.house import until
from harness.rooms import Ledger
from harness.valkey import Valkey
from innkeeper import keys
from innkeeper.address import Address
from innkeeper.channel import Reply
from innkeeper.functions.library import load_library
from innkeeper.keys import room_keys
from innkeeper.redis_client import Connect, Link, connector
from innkeeper.subscriber import Subscriber
from innkeeper_edge.edge import Edge
from innkeeper_edge.feed import Feed
from innkeeper_edge.guarded_socket import GuardedSocket
from innkeeper_edge.member import Member
from innkeeper_workers.fleet import Fleet
from innkeeper_workers.pulse import Pulse

if TYPE_CHECKING:
    from innkeeper_workers.owner import Owner

ROOM = Address("ledger", "x")


async def _nowhere() -> AbstractConnection:
    raise ConnectionRefusedError


@pytest.fixture
def connect(own_valkey: Valkey) -> Connect:
    """Open connections to a server of this test's own."""
    return connector(own_valkey.url, timeout_s=5)


@pytest.fixture
async def fleet(connect: Connect) -> AsyncIterator[Fleet]:
    """A worker that serves ledgers, without its regular duties."""
    fleet = Fleet({"ledger": Ledger}, connect)
    await fleet.load_functions()
    yield fleet
    fleet.draining = True
    fleet.owners.clear()
    await fleet.close()


@pytest.fixture
async def edge(connect: Connect) -> AsyncIterator[Edge]:
    """An edge that is registered."""
    edge = Edge(connect)
    await load_library(edge.link)
    await edge.ready.wait()
    yield edge
    await edge.close()


def _member(edge: Edge) -> Member:
    transport = asyncio.Transport()
    socket = GuardedSocket(transport, lambda _: None, linger_s=1)
    return Member(socket, transport, edge.loop.time())


async def test_a_worker_takes_no_room_before_it_is_registered(fleet: Fleet) -> None:
    """Nobody would see it die: the rooms of a worker that is in no registry are looked after by no other."""
    await fleet.wake((ROOM,))
    serving = asyncio.create_task(fleet.serve_wakes())
    for _ in range(10):
        await fleet.link.call("PING")
    assert await fleet.link.call("ZCARD", keys.wake_queue("ledger")) == 1
    await Pulse(fleet)._beat()
    await until(lambda: ROOM in fleet.owners, "the room is owned")
    await fleet.drain(5)
    await serving


async def test_a_wake_that_comes_after_the_last_look_is_passed_on(
    fleet: Fleet, connect: Connect, own_link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A room found held, whose owner lets go while the claim is given up: its wake came to this worker alone."""
    room, call = RoomActs(own_link, ROOM), fleet.link.call
    await room.push(join())
    await room.own("w-first")
    listener = Subscriber(connect, on_message=lambda *_: None, on_fresh=lambda _: None)
    await listener.subscribe(room.keys.bell)
    fleet.consider(str(ROOM))
    await until(lambda: is_member(fleet, ROOM), "the claim is under way")
    await room.link.call(*room.delete("lock"))
    second = await room.own("w-second")

    async def let_go_meanwhile(*command: str | bytes | int) -> Reply:
        if command[0] == "SREM":
            await room.release(second, force=True, worker="w-second")
            fleet.consider(str(ROOM))
        return await call(*command)

    monkeypatch.setattr(fleet.link, "call", let_go_meanwhile)
    fleet.consider(str(ROOM))
    await until(lambda: is_woken(fleet, ROOM), "somebody else is told")
    await listener.close()


async def is_member(fleet: Fleet, room: Address) -> bool:
    """Return whether the worker's index has the room."""
    return bool(await fleet.link.call("SISMEMBER", keys.worker_rooms(fleet.incarnation), str(room)))


async def is_woken(fleet: Fleet, room: Address) -> bool:
    """Return whether the room stands in its wake queue."""
    return await fleet.link.call("ZSCORE", keys.wake_queue(room.kind), str(room)) is not None


@pytest.mark.parametrize("is_giving_back", [False, True])
async def test_a_lease_that_is_being_given_back_is_not_lost(fleet: Fleet, is_giving_back: bool) -> None:
    """A renewal that crosses the release of its room finds no token any more: what that means the release knows."""
    owner = Mock(keys=room_keys(ROOM), token="1:7", read_iseq=0, is_giving_back=is_giving_back)  # noqa: S106 - none, a token of ownership
    await Pulse(fleet)._renew([owner])
    assert owner.drop.called is not is_giving_back


async def test_a_worker_declared_dead_moves_its_rooms_to_its_new_name(fleet: Fleet) -> None:
    """The new incarnation is registered with its rooms at once; a list made under the old name too late goes."""
    pulse = Pulse(fleet)
    await pulse._beat()
    old = fleet.incarnation
    await fleet.link.call("ZREM", keys.WORKERS, old)
    await fleet.link.call("SADD", keys.worker_rooms(old), str(ROOM))
    fleet.owners[ROOM] = cast("Owner", None)
    await pulse._beat()
    assert fleet.incarnation != old
    assert await fleet.link.call("ZRANGE", keys.WORKERS, 0, -1) == [fleet.incarnation.encode()]
    assert await fleet.link.call("SMEMBERS", keys.worker_rooms(fleet.incarnation)) == [b"ledger/x"]
    assert await fleet.link.call("EXISTS", keys.worker_rooms(old)) == 0


async def test_a_worker_that_cannot_say_goodbye_goes_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """Its rooms are handed over; that Redis is away just then is no failure of the worker."""
    fleet = Fleet({"ledger": Ledger}, _nowhere)
    with caplog.at_level(logging.WARNING, "innkeeper"):
        await Pulse(fleet).say_goodbye()
    await fleet.close()
    assert f"worker {fleet.incarnation}: not taken out of the registry" in caplog.text


async def test_an_edge_declared_dead_leaves_no_list_of_rooms(edge: Edge) -> None:
    """Rooms that it entered before it heard of its death are reaped, and the list that names them goes."""
    old = edge.incarnation
    await edge.link.call("SADD", keys.edge_rooms(old), str(ROOM))
    edge.declared_dead()
    await until(lambda: _is_gone(edge, keys.edge_rooms(old)), "the list of the old incarnation is gone")


async def _is_gone(edge: Edge, key: str) -> bool:
    return bool(await edge.link.call("EXISTS", key) == 0)


async def test_who_was_not_let_in_or_is_reaped_has_nothing_to_say(edge: Edge) -> None:
    """What such a socket still holds is not pushed: after messages that were dropped it would be a hole."""
    feed, member = Feed(edge, ROOM), _member(edge)
    edge.take(feed, member, "text", b"1")
    assert (edge.ingress.has_work(feed), member.waiting_count) == (False, 0)
    member.pushed = True
    edge.take(feed, member, "text", b"1")
    assert (edge.ingress.has_work(feed), member.waiting_count) == (True, 1)
