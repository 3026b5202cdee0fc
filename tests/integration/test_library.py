"""The function library on a real server: loaded once, two side by side, back after a flush."""

import asyncio
import zlib
from collections.abc import AsyncIterator

import pytest
from pytest import MonkeyPatch  # noqa: PT013 - the type

from harness.acts import RoomActs, join, text
from harness.valkey import Valkey
from innkeeper import functions
from innkeeper.address import Address
from innkeeper.errors import FunctionMissing
from innkeeper.functions import library
from innkeeper.functions.library import HASH, NAME, library_code, load_library
from innkeeper.redis_client import Link, connector


@pytest.fixture
async def own_link(own_valkey: Valkey) -> AsyncIterator[Link]:
    """Commands to a server of this test's own, without functions."""
    link = Link(connector(own_valkey.url, timeout_s=5), timeout_s=5, name="test")
    yield link
    await link.close()


async def libraries(link: Link) -> set[str]:
    """Return the names of the libraries on the server."""
    listing = await link.call("FUNCTION", "LIST")
    return {dict(zip(entry[::2], entry[1::2], strict=True))[b"library_name"].decode() for entry in listing}


def version(monkeypatch: MonkeyPatch, text_of_it: str) -> str:
    """Make the library another version; return its name."""
    digest = f"{zlib.crc32(text_of_it.encode()):08x}"
    monkeypatch.setattr(library, "HASH", digest)
    monkeypatch.setattr(library, "NAME", f"inn_{digest}")
    return f"inn_{digest}"


async def test_loading_is_idempotent(own_link: Link) -> None:
    """Many workers may load at once and again; there is one library, and it is not loaded anew."""
    await asyncio.gather(*(load_library(own_link) for _ in range(5)))
    assert await libraries(own_link) == {NAME}
    listing = await own_link.call("FUNCTION", "LIST", "WITHCODE")
    await load_library(own_link)
    assert await own_link.call("FUNCTION", "LIST", "WITHCODE") == listing


async def test_the_library_offers_every_act_under_its_hash(own_link: Link) -> None:
    """Function names carry the hash of the source; only push and post are refused when memory is full."""
    await load_library(own_link)
    (entry,) = await own_link.call("FUNCTION", "LIST", "LIBRARYNAME", NAME)
    declared = dict(zip(entry[::2], entry[1::2], strict=True))[b"functions"]
    found = {row[1].decode(): row[5] for row in declared}
    assert set(found) == {f"inn_{act}_{HASH}" for act in library.ACTS}
    assert {name for name, flags in found.items() if flags != [b"allow-oom"]} == {
        f"inn_push_{HASH}",
        f"inn_post_{HASH}",
    }


async def test_the_two_newest_stand_side_by_side(own_link: Link, monkeypatch: MonkeyPatch) -> None:
    """A roll-out has old and new workers at once: the older functions still work; a third version retires them."""
    await load_library(own_link)
    second = version(monkeypatch, "second")
    await load_library(own_link)
    assert await libraries(own_link) == {NAME, second}
    room = RoomActs(own_link, Address("test", "old"))
    assert (await room.push(join())).letters == "a"
    third = version(monkeypatch, "third")
    await load_library(own_link)
    assert await libraries(own_link) == {second, third}
    with pytest.raises(FunctionMissing):
        await room.push(text())


async def test_a_retired_library_comes_back_when_its_worker_asks(own_link: Link, monkeypatch: MonkeyPatch) -> None:
    """An old worker that finds its functions gone loads them; then they are the newest and stay."""
    names = [version(monkeypatch, text_of_it) for text_of_it in "abc"]
    for name in (*names, names[0]):
        monkeypatch.setattr(library, "HASH", name[4:])
        monkeypatch.setattr(library, "NAME", name)
        await load_library(own_link)
    assert await libraries(own_link) == {names[0], names[2]}


async def test_other_peoples_libraries_stay(own_link: Link, monkeypatch: MonkeyPatch) -> None:
    """Only libraries with our prefix are counted and retired."""
    other = "#!lua name=theirs\nredis.register_function('theirs', function() return 1 end)"
    await own_link.call("FUNCTION", "LOAD", other)
    for text_of_it in "abc":
        version(monkeypatch, text_of_it)
        await load_library(own_link)
    assert "theirs" in await libraries(own_link)
    assert len(await libraries(own_link)) == 3


async def test_functions_come_back_after_a_flush(own_link: Link) -> None:
    """A Redis that came back without functions says so in an error of its own; loading again mends it."""
    await load_library(own_link)
    await own_link.call("FUNCTION", "FLUSH")
    room = RoomActs(own_link, Address("test", "flush"))
    with pytest.raises(FunctionMissing):
        await room.push(join())
    await load_library(own_link)
    assert (await room.push(join())).letters == "a"


def test_the_code_says_when_it_was_loaded() -> None:
    """The header holds name and time of loading; the functions end in the hash."""
    code = library_code("1700000000000000")
    assert code.startswith(f"#!lua name={NAME}\n-- loaded 1700000000000000\n")
    assert f"inn_push_{HASH}" == functions.PUSH
    assert f"function_name='{functions.PUSH}'" in code
