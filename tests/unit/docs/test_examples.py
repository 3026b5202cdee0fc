"""The rooms in examples/, tested as a user would test them."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from pycrdt import Doc, Text, create_update_message

from innkeeper.testing import Client, RoomHarness

EXAMPLES = Path(__file__).parents[3] / "examples"


def module_of(file: str) -> Any:
    """Import an example."""
    spec = importlib.util.spec_from_file_location(f"example_{file}", EXAMPLES / f"{file}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    room = RoomHarness(module_of("chat").Chat)
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


async def test_yjs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of two writers is the same after crashes, also where its updates were merged into one."""
    module = module_of("yjs")
    monkeypatch.setattr(module, "COMPACT_AFTER", 10)

    async def write(room: RoomHarness) -> None:
        writers: list[tuple[Client, Doc[Text]]] = [
            (await room.join(name), Doc(client_id=number)) for number, name in enumerate(("ann", "bob"), 1)
        ]
        for number in range(25):
            client, doc = writers[number % 2]
            before = doc.get_state()
            text = doc.get("text", type=Text)
            text += f"{number} "
            await client.send(create_update_message(doc.get_update(before)))
        assert room.dead == []

    room = RoomHarness(module.Yjs)
    await write(room)
    assert len(room.state) < 10
    await room.crash_everywhere(write)
    await room.duplicate_owner(write)


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_every_example_is_known_here(name: str) -> None:
    """A new example gets a test, here or of its own kind."""
    assert name in {"chat", "yjs"}, "test it here, or name the test that does"
