"""The room that the history checker reads: what it stores and shows is what happened."""

import orjson
import pytest

from harness.activations import Stage, staged
from harness.chronicle import Chronicle, read_output, read_stored
from harness.history import Output, Socket, Step, check, outputs_of
from innkeeper.turn import Turn

SAID = 40  # more than one piece of the log


@pytest.fixture
async def stage() -> Stage:
    """A room that nobody has joined yet."""
    return await staged(Chronicle)


def shown(turn: Turn) -> list[Output]:
    """Return what a turn shows to all."""
    return [read_output(body) for header, body in turn.outputs if header == b"text *"]


async def test_what_is_shown_and_stored_is_one_history(stage: Stage) -> None:
    """Steps, digest, rows and outputs of a room agree, over the pieces of its log, and the checker is content."""
    outputs = [*shown(await stage.join("c1", name="ann"))]
    for number in range(1, SAID + 1):
        outputs += shown(await stage.say({"i": number}, "c1"))
    outputs += shown(await stage.join("c2", name="bob"))
    outputs += shown(await stage.handle("leave", "c2"))
    context = stage.activation.context
    stored = read_stored(
        {key.encode(): data for key, data in context.state.stored.items()},
        {b"c1": orjson.dumps({"user": ["", "ann"], "state": context.members["c1"].state})},
        [b"43", b"43"],
        [],
        [{b"h": b"join 1 c1", b"d": b""}, *({b"h": b"text *", b"d": body} for body in _bodies(outputs[-3:]))],
    )
    steps = [
        Step("join", "ann"), *(Step("say", "ann", n) for n in range(1, SAID + 1)), Step("join", "bob"),
        Step("leave", "bob"),
    ]  # fmt: skip
    assert stored.steps == steps
    assert outputs == outputs_of(steps)
    assert stored.members == [("ann", SAID)]
    sockets = [Socket("ann", SAID, outputs, is_open=True), Socket("bob", 0, outputs[-2:-1])]
    assert check("room", sockets, stored) == []


def _bodies(outputs: list[Output]) -> list[bytes]:
    return [
        orjson.dumps({"n": o.place, "k": o.step.kind, "s": o.step.sender, "i": o.step.number, "h": o.digest, "w": 1})
        for o in outputs
    ]


def test_an_absent_room_is_an_empty_history() -> None:
    """Where Redis holds nothing of a room, no steps, no members and no backlog are read."""
    stored = read_stored({}, {}, [None, None], [], [])
    assert (stored.steps, stored.count, stored.digest, stored.members, stored.backlog) == ([], 0, "", [], 0)


def test_events_put_aside_are_told_in_words() -> None:
    """Type, id and error of an entry of dead make its text."""
    dead = [{b"type": b"text", b"id": b"7-1", b"error": b"KeyError: 'i'", b"traceback": b"..."}]
    assert read_stored({}, {}, [b"7", b"7"], dead, []).dead == ["text 7-1 KeyError: 'i'"]
