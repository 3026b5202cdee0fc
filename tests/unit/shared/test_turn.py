"""What one turn gathers, and when it is full."""

from innkeeper.turn import KEEP_OUTPUTS_LEAST, KEEP_OUTPUTS_MOST, RecentOutputs, Turn, dead_event
from innkeeper.wire import InboxEvent


def event(iseq: int = 1, data: bytes = b"") -> InboxEvent:
    """Return an event."""
    return InboxEvent(b"%d-1" % iseq, iseq, b"text", b"c1", b"e1", b"", 0, 0, data)


def test_later_changes_win() -> None:
    """A key set after it was deleted is set, one deleted after it was set is deleted, never both."""
    turn = Turn()
    turn.change_state({"a": b"1", "b": b"1"}, {"c"})
    turn.change_state({"c": b"2"}, {"a"})
    assert (turn.state_set, turn.state_del) == ({"b": b"1", "c": b"2"}, {"a"})
    turn.change_member("c1", b"{}")
    turn.change_member("c1", None)
    turn.change_member("c2", None)
    turn.change_member("c2", b"{}")
    assert (turn.members_set, turn.members_del) == ({"c2": b"{}"}, {"c1"})


def test_full_by_count() -> None:
    """256 events are one turn."""
    turn = Turn()
    for n in range(255):
        turn.consume(event(n + 1))
    assert not turn.is_full
    turn.consume(event(256))
    assert turn.is_full


def test_full_by_bytes() -> None:
    """256 KiB in, or 1 MiB out, are one turn."""
    turn = Turn()
    turn.consume(event(data=b"x" * 262_143))
    assert not turn.is_full
    turn.consume(event(data=b"x"))
    assert turn.is_full
    turn = Turn()
    turn.show([(b"text *", b"x" * 1_048_569)])
    assert not turn.is_full
    turn.show([(b"", b"x")])
    assert turn.is_full


def test_empty() -> None:
    """A turn with anything to write is not empty."""
    assert Turn().is_empty
    for part in ({"consumed": [b"1-1"]}, {"outputs": [(b"", b"")]}, {"state_set": {"a": b""}}, {"state_del": {"a"}}):
        assert not Turn(**part).is_empty


def test_a_dead_event_is_the_event_as_it_stood() -> None:
    """The record holds what an operator needs to look at the event and put it back."""
    dead = dead_event(event(7, b"data"), "why", "trace")
    assert dead == (b"7-1", b"text", b"c1", b"data", "why", "trace")


def test_recent_outputs_are_kept() -> None:
    """What was shown within two seconds stays in the log, within bounds; older outputs are forgotten."""
    recent = RecentOutputs()
    assert recent.keep_count == KEEP_OUTPUTS_LEAST
    recent.add(100, 10.0)
    recent.add(50, 11.0)
    assert recent.keep_count == 151
    recent.add(0, 12.5)
    assert recent.keep_count == 51
    recent.add(0, 99.0)
    assert recent.keep_count == KEEP_OUTPUTS_LEAST
    for n in range(100):  # turn by turn it is the same, up to half a second's worth
        recent.add(1, 199.0 + n / 32)
    assert 66 <= recent.keep_count <= 82
    recent.add(10**6, 299.0)
    assert recent.keep_count == KEEP_OUTPUTS_MOST
