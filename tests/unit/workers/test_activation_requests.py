"""Requests in a room instance: each is answered in the turn of its event."""

from typing import Any

import pytest

from harness.activations import Stage, row, staged
from innkeeper import Event, Request, Response, Room
from innkeeper.turn import Turn


class Desk(Room):
    """Answers what the path names."""

    def on_request(self, request: Request) -> Any:
        """Do as the path says."""
        match request.path:
            case "/ok":
                self.state["seen"] = request.method
                self.broadcast({"seen": request.method})
                return {"ok": True}
            case "/body":
                return request.json()
            case "/end":
                self.destroy()
                return "ended"
            case _:
                self.state["seen"] = "broken"
                raise RuntimeError("secret")

    def on_error(self, error: Exception, event: Event) -> None:
        """Write it down."""
        self.state["error"] = f"{event.kind} {event.connection} {error}"


async def ask(stage: Stage, path: str, body: bytes = b"") -> tuple[Turn, Response]:
    """Run a request; return its turn and its answer."""
    turn = await stage.handle("request", "q-1", Request("GET", path, body=body).encode())
    answers = [body for header, body in turn.outputs if header == b"answer q-1"]
    assert len(answers) == 1
    return turn, Response.decode(answers[0])


async def test_answer_and_effects_are_one_turn() -> None:
    """State, broadcasts and the answer stand in the same turn, in order."""
    turn, answer = await ask(await staged(Desk), "/ok")
    assert (answer.status, answer.json()) == (200, {"ok": True})
    assert turn.state_set == {"seen": b'"GET"'}
    assert [header for header, _ in turn.outputs] == [b"text *", b"answer q-1"]
    assert len(turn.consumed) == 1


async def test_a_failure_is_undone_answered_and_put_aside() -> None:
    """The sender learns a code, dead holds the event, and on_error what went wrong."""
    turn, answer = await ask(await staged(Desk), "/raise")
    assert (answer.status, answer.json()) == (500, {"error": "handler_failed"})
    assert turn.state_set == {"error": b'"request None secret"'}
    assert [dead.kind for dead in turn.dead] == [b"request"]


async def test_a_bad_body_is_the_senders_fault() -> None:
    """RequestInvalid out of the hook is 400, not a failure."""
    turn, answer = await ask(await staged(Desk), "/body", b"{")
    assert (answer.status, answer.json()["error"], turn.dead) == (400, "invalid_body", [])


async def test_a_destroyed_room_answers() -> None:
    """The answer is in the last turn, before the closes."""
    stage = await staged(Desk, members={"c1": row(1)}, state={"seen": "x"})
    turn, answer = await ask(stage, "/end")
    assert (turn.destroy, answer.text()) == (True, "ended")
    assert [header for header, _ in turn.outputs] == [b"answer q-1", b"close +1"]


async def test_a_class_without_the_hook_says_so() -> None:
    """404 no_requests, and nothing happens."""
    turn, answer = await ask(await staged(type("Mute", (Room,), {})), "/ok")
    assert (answer.status, answer.json(), turn.dead) == (404, {"error": "no_requests"}, [])


async def test_a_request_put_aside_is_answered() -> None:
    """Cut or convicted, its sender does not wait for the deadline."""
    stage = await staged(Desk)
    stage.activation.condemn(stage.event("request", "q-9", b"x"), "it hangs")
    turn = stage.take_turn()
    ((header, body),) = turn.outputs
    assert (header, Response.decode(body).json()) == (b"answer q-9", {"error": "handler_timeout"})
    assert len(turn.dead) == 1


@pytest.mark.parametrize("data", [b"", b"{}\n", b'["GET"]\nx', b"\xff"])
async def test_data_that_is_no_request_fails_alone(data: bytes) -> None:
    """What no edge of ours pushes is answered as failed, and the room goes on."""
    stage = await staged(Desk)
    turn = await stage.handle("request", "q-1", data)
    assert Response.decode(turn.outputs[0][1]).status == 500
    assert (await ask(stage, "/ok"))[1].status == 200
