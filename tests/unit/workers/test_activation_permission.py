"""What ``authorize`` decides in a room instance: joins, requests and sessions that come back."""

import asyncio
from typing import Any

import orjson
import pytest

from harness.activations import Stage, staged
from innkeeper import Connection, Request, Response, Room, User
from innkeeper.activation import permission
from innkeeper.testing import RoomHarness
from innkeeper.turn import Turn


class Club(Room):
    """Lets in who is on a list; writes down who came."""

    grace_s = 5.0
    barred = frozenset[str]()
    asked: list[tuple[str, str]]

    @classmethod
    async def authorize(cls, user: User, name: str) -> bool:
        """Look at the list."""
        cls.asked.append((user.id, name))
        if user.id == "hang":
            await asyncio.sleep(3600)
        if user.id == "break":
            raise OSError("the list is at hunter2")
        return user.id not in cls.barred

    def on_connect(self, conn: Connection) -> None:
        """Write it down."""
        self.state.setdefault("came", []).append(conn.user.id)

    def on_leave(self, conn: Connection) -> None:
        """Write it down."""
        self.state.setdefault("left", []).append(conn.user.id)

    def on_request(self, request: Request) -> Any:
        """Answer."""
        return {"to": request.user.id}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with an empty list."""
    monkeypatch.setattr(Club, "barred", frozenset(), raising=False)
    monkeypatch.setattr(Club, "asked", [], raising=False)
    monkeypatch.setattr(permission, "_ANSWER_S", 0.05)


async def session(stage: Stage, kind: str, generation: int, data: bytes = b"") -> Turn:
    """Run an event of the session s1 of connection c1."""
    event = stage.event(kind, "c1", data)._replace(session=b"s1", generation=generation)
    rest = stage.activation.handle(event)
    if rest is not None:
        await rest
    return stage.take_turn()


@pytest.mark.parametrize("user", ["no", "break", "hang"])
async def test_who_may_not_enter_never_was_there(
    user: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """False, a failure and no answer in time are the same to a client: 4403, no hook, no member, no reason."""
    monkeypatch.setattr(Club, "barred", frozenset({"no"}))
    stage = await staged(Club)
    turn = await stage.join(name=user)
    assert turn.outputs == [(b"refuse c1", b"4403 refused")]
    assert (stage.members, turn.state_set, Club.asked) == ([], {}, [(user, "x")])
    assert ("authorize failed" in caplog.text) == (user != "no")
    assert (await stage.join("c2", name="yes")).outputs[0][0] == b"join 2 c2"


@pytest.mark.parametrize("user", ["no", "break", "hang"])
async def test_who_may_not_enter_may_not_ask(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request of such a user is answered with 403, that of a program is not judged."""
    monkeypatch.setattr(Club, "barred", frozenset({"no", ""}))
    stage = await staged(Club)

    async def ask(edge: str, asker: User) -> Response:
        turn = await stage.handle("request", "q-1", Request("GET", "/", user=asker).encode(), edge)
        return Response.decode(dict(turn.outputs)[b"answer q-1"])

    refused = await ask("e-1", User(user, user))
    assert (refused.status, refused.json()) == (403, {"error": "forbidden"})
    assert (await ask("e-1", User("yes", "yes"))).json() == {"to": "yes"}
    assert (await ask("x-0123456789abcdef", User("", ""))).json() == {"to": ""}


@pytest.mark.parametrize("kind", ["resume", "resync", "join"])
@pytest.mark.parametrize("is_up", [True, False])
async def test_who_may_not_stay_does_not_come_back(kind: str, is_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is judged again: one that is barred since is closed, leaves once, and its session is over."""
    stage = await staged(Club)
    hello = b'{"user":["ann","Ann"]}'
    await session(stage, "join", 1, hello)
    if not is_up:
        await session(stage, "drop", 1)
    monkeypatch.setattr(Club, "barred", frozenset({"ann"}))
    turn = await session(stage, kind, 2, hello if kind == "join" else b"")
    assert turn.outputs == [(b"refuse c1 2", b"4403 refused")]
    assert (turn.sessions_closed, turn.members_del, stage.members) == (["s1"], {"c1"}, [])
    assert orjson.loads(turn.state_set["left"]) == ["ann"]
    assert turn.timers_del == (set() if is_up else {"~grace:s1"})


async def test_who_may_still_enter_comes_back() -> None:
    """It is asked once for the join and once for the resume, not for messages."""
    stage = await staged(Club)
    await session(stage, "join", 1, b'{"user":["ann","Ann"]}')
    await stage.say("x")
    turn = await session(stage, "resume", 2)
    assert turn.outputs[0] == (b"join 1 c1 2 back", b"")
    assert Club.asked == [("ann", "x"), ("ann", "x")]


async def test_rooms_in_tests_ask_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness runs the same rule, for joins and requests."""
    monkeypatch.setattr(Club, "barred", frozenset({"no"}))
    room = RoomHarness(Club, "bar")
    refused = await room.join("Eve", user_id="no")
    assert (refused.closed, room.members) == ((4403, "refused"), [])
    assert (await room.join("Ann", user_id="yes")).is_open
    assert (await room.request("GET", user=User("no", "Eve"))).status == 403
    assert (await room.request("GET", user=User("yes", "Ann"))).json() == {"to": "yes"}
    assert set(Club.asked) == {("no", "bar"), ("yes", "bar")}
    room.check()


def test_the_rule_is_the_classs() -> None:
    """A method of an instance is told where the class is written."""
    with pytest.raises(TypeError, match=r"Shed\.authorize: make it a @classmethod"):

        class Shed(Room):
            def authorize(self, user: User, name: str) -> bool:  # type: ignore[override]
                return user.id == name
