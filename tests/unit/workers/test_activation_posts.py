"""Posts in a room instance: what it owes, and what reaches it."""

from typing import Any

import orjson
import pytest

from harness.activations import row, staged
from innkeeper import Connection, OutputInvalid, Room
from innkeeper.address import InvalidAddress
from innkeeper.posting import decode_post, encode_post
from innkeeper.request import Response
from innkeeper.turn import Turn


class Office(Room):
    """Passes on what it hears."""

    def on_message(self, conn: Connection, message: Any) -> None:  # noqa: ARG002 - the hook's signature
        """Post it to everybody named; ``swallow`` an error."""
        for target in message["to"]:
            try:
                self.post(target, message["value"])
            except (InvalidAddress, OutputInvalid) as error:
                if not message.get("swallow"):
                    raise
                self.state["error"] = type(error).__name__

    def on_post(self, sender: str, message: Any) -> None:
        """Write it down and thank."""
        self.state["post"] = [sender, message]
        if message == "fail":
            raise RuntimeError(message)
        if sender:
            self.post(sender, "thanks")


async def test_a_post_is_owed_by_the_turn() -> None:
    """Target, sender and value stand in the turn's outbox, in order."""
    stage = await staged(Office, members={"c1": row(1)})
    turn = await stage.say({"to": ["office/b", "office/x"], "value": [1, None]})
    expected = b'{"sender":"office/x","value":[1,null]}'
    assert turn.outbox == [("post", "office/b", expected), ("post", "office/x", expected)]
    assert decode_post(turn.outbox[0][2]) == ("office/x", [1, None])


@pytest.mark.parametrize("target", ["", "office", "Office/b", "office/b/c", "office/{b}", "office/.."])
async def test_bad_targets_are_refused_at_the_call(target: str) -> None:
    """InvalidAddress is raised by post(): caught, the rest counts; uncaught, nothing does."""
    stage = await staged(Office, members={"c1": row(1)})
    turn = await stage.say({"to": ["office/b", target], "value": 1, "swallow": True})
    assert len(turn.outbox) == 1
    assert turn.state_set == {"error": b'"InvalidAddress"'}
    turn = await stage.say({"to": ["office/b", target], "value": 1})
    assert turn.outbox == []
    assert len(turn.dead) == 1


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), "x" * 1_048_577, "\ud800"])
def test_values_that_cannot_be_posted(value: Any) -> None:
    """Only JSON up to 1 MiB is posted."""
    with pytest.raises(OutputInvalid):
        encode_post("a/b", value)


async def test_what_is_posted_reaches_the_hook() -> None:
    """Sender and value come as they were; a failed one is undone and put aside."""
    stage = await staged(Office)
    turn = await stage.handle("post", "-", encode_post("office/a", {"a": 1}))
    assert orjson.loads(turn.state_set["post"]) == ["office/a", {"a": 1}]
    assert [target for _, target, _ in turn.outbox] == ["office/a"]
    turn = await stage.handle("post", "-", encode_post("", "fail"))
    assert (turn.state_set, turn.outbox, [dead.error for dead in turn.dead]) == ({}, [], ["RuntimeError: fail"])


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"sender":1,"value":2}', b'{"sender":"a"}'])
async def test_data_that_is_no_post_is_put_aside(data: bytes) -> None:
    """What nothing of ours sends reaches no hook."""
    turn = await (await staged(Office)).handle("post", "-", data)
    assert len(turn.dead) == len(turn.consumed) == 1
    assert turn.state_set == {}


async def test_a_class_without_the_hook_leaves_a_record() -> None:
    """Nothing is lost in silence."""
    turn = await (await staged(type("Deaf", (Room,), {}))).handle("post", "-", encode_post("a/b", 1))
    assert [dead.error for dead in turn.dead] == ["Deaf has no on_post"]


async def test_the_end_from_outside_is_like_the_rooms_own() -> None:
    """Everybody is closed, the state goes, and who asked is answered."""
    stage = await staged(Office, members={"c1": row(1)}, state={"a": 1})
    turn = await stage.handle("destroy", "q-1", b"")
    assert turn.destroy
    assert [header for header, _ in turn.outputs] == [b"answer q-1", b"close +1"]
    assert Response.decode(turn.outputs[0][1]).status == 204
    assert stage.members == []


def test_much_to_send_ends_a_turn() -> None:
    """What a turn owes counts with what it shows: at 1 MiB it is full."""
    turn = Turn()
    turn.owe([("post", "a/b", b"x" * 600_000)])
    assert not turn.is_full
    turn.show([(b"text *", b"x" * 500_000)])
    assert turn.is_full
    turn.clear()
    assert (turn.is_full, turn.is_empty) == (False, True)
