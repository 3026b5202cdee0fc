"""The rooms in examples/, tested as a user would test them."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from innkeeper import Room
from innkeeper.testing import RoomHarness

EXAMPLES = Path(__file__).parents[3] / "examples"


def room_of(file: str, name: str) -> type[Room[Any]]:
    """Return a room class of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{file}", EXAMPLES / f"{file}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    room_class: type[Room[Any]] = getattr(module, name)
    return room_class


async def talk(room: RoomHarness) -> None:
    """Let a conversation happen in a chat."""
    ann, bob = await room.join("ann"), await room.join("bob")
    for number in range(60):
        await ann.send({"text": f"ann {number}"})
        await bob.send({"text": number})
    await bob.send({"no": "text"})
    await room.leave(ann)
    assert len(room.dead) == 1


async def test_chat() -> None:
    """Newcomers get the last hundred messages and who is in; crashes change nothing."""
    room = RoomHarness(room_of("chat", "Chat"))
    await talk(room)
    eve = await room.join("eve")
    history, members = eve.received
    assert (len(history["messages"]), history["messages"][-1]) == (
        100,
        {"type": "message", "from": "bob", "text": "59"},
    )
    assert members == {"type": "members", "names": ["bob", "eve"]}
    await room.crash_everywhere(talk)
    await room.duplicate_owner(talk)


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_every_example_is_known_here(name: str) -> None:
    """A new example gets a test, here or of its own kind."""
    assert name in {"chat", "yjs"}, "test it here, or name the test that does"
