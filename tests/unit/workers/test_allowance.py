"""What one event may send, and owe: 8 MiB each."""

from typing import Any

import pytest

from harness.activations import row, staged
from innkeeper import Connection, Event, Room, job
from innkeeper.errors import OutputInvalid

MIB = 1_048_576
ALMOST = "x" * (MIB - 1000)


class Talker(Room):
    """Says much, in one way or another."""

    def on_message(self, conn: Connection, message: Any) -> None:
        """Use up the allowance as the message says, then send a little."""
        way, catch = message
        if way == "long":
            for _ in range(1_000_000):
                self.broadcast(message)
        for n in range(9):
            try:
                self.spend(conn, way)
            except OutputInvalid:
                if not catch:
                    raise
                self.state["refused"] = n
                break

    def spend(self, conn: Connection, way: str) -> None:
        """Send, post or enqueue almost 1 MiB."""
        if way == "broadcast":
            self.broadcast(ALMOST)
        elif way == "send":
            conn.send(ALMOST)
        elif way == "post":
            self.post("talker/y", ALMOST)
        else:
            self.enqueue(echo, ALMOST)

    def on_leave(self, conn: Connection) -> None:
        """Say goodbye, at length."""
        for _ in range(3):
            self.broadcast([conn.id, ALMOST])

    def on_error(self, error: Exception, event: Event) -> None:
        """Show that there is room again for what follows a failure."""
        self.broadcast([event.kind, str(error)])
        self.post("talker/y", "failed")

    def on_job(self, result: Any) -> None:
        """Nothing."""


@job
def echo(text: str) -> str:
    """Return it."""
    return text


@pytest.mark.parametrize("way", ["broadcast", "send", "post", "job"])
async def test_an_event_that_wants_more_fails(way: str) -> None:
    """The call that would pass 8 MiB raises in the hook; uncaught, nothing counts, and on_error may send."""
    stage = await staged(Talker, members={"c1": row(1)})
    turn = await stage.say([way, False])
    (dead,) = turn.dead
    what = "posts and jobs" if way in ("post", "job") else "the outputs"
    assert dead.error.startswith(f"{what} of one event would be ")
    assert len(turn.outputs) == 2
    assert [target for _, target, _ in turn.outbox] == ["talker/y"]
    assert turn.timers_set == {}


@pytest.mark.parametrize(("way", "outputs", "outbox"), [("broadcast", 8, 0), ("post", 0, 8), ("job", 0, 8)])
async def test_caught_what_was_sent_before_counts(way: str, outputs: int, outbox: int) -> None:
    """A handler that catches it keeps what went before; a job refused is not waited for; the next event may send."""
    stage = await staged(Talker, members={"c1": row(1)})
    for _ in range(2):
        turn = await stage.say([way, True])
        assert (len(turn.outputs), len(turn.outbox)) == (outputs, outbox)
        assert len(turn.timers_set) == (outbox if way == "job" else 0)
        assert not turn.dead
    assert stage.activation.room.state["refused"] == 8


async def test_many_small_outputs_count_too() -> None:
    """A hook that sends for ever is stopped by what it takes, however small each output is."""
    stage = await staged(Talker, members={"c1": row(1)})
    turn = await stage.say(["long", False])
    assert turn.dead[0].error.startswith("the outputs of one event would be ")


async def test_the_hooks_of_one_event_share_it() -> None:
    """Of a dead edge's members the third finds nothing left for its on_leave; all of them are gone."""
    members = {name: row(n) for n, name in enumerate("abc", 1)}
    stage = await staged(Talker, members=members)
    turn = await stage.handle("edge-gone", "-")
    assert turn.members_del == set("abc")
    assert len(turn.dead) == 1
    assert len(turn.outputs) == 3 + 3 + 1
