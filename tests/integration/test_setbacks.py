"""A room whose task fails, though no hook did: what it fails on is put aside, the room goes on, the worker lives."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from harness.acts import RoomActs, join, text
from harness.house import until
from harness.valkey import Valkey
from innkeeper import Connection, Room, keys
from innkeeper.address import Address
from innkeeper.errors import RedisReplied
from innkeeper.redis_client import Link, connector
from innkeeper_workers import fleet as fleets
from innkeeper_workers.fleet import Fleet

LONE = b"\xed\xa0\x80".decode(errors="surrogatepass")


class Cursed(Room):
    """Can make a commit that cannot be sent; no call of a room lets a handler do that, so it goes behind its back."""

    starts = 0

    def on_start(self) -> None:
        """Count."""
        Cursed.starts += 1

    async def on_message(self, conn: Connection, message: Any) -> None:
        """Note the message; do what it says."""
        self.state["said"] = [*self.state.get("said", []), message]
        conn.send({"heard": message})
        if message == "curse":
            self._context.owe("post", LONE, b"")
        if message == "quit":
            raise GeneratorExit
        if message == "quit later":
            await asyncio.sleep(0)
            raise GeneratorExit


@pytest.fixture
async def fleet(own_valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    """A worker's fleet that claims what it is told to consider, soon after a failure too."""
    monkeypatch.setattr(fleets, "_PAUSE_AFTER_FAILURE_S", 0.02)
    Cursed.starts = 0
    fleet = Fleet({"cursed": Cursed}, connector(own_valkey.url, timeout_s=0.5))
    yield fleet
    await fleet.close()


async def served(fleet: Fleet, link: Link, *messages: bytes) -> RoomActs:
    """Return a room that has come to the end of these messages."""
    room = RoomActs(link, Address("cursed", "x"))
    await link.call("ZADD", keys.EDGES, await room.server_ms(), "e1")
    await room.push(join(), *(text(data=message) for message in messages))
    fleet.consider("cursed/x")

    async def done() -> bool:
        return (await room.hash("meta")).get("cursor") == str(1 + len(messages))

    await until(done, "the room comes to the end", seen=lambda: Cursed.starts)
    return room


async def test_an_event_that_the_room_fails_on_is_put_aside(fleet: Fleet, own_link: Link) -> None:
    """Events before and after it in the same turn count, it alone lies in dead, with the traceback of its failure."""
    room = await served(fleet, own_link, b'"one"', b'"curse"', b'"two"', b'"curse"', b'"three"')
    assert (await room.hash("state"))["said"] == '["one","two","three"]'
    dead = [fields for _, fields in await room.stream("dead")]
    assert [fields["data"] for fields in dead] == [b'"curse"', b'"curse"']
    for fields in dead:
        assert fields["error"].startswith(b"the room failed on it 3 times: UnicodeEncodeError: ")
        assert fields["traceback"].startswith(b"Traceback")
        assert fields["traceback"].rstrip().endswith(b"surrogates not allowed")
    assert Cursed.starts <= 1 + 2 * 4  # each is found in one turn of many, and tried three times alone at most
    assert fleet.owners
    assert not fleet.out_of_memory.is_set()


@pytest.mark.parametrize("message", [b'"quit"', b'"quit later"'])
async def test_generator_exit_is_a_failure_like_any_other(fleet: Fleet, own_link: Link, message: bytes) -> None:
    """A hook that raises GeneratorExit has failed; its room is not even loaded again."""
    room = await served(fleet, own_link, b'"one"', message, b'"two"')
    assert (await room.hash("state"))["said"] == '["one","two"]'
    ((_, fields),) = await room.stream("dead")
    assert fields["error"] == b"RuntimeError: the hook raised GeneratorExit"
    assert Cursed.starts == 1


async def test_what_redis_refuses_speaks_against_no_event(
    fleet: Fleet, own_link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A room whose commits Redis refuses waits until it takes them; nothing is put aside."""
    refusals = 6
    send = fleet.commit_link.send

    async def refused(commands: Any) -> Any:
        nonlocal refusals
        if refusals and "commit" in str(next(iter(commands))[1]):
            refusals -= 1
            return [RedisReplied("OOM command not allowed when used memory > 'maxmemory'.")]
        return await send(commands)

    monkeypatch.setattr(fleet.commit_link, "send", refused)

    async def wake(_: Any) -> None:
        fleet.consider("cursed/x")

    monkeypatch.setattr(fleet, "wake", wake)
    room = await served(fleet, own_link, b'"one"')
    monkeypatch.undo()
    assert not refusals
    assert "dead" not in await room.exist()
