"""The Python in README.md and docs/*.md: it runs, the rooms it defines are played with, and its tests pass."""

import inspect
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
from aiohttp.test_utils import make_mocked_request

import innkeeper.client
from innkeeper import Innkeeper, Response, Room, User
from innkeeper.address import parse_address
from innkeeper.outside.ear import Output
from innkeeper.outside.room import Member, OutsideRoom, Tail
from innkeeper.outside.sync import SyncInnkeeper, SyncRoom
from innkeeper.testing import RoomHarness
from innkeeper_edge.auth import Grant
from innkeeper_edge.auth.function import FunctionAuthenticator
from innkeeper_edge.auth.jwt_keys import secret_key
from innkeeper_edge.auth.tokens import JwtAuthenticator, JwtSettings

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def snippets() -> list[Any]:
    """Return every Python snippet of the pages, named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in SNIPPET.finditer(text):
            line = text.count("\n", 0, match.start()) + 2
            found.append(pytest.param(page, line, match[1], id=f"{page.name}:{line}"))
    return found


def run(page: Path, line: int, code: str) -> dict[str, Any]:
    """Run a snippet; return what it defines. Errors name the page's lines."""
    names: dict[str, Any] = {"__name__": f"snippet_{line}"}
    exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)  # noqa: S102 - our own pages
    return names


def rooms_of(page: Path, line: int, code: str) -> dict[str, type[Room[Any]]]:
    """Run a snippet; return the rooms it defines."""
    return {
        name: value
        for name, value in run(page, line, code).items()
        if inspect.isclass(value) and issubclass(value, Room) and value is not Room
    }


