"""Text that UTF-8 cannot write: whatever a handler makes of it, the commit of its event can be sent."""

import json
import logging
from typing import Any

import orjson
import pytest

from harness.activations import Stage, staged
from innkeeper import Connection, Event, Refused, Request, Room, on
from innkeeper.channel import pack
from innkeeper.errors import OutputInvalid, RequestInvalid, StateInvalid
from innkeeper.functions import commit
from innkeeper.keys import room_keys
from innkeeper.turn import Turn

LONE = json.loads('"\\ud800"')
ESCAPED = "\\ud800"


@pytest.fixture(autouse=True)
def unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """Keep these texts out of reports: xdist cannot pass them on."""
    caplog.set_level(logging.CRITICAL, "innkeeper.worker")


class Texts(Room):
    """Puts a lone surrogate wherever a message says."""

    def on_connect(self, conn: Connection) -> None:
        """Refuse whose name says so."""
        if conn.user.name == "refused":
            raise Refused(f"no {LONE}")

    def on_message(self, conn: Connection, message: Any) -> None:
        """Use it as a key of the state, as a tag, or as the text of an error."""
        if message == "key":
            self.state[LONE] = 1
        elif message == "tag":
            conn.tags.add(LONE)
        else:
            raise ValueError(f"no such user: {LONE}")

    def on_request(self, request: Request) -> Any:
        """Refuse the body, or fail."""
        raise (RequestInvalid if request.body else ValueError)(f"no {LONE}")

    def on_error(self, error: Exception, event: Event) -> None:
        """Show which error it was."""
        self.broadcast([type(error).__name__, event.kind])


def sendable(turn: Turn) -> bool:
    """Return whether the commit of a turn can be written."""
    room, token = Stage(Texts).activation.context.address, "1:1"
    command = commit(
        room_keys(room), token=token, version=0, worker="w", lease_ms=0, keep_outputs=0, turn=turn, shown_bytes=0,
        created=False, marked=False, tries=False, shown=True,
    )  # fmt: skip
    return bool(pack(command))


@pytest.mark.parametrize("message", ["key", "tag"])
async def test_state_that_cannot_be_written_fails_its_event(message: str) -> None:
    """A key of the state, or a tag, that is no Unicode text is refused at the event's end, and nothing else is lost."""
    stage = await staged(Texts)
    await stage.join()
    turn = await stage.say(message)
    assert sendable(turn)
    assert turn.dead[0].error.startswith(("self.state['\\ud800']: keys must be valid Unicode", "conn.state of c1"))
    assert turn.outputs[-1][1] == orjson.dumps([StateInvalid.__name__, "text"])
    assert not turn.state_set


async def test_texts_of_errors_are_escaped() -> None:
    """What an exception says goes to dead with escapes for what cannot be written."""
    stage = await staged(Texts)
    await stage.join()
    turn = await stage.say("fail")
    assert sendable(turn)
    assert turn.dead[0].error == f"ValueError: no such user: {ESCAPED}"
    assert turn.dead[0].traceback.endswith(f"ValueError: no such user: {ESCAPED}\n")


async def test_refusals_are_escaped() -> None:
    """The text of Refused reaches the client with escapes."""
    stage = await staged(Texts)
    turn = await stage.join(name="refused")
    assert sendable(turn)
    assert turn.outputs[-1][0].endswith(f"4403 no {ESCAPED}".encode()) or ESCAPED.encode() in turn.outputs[-1][1]


@pytest.mark.parametrize(("body", "status"), [(b"x", 400), (b"", 500)])
async def test_requests_are_answered_whatever_the_errors_say(body: bytes, status: int) -> None:
    """A request whose hook raises with such a text is answered."""
    stage = await staged(Texts)
    request = Request("POST", "/", body=body)
    turn = await stage.handle("request", "q-1", request.encode())
    assert sendable(turn)
    assert turn.outputs[0][1].startswith(b"[%d," % status)


async def test_texts_of_validators_are_escaped() -> None:
    """A validator's ValueError with such a text is told to the sender."""

    class Strict(Room):
        @on("*")
        def any(self, conn: Connection, message: "Number") -> None:
            """Take nothing."""

    stage = await staged(Strict)
    await stage.join()
    turn = await stage.say({"a": 1})
    assert ESCAPED.encode().replace(b"\\", b"\\\\") in turn.outputs[-1][1]


class Number:
    """Fits nothing."""

    @classmethod
    def model_validate(cls, message: object) -> "Number":
        """Refuse."""
        raise ValueError(f"{message} is no number {LONE}")


async def test_raw_rooms_say_what_they_cannot_send() -> None:
    """A text that cannot be written raises OutputInvalid in a raw room."""

    class Raw(Room):
        codec = "raw"

        def on_message(self, conn: Connection, message: Any) -> None:
            """Send it."""
            with pytest.raises(OutputInvalid, match="cannot send this text"):
                conn.send(LONE)
            conn.send(f"refused {message}")

    stage = await staged(Raw)
    await stage.join()
    assert (await stage.handle("text", "c1", b"x")).outputs[-1][1] == b"refused x"
