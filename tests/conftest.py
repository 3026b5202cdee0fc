"""Fixtures of all tests: one private valkey-server per test process, a link to it, and a room of the test's own."""

import signal
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from harness.acts import Listener, RoomActs
from harness.node import node_program
from harness.valkey import Valkey
from innkeeper.address import Address
from innkeeper.functions.library import load_library
from innkeeper.redis_client import Link, connector

# Tests share two cores: a slow example says nothing about the code.
settings.register_profile("innkeeper", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("innkeeper")

# Programs that tests start answer Ctrl-C; a shell that runs the tests in its background would have them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A server that this test process shares; tests use rooms of their own on it."""
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def node() -> str:
    """The node program, with the packages of others' clients."""
    return node_program()


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A server for one test, which may kill, stop or fill it."""
    server = Valkey()
    yield server
    server.stop()


@pytest.fixture
async def link(valkey: Valkey) -> AsyncIterator[Link]:
    """Commands to the shared server, with the functions loaded."""
    link = Link(connector(valkey.url, timeout_s=5), timeout_s=5, name="test")
    await load_library(link)
    yield link
    await link.close()


@pytest.fixture
async def own_link(own_valkey: Valkey) -> AsyncIterator[Link]:
    """Commands to a server of this test's own, with the functions loaded."""
    link = Link(connector(own_valkey.url, timeout_s=5), timeout_s=5, name="test")
    await load_library(link)
    yield link
    await link.close()


@pytest.fixture
def address() -> Address:
    """A room that no other test uses."""
    return Address("test", uuid.uuid4().hex)


@pytest.fixture
def room(link: Link, address: Address) -> RoomActs:
    """The acts on a room that no other test uses."""
    return RoomActs(link, address)


@pytest.fixture
async def listener(valkey: Valkey) -> AsyncIterator[Listener]:
    """Ears on the shared server."""
    listener = Listener(connector(valkey.url, timeout_s=5))
    yield listener
    await listener.subscriber.close()