Programs = SimpleNamespace


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Let programs of the pages connect to stand-ins that take only calls that the real ones take."""
    tail = create_autospec(Tail, instance=True)
    tail.__aenter__.return_value = tail
    tail.__aiter__.return_value = [Output("5-1", "text *", b'"hello"')]
    outside = create_autospec(OutsideRoom, instance=True)
    outside.request.return_value = Response({"id": 7}, 201)
    outside.state.return_value = {"topics": 1}
    outside.members.return_value = [Member("c-1", User("", "ann"), 1, None, frozenset())]
    outside.tail.return_value = tail
    inn = create_autospec(Innkeeper, instance=True)
    inn.__aenter__.return_value = inn
    inn.room.return_value = outside
    sync = create_autospec(SyncRoom, instance=True)
    sync_inn = create_autospec(SyncInnkeeper, instance=True)
    sync_inn.__enter__.return_value = sync_inn
    sync_inn.room.return_value = sync
    member = create_autospec(innkeeper.client.Room, instance=True)
    member.__aenter__.return_value = member
    member.__aiter__.return_value = [{"text": "welcome"}]
    member.send.side_effect = lambda _: _accepted()
    for place, name, made in (
        (Innkeeper, "connect", inn),
        (Innkeeper, "connect_sync", sync_inn),
        (innkeeper.client, "connect", member),
    ):
        monkeypatch.setattr(place, name, create_autospec(getattr(place, name), return_value=made))
    return SimpleNamespace(outside=outside, sync=sync, member=member)


async def _accepted() -> None:
    """Stand for what ``send`` of a client returns."""


@pytest.mark.parametrize(("page", "line", "code"), snippets())
def test_every_snippet_runs(page: Path, line: int, code: str) -> None:
    """What is shown can be copied; whatever says that it defines a room does."""
    assert bool(rooms_of(page, line, code)) == ("(Room" in code)


Play = Callable[[RoomHarness], Awaitable[None]]


def says(message: Any, answer: Any) -> Play:
    """Return a history: somebody joins and says something, and the room says that at last."""

    async def play(room: RoomHarness) -> None:
        ann = await room.join("ann")
        ann.take()
        await ann.send(message)
        assert ann.take()[-1] == answer

    return play


async def auction(room: RoomHarness) -> None:
    """Let the timers run when the page says, until none is left."""
    ann = await room.join("ann")
    await ann.send(7)
    await room.clock.advance(1250)
    assert ann.take() == [{"best": 7}, {"text": "still open"}, {"text": "still open"}]
    await room.clock.advance(10_000)
    assert ann.take()[-1] == {"closed": True}
    assert not room._stored.timers


async def guestbook(room: RoomHarness) -> None:
    """Write into it and read it, as a page would by fetch()."""
    ann = await room.join("ann")
    written = await room.request("POST", body={"text": "hi"})
    assert (written.status, written.json(), ann.take()) == (201, {"posts": 1}, [{"posts": 1}])
    assert (await room.request("POST", body=b"{no")).status == 400
    read = await room.request("GET")
    assert (read.status, read.json()) == (200, [{"text": "hi"}])


async def player(room: RoomHarness) -> None:
    """Let one score."""
    ann = await room.join("ann")
    await ann.send({"score": 3})
    assert room.outbox == [("post", "lobby/main", {"sender": room.address, "value": {"score": 3}})]


async def lobby(room: RoomHarness) -> None:
    """Bring what players post."""
    ann = await room.join("ann")
    await room.post({"score": 3}, sender="player/bob")
    assert (ann.take(), room.state) == ([{"from": "player/bob", "score": 3}], {"player/bob": 3})


async def report(room: RoomHarness) -> None:
    """Let a job end well and another one badly."""
    ann = await room.join("ann")
    await ann.send({"text": "three short words"})
    (first,) = room.jobs
    assert (first.function.partition(":")[2], first.args, first.timeout_s) == (
        "count_words",
        ("three short words",),
        20,
    )
    await room.finish(first.id, 3)
    await ann.send({"text": ""})
    await room.finish(room.jobs[1].id, error="it died")
    assert ann.take() == [{"words": 3}, {"error": "it died"}]


async def thumbs(room: RoomHarness) -> None:
    """Have a picture made small, fetched and forgotten."""
    ann = await room.join("ann")
    await ann.send("large.png")
    await room.finish(room.jobs[0].id, "small.png")
    assert ann.take() == [{"small": "small.png"}]
    assert (await room.request("GET", "/last")).text() == "small.png"
    await room.post("forget", sender="gallery/main")
    assert (await room.request("GET", "/last")).status == 204


async def office(room: RoomHarness) -> None:
    """Let one in, and one not."""
    ann, mallory = await room.join("ann"), await room.join("mallory")
    assert (ann.is_open, mallory.closed) == (True, (4403, "refused"))


PLAYS: dict[str, Play] = {
    "Counter": says("x", {"count": 1, "by": "ann"}),
    "Chat": says({"text": "hi"}, {"from": "ann", "text": "hi"}),
    "Board": says({"type": "move", "x": 1, "y": 2}, {"type": "at", "x": 1, "y": 2}),
    "Poll": says("tea", {"tea": 1}),
    "Table": says({"points": 2}, {"score": {"ann": 2}}),
    "Door": says("open", "open"),
    "Auction": auction,
    "Guestbook": guestbook,
    "Player": player,
    "Lobby": lobby,
    "Report": report,
    "Thumbs": thumbs,
    "Forgetful": says("x", 1),
    "Careful": says("x", 1),
    "Office": office,
}
"""What happens to each room of the pages."""


@pytest.mark.parametrize(("page", "line", "code"), snippets())
async def test_the_rooms_of_the_pages_do_what_they_say(page: Path, line: int, code: str) -> None:
    """Each is played with, also under crashes; one that is not in the table above fails."""
    for name, room_class in rooms_of(page, line, code).items():
        assert name in PLAYS, f"{page.name}:{line} defines {name}: tell in PLAYS what happens to it"
        room = RoomHarness(room_class)
        await PLAYS[name](room)
        room.check()
        await room.crash_everywhere(PLAYS[name])
        await room.duplicate_owner(PLAYS[name])


def test_every_play_is_of_a_room() -> None:
    """What is in no page any more is not in the table either."""
    assert set(PLAYS) == {name for found in snippets() for name in rooms_of(*found.values)}


# --- programs ---------------------------------------------------------------------------------------------------------
def function_of(page: str, name: str) -> Any:
    """Return a function that a snippet of a page defines."""
    (found,) = [each for each in snippets() if each.values[0].name == page and f"def {name}(" in each.values[2]]
    return run(*found.values)[name]


async def test_the_program_of_outside_md(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    """Every call in it is one that there is, and it prints what came."""
    await function_of("outside.md", "main")()
    room = programs.outside
    room.post.assert_awaited_once_with({"text": "the deploy is done"})
    room.destroy.assert_awaited_once_with()
    assert capsys.readouterr().out.splitlines() == [
        "201 {'id': 7}", "{'topics': 1} ['ann']", "5-1 text * b'\"hello\"'",
    ]  # fmt: skip


async def test_the_program_without_await_of_outside_md(programs: Programs) -> None:
    """It runs as it is read."""
    (found,) = [each for each in snippets() if "connect_sync" in each.values[2]]
    run(*found.values)
    programs.sync.post.assert_called_once_with({"text": "hello"})


async def test_the_bot_of_clients_md(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    """It says hello and prints what it hears."""
    await function_of("clients.md", "greet")("ws://127.0.0.1:8000/parties/chat/lobby")
    programs.member.send.assert_called_once_with({"text": "hello"})
    assert capsys.readouterr().out == "{'text': 'welcome'}\n"


async def test_the_tokens_of_auth_md() -> None:
    """An edge that is set up as the page says takes the token that the page makes, for the rooms it names."""
    secret = "s" * 32
    token = function_of("auth.md", "room_token")("u-1", "Ann", secret)
    keys = (secret_key(secret.encode()),)
    grant = await JwtAuthenticator(JwtSettings(keys, "", ("HS256",), ("rooms.example.com",))).renew(token)
    assert grant is not None
    assert tuple(grant.user) == ("u-1", "Ann")
    rooms = ("chat/lobby", "inbox/u-1", "inbox/u-2")
    assert [parse_address(room) in grant.rooms for room in rooms] == [True, True, False]


@pytest.mark.parametrize(("cookie", "user"), [("s3cr3t-cookie", "u-17"), ("other", None)])
async def test_the_function_of_auth_md(cookie: str, user: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says who has the cookie, in a form that an edge takes."""
    monkeypatch.setitem(sys.modules, "doors", Programs(who=function_of("auth.md", "who")))
    request = make_mocked_request("GET", "/parties/chat/lobby", {"Cookie": f"session={cookie}"})
    grant = await FunctionAuthenticator("doors:who").grant(request)
    assert (grant.user.id if isinstance(grant, Grant) else None) == user


def test_the_tests_of_the_pages_pass(tmp_path: Path) -> None:
    """The examples of testing.md are tests; a pytest of their own runs them all."""
    page = ROOT / "docs" / "testing.md"
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    codes = [match[1] for match in SNIPPET.finditer(page.read_text(encoding="utf-8"))]
    (tmp_path / "conftest.py").write_text(codes.pop(0))
    for number, code in enumerate(codes):
        (tmp_path / f"test_{number}.py").write_text(code)
    arguments = ["-p", "no:cacheprovider", "-p", "no:randomly", "-q", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    count = sum(code.count("async def test_") for code in codes)
    assert re.search(rf"^{count} passed", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert count >= 3
