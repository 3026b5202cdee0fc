"""The tree of errors, and what Redis' replies become."""

import inspect

import pytest

from innkeeper import errors
from innkeeper.errors import EdgeClosed, FunctionMissing, InnkeeperError, LeaseLost, RedisReplied, from_reply


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("EDGE_CLOSED this edge was declared dead", EdgeClosed),
        ("ERR Function not found", FunctionMissing),
        ("Function not found", FunctionMissing),
        ("OOM command not allowed", RedisReplied),
        ("ERR something about EDGE_CLOSED", RedisReplied),
        ("WRONGTYPE Operation", RedisReplied),
        ("", RedisReplied),
    ],
)
def test_from_reply(text: str, kind: type[RedisReplied]) -> None:
    """An error reply becomes the error that says what to do, with its text unchanged."""
    error = from_reply(text)
    assert type(error) is kind
    assert str(error) == text


def test_one_tree() -> None:
    """Every error of ours stands under InnkeeperError, in the drawing too, and says how a command ends."""
    found = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert len(found) > 10
    for error in found:
        assert issubclass(error, InnkeeperError)
        assert error.__name__ in (errors.__doc__ or "")
        assert error.exit_code > 0


def test_a_lost_lease_carries_its_data() -> None:
    """The error names the room and the reason, in the text and as attributes."""
    error = LeaseLost("chat/lobby", "token")
    assert (error.room, error.reason) == ("chat/lobby", "token")
    assert str(error) == "room chat/lobby: commit refused (token); dropped from memory"
