"""The examples, each as its users would meet it: a whole house with its file as the target."""

import asyncio
import os
import time
from base64 import b64decode
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from harness.bots import Bot, bot
from harness.house import Client, House, until

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "examples"


def house_of(example: str, folder: Path) -> House:
    """Return a house that serves an example, with two edges and two workers."""
    return House(folder, edges=2, workers=2, target=str(EXAMPLES / f"{example}.py"))


def last(client: Client | Bot, kind: str) -> dict[str, Any]:
    """Return the newest frame of a type."""
    return next((frame for frame in reversed(client.got) if frame.get("type") == kind), {})


async def shows(client: Client | Bot, kind: str, fits: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Wait until a client's newest frame of a type fits."""
    await until(lambda: fits(last(client, kind)), f"a fitting {kind}", timeout_s=20, seen=client.got)
    return last(client, kind)


async def test_cursors(tmp_path: Path) -> None:
    """Who points is seen by the others, also by a newcomer, until it leaves; nonsense is told to its sender."""
    async with house_of("cursors", tmp_path) as house:
        ann = await house.join("cursors/main", name="ann")
        bob = await house.join("cursors/main", edge=1, name="bob")
        await shows(ann, "count", lambda f: f.get("count") == 2)
        await ann.send({"type": "point", "x": 0.25, "y": 0.5})
        point = await shows(bob, "point", lambda f: f.get("x") == 0.25)
        assert point["name"] == "ann"
        assert point["id"] == last(ann, "welcome")["you"]
        carl = await house.join("cursors/main", name="carl")
        await shows(carl, "point", lambda f: f.get("name") == "ann")
        await ann.send({"type": "point", "x": "left"})
        await until(lambda: any(f.get("error") == "invalid_message" for f in ann.got), "an error")
        await ann.close()
        await shows(bob, "gone", lambda f: f.get("id") == point["id"])
        assert not last(ann, "point")


async def play(player: Client, cell: int, mark: str) -> None:
    """Wait for the turn of a mark, and play a cell."""
    await shows(player, "game", lambda f: f.get("begun") and f["turn"] == mark and not f["winner"])
    await player.send({"type": "play", "cell": cell})


async def test_tic_tac_toe(tmp_path: Path) -> None:
    """Two are matched and play on the same sockets; rules hold; they go back for another game with the third."""
    async with house_of("tictactoe", tmp_path) as house:
        ann = await house.join("lobby/main", name="ann")
        await shows(ann, "waiting", bool)
        bob = await house.join("lobby/main", edge=1, name="bob")
        for player in (ann, bob):
            await shows(player, "game", lambda f: f.get("begun") is True)
        by_mark = {last(player, "you")["mark"]: player for player in (ann, bob)}
        x, o = by_mark["X"], by_mark["O"]
        await play(x, 0, "X")
        await play(o, 0, "O")
        await until(lambda: last(o, "error"), "that cell is taken")
        for player, mark, cell in ((o, "O", 3), (x, "X", 1), (o, "O", 4), (x, "X", 2)):
            await play(player, cell, mark)
        for player in (x, o):
            assert (await shows(player, "game", lambda f: f["winner"] == "X"))["board"][:3] == ["X"] * 3
        await x.send({"type": "again"})
        await until(lambda: x.got[-1] == {"type": "waiting"}, "it waits in the lobby", timeout_s=20, seen=x.got)
        carl = await house.join("lobby/main", name="carl")
        await shows(carl, "game", lambda f: f.get("begun") is True)
        await shows(x, "game", lambda f: f.get("begun") is True)
        assert [client.close_code for client in (ann, bob, carl)] == [None] * 3


def _sees_marks(player: Bot, count: int) -> bool:
    return sum(bool(mark) for mark in last(player, "game")["board"]) == count


@pytest.mark.parametrize("language", ["python", "js"])
async def test_tic_tac_toe_with_sessions(tmp_path: Path, language: str) -> None:
    """Clients of innkeeper.v1 go from the lobby to a match and back on one socket, as those in the page do."""
    async with (
        house_of("tictactoe", tmp_path) as house,
        bot(language, house.url("lobby/main"), "ann") as ann,
        bot(language, house.url("lobby/main", edge=1), "bob") as bob,
    ):
        for _ in range(2):
            for player in (ann, bob):
                await shows(player, "game", lambda f: f.get("begun") is True)
            x, o = sorted((ann, bob), key=lambda player: str(last(player, "you")["mark"]), reverse=True)
            for count, cell in enumerate((0, 3, 1, 4, 2)):
                player = (x, o)[count % 2]
                await until(partial(_sees_marks, player, count), f"{count} marks", timeout_s=20, seen=player.got)
                player.send({"type": "play", "cell": cell})
            for player in (x, o):
                await shows(player, "game", lambda f: f["winner"] == "X")
            x.got.clear()
            x.send({"type": "again"})
            await shows(x, "waiting", bool)
            o.got.clear()
            o.send({"type": "again"})
        for player in (ann, bob):
            await player.sees("moved", 5)
            assert player.count("down") == player.count("close") == player.count("resync") == 0
            assert player.lost == {}


async def test_arena(tmp_path: Path) -> None:
    """Twenty ticks a second while somebody is there; players steer, and the clock stops with the last one."""
    async with house_of("arena", tmp_path) as house:
        ann, bob = await house.join("arena/main", name="ann"), await house.join("arena/main", edge=1, name="bob")
        me = (await shows(ann, "welcome", bool))["you"]
        await shows(bob, "field", lambda f: len(f.get("players", ())) == 2)
        begun_s, first = time.monotonic(), last(bob, "field")["tick"]
        await asyncio.sleep(2)
        rate = (last(bob, "field")["tick"] - first) / (time.monotonic() - begun_s)
        assert 14 <= rate <= 22, rate
        ticks = [frame["tick"] for frame in bob.got if frame.get("type") == "field"]
        assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
        await ann.send({"type": "steer", "to": "up"})
        x, y = last(bob, "field")["players"][me][:2]
        await shows(bob, "field", lambda f: f["players"][me][1] != y)
        await ann.send({"type": "steer", "to": "sideways"})
        await until(lambda: any(f.get("error") == "invalid_message" for f in ann.got), "an error")
        assert 0 <= x < 40
        await ann.close()
        await shows(bob, "field", lambda f: list(f["players"]) != [] and me not in f["players"])
        await bob.close()
        await until(lambda: _is_still(house), "no timer is left", timeout_s=20)


def png(picture: Image.Image) -> bytes:
    """Return a picture as a file."""
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


async def pictures(client: Client, count: int) -> list[str]:
    """Return the pictures a client was shown, once there are so many."""

    def shown() -> list[str]:
        return [frame["png"] for frame in client.got if frame["type"] == "picture"]

    await until(lambda: len(shown()) >= count, f"{count} pictures", timeout_s=40, seen=client.got)
    return shown()


async def test_thumbnails(tmp_path: Path) -> None:
    """A job makes a picture small for all, a newcomer is shown it; nonsense and text are told to their sender only."""
    async with house_of("thumbnail", tmp_path) as house:
        await house.add_jobs()
        ann = await house.join("thumbnail/main", name="ann")
        bob = await house.join("thumbnail/main", edge=1, name="bob")
        await ann.send(png(Image.new("RGB", (400, 200), "#c0392b")))
        for client in (ann, bob):
            small = Image.open(BytesIO(b64decode((await shows(client, "picture", bool))["png"])))
            assert (small.format, small.size, small.getpixel((80, 40))) == ("PNG", (160, 80), (0xC0, 0x39, 0x2B))
        assert [frame["count"] for frame in bob.got if frame["type"] == "working"] == [1, 0]
        await ann.send(b"no picture")
        assert "failed: UnidentifiedImageError" in (await shows(ann, "error", bool))["text"]
        await ann.send({"text": "no picture"})
        await shows(ann, "error", lambda f: f["text"] == "send a picture as a binary message")
        carl = await house.join("thumbnail/main", name="carl")
        assert await shows(carl, "picture", bool) == last(ann, "picture")
        await bob.send(png(Image.new("RGB", (1000, 1000), "#2471a3")))
        both = await pictures(ann, 2)
        assert [await pictures(client, 2) for client in (bob, carl)] == [both, both]
        assert not last(bob, "error")
        assert not last(carl, "error")


async def test_a_wall_of_thumbnails(tmp_path: Path) -> None:
    """Twenty of the largest are kept, and shown to a newcomer."""
    async with house_of("thumbnail", tmp_path) as house:
        await house.add_jobs()
        ann = await house.join("thumbnail/main", name="ann")
        for _ in range(22):
            noise = Image.frombytes("RGB", (160, 160), os.urandom(160 * 160 * 3))  # nothing makes it smaller
            await ann.send(png(noise))
        made = await pictures(ann, 22)
        bob = await house.join("thumbnail/main", edge=1, name="bob")
        assert await pictures(bob, 20) == made[2:]


async def _is_still(house: House) -> bool:
    return not await house.redis.exists("inn:{arena/main}:timers")
