"""The rooms in examples/, tested as a user would test them."""

import importlib.util
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, UnidentifiedImageError
from pycrdt import Doc, Text, create_update_message

from innkeeper.testing import Client, Diverged, RoomHarness

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


async def test_yjs_cursors() -> None:
    """An editor gets its own cursor back, or y-websocket would take its socket for dead; others are told it goes."""
    module = module_of("yjs")
    room = RoomHarness(module.Yjs)
    ann, bob = await room.join("ann"), await room.join("bob")
    cursor = module.awareness_message([(7, 3, '{"at":1}')])
    await ann.send(cursor)
    assert ann.received[-1] == bob.received[-1] == cursor
    await room.leave(ann)
    assert module.read_awareness(bob.received[-1]) == [(7, 4, "null")]


async def play(room: RoomHarness) -> None:
    """Let two play a game to its end, one of them against the rules."""
    ann, bob = await room.join("ann"), await room.join("bob")
    for client, cell in ((ann, 0), (ann, 1), (bob, 0), (bob, 3), (ann, 1), (bob, 99), (bob, 4), (ann, 2), (bob, 5)):
        await client.send({"type": "play", "cell": cell})
    games = [frame for frame in ann.received if frame["type"] == "game"]
    assert games[-1]["board"] == ["X", "X", "X", "O", "O", "", "", "", ""]
    assert games[-1]["winner"] == "X"
    await ann.send({"type": "again"})
    assert (ann.moved, bob.received[-1]["type"]) == ("lobby/main", "error")
    await room.leave(bob)
    assert room.commits[-1].is_end


async def test_tictactoe() -> None:
    """A match keeps all of itself in its state, and ends with its last player."""
    module = module_of("tictactoe")
    room = RoomHarness(module.Match)
    await play(room)
    room.check()
    await room.crash_everywhere(play)
    await room.duplicate_owner(play)
    lobby = RoomHarness(module.Lobby, "main")
    players = [await lobby.join(name) for name in ("ann", "bob", "eve")]
    assert [player.moved[:6] for player in players] == ["match/", "match/", ""]
    assert players[0].moved == players[1].moved
    assert players[2].received == [{"type": "waiting"}]


async def run_about(room: RoomHarness) -> None:
    """Let two players steer for some seconds, then leave."""
    ann, bob = await room.join("ann"), await room.join("bob")
    for way in ("up", "left", "down", "nowhere", "right"):
        await ann.send({"type": "steer", "to": way})
        await room.clock.advance(0.61)
    await room.leave(ann)
    await room.leave(bob)
    await room.clock.advance(10)


async def test_arena() -> None:
    """The field ticks twenty times a second while somebody is there, whatever crashes."""
    room = RoomHarness(module_of("arena").Arena)
    await run_about(room)
    room.check()
    assert room.state.tick == 60
    await room.crash_everywhere(run_about)
    await room.duplicate_owner(run_about)


async def test_cursors() -> None:
    """Cursors live in an attribute, on purpose: a newcomer after a crash does not see them, and the harness says so."""

    async def point(room: RoomHarness) -> None:
        ann, bob = await room.join("ann"), await room.join("bob")
        await ann.send({"type": "point", "x": 0.5, "y": 0.25})
        await bob.send({"type": "point", "x": 0.1, "y": 0.1})
        await room.join("eve")

    room = RoomHarness(module_of("cursors").Cursors)
    await point(room)
    seen = [frame["name"] for frame in room.clients[2].received if frame["type"] == "point"]
    assert seen == ["ann", "bob"]
    with pytest.raises(Diverged, match="in commit 5"):
        await room.crash_everywhere(point)


async def test_thumbnail() -> None:
    """A picture is made small by a job and shown to all, a newcomer too; who asked hears of what goes wrong."""
    module = module_of("thumbnail")
    large = BytesIO()
    Image.new("RGB", (400, 200), "red").save(large, "PNG")

    async def show(room: RoomHarness) -> None:
        ann, bob = await room.join("ann"), await room.join("bob")
        await ann.send("no picture")
        await ann.send(large.getvalue())
        await ann.send(b"no picture either")
        good, bad = room.jobs
        assert [job.function for job in room.jobs] == ["example_thumbnail:shrink"] * 2
        with pytest.raises(UnidentifiedImageError) as raised:
            module.shrink(*bad.args)
        await room.finish(bad.id, error=type(raised.value).__name__)
        await room.finish(good.id, module.shrink(*good.args, **good.kwargs))
        assert [frame["type"] for frame in ann.received] == [
            "error", "working", "working", "working", "error", "working", "picture",
        ]  # fmt: skip
        assert [frame["count"] for frame in bob.received[:-1]] == [1, 2, 1, 0]
        eve = await room.join("eve")
        assert eve.received == [bob.received[-1]]
        with Image.open(BytesIO(b64decode(eve.received[0]["png"]))) as small:
            assert (small.format, small.size) == ("PNG", (160, 80))
        await bob.send(large.getvalue())
        await room.leave(bob)
        await room.clock.advance(2 * 3600)

    room = RoomHarness(module.Thumbnail)
    await show(room)
    room.check()
    assert room.state["asked"] == {}
    await room.crash_everywhere(show)
    await room.duplicate_owner(show)


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_every_example_is_known_here(name: str) -> None:
    """A new example gets a test here."""
    assert f"test_{name}" in globals()
