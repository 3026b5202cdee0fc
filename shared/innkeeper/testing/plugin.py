"""A pytest plugin; a test suite loads it by ``pytest_plugins = ["innkeeper.testing.plugin"]`` in its conftest.py."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import pytest

from innkeeper.room import Room
from innkeeper.testing.harness import RoomHarness


class MakeRoom(Protocol):
    """Makes rooms in memory for one test."""

    def __call__(
        self, room_class: type[Room[Any]], name: str = "test", *, state: Mapping[str, Any] | None = None
    ) -> RoomHarness:
        """Return a room; the arguments are those of :class:`RoomHarness`."""


@pytest.fixture
def make_room() -> Iterator[MakeRoom]:
    """Make rooms in memory; the test fails where one of their events has failed and ``room.dead`` was not looked at."""
    made: list[RoomHarness] = []

    def make(room_class: type[Room[Any]], name: str = "test", *, state: Mapping[str, Any] | None = None) -> RoomHarness:
        made.append(RoomHarness(room_class, name, state=state))
        return made[-1]

    yield make
    for room in made:
        room.check()
