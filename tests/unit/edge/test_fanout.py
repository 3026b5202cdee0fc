"""Fan-out: order and addressing for each socket, and one write per batch."""

import logging
from typing import TYPE_CHECKING, cast
from unittest.mock import Mock

import pytest

from innkeeper import wire
from innkeeper_edge.fanout import Fanout, Output
from innkeeper_edge.frames import encode_binary, encode_text

if TYPE_CHECKING:
    from innkeeper_edge.member import Member


class FakeMember:
    """A socket that keeps what is written to it."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.join = 0
        self.left = False
        self.outgoing: list[bytes] = []
        self.writes: list[bytes] = []
        self.closed: list[tuple[int, str]] = []

    def write(self, frames: bytes) -> None:
        """Keep a write."""
        assert not self.closed, "written after the close"
        self.writes.append(frames)

    def close(self, code: int, reason: str) -> None:
        """Keep a close."""
        self.closed.append((code, reason))
        self.fanout.remove(cast("Member", self))

    fanout: Fanout


def house(*live: int, joining: tuple[str, ...] = ()) -> tuple[Fanout, list[FakeMember]]:
    """Return a room's sockets: c<n> live with join n, and others still joining."""
    fanout = Fanout()
    members = [FakeMember(f"c{join}") for join in live] + [FakeMember(name) for name in joining]
    for member in members:
        member.fanout = fanout
        fanout.members[member.id] = cast("Member", member)
    fanout.deliver([wire.join_output(join, b"c%d" % join) for join in live])
    return fanout, members


def text(address: str, body: bytes) -> Output:
    """Return a text output."""
    return b"text " + address.encode(), body


def test_a_batch_of_broadcasts_is_one_write_each() -> None:
    """However many outputs, every live socket gets their frames in one write, in order."""
    fanout, members = house(1, 2, 3)
    fanout.deliver([text("*", b"a"), text("*", b"b"), text("*", b"c")])
    frames = encode_text(b"a") + encode_text(b"b") + encode_text(b"c")
    assert [member.writes for member in members] == [[frames]] * 3


def test_a_mixed_batch_is_one_write_each_in_order() -> None:
    """Addressed outputs between broadcasts keep their place for every receiver, still one write each."""
    fanout, members = house(1, 2, 3)
    fanout.deliver(
        [
            text("*", b"1"),
            (b"binary *", b"2"),
            text("+2", b"3"),
            text("*", b"4"),
            text("-1,3", b"5"),
            (b"binary +3", b"6"),
        ]
    )
    common = encode_text(b"1") + encode_binary(b"2")
    assert [member.writes for member in members] == [
        [common + encode_text(b"4")],
        [common + encode_text(b"3") + encode_text(b"4") + encode_text(b"5")],
        [common + encode_text(b"4") + encode_binary(b"6")],
    ]
    assert all(member.outgoing == [] for member in members)


@pytest.mark.parametrize(
    ("address", "receivers"),
    [
        ("*", {1, 2, 30}),
        ("+2", {2}),
        ("+1,30", {1, 30}),
        ("-2", {1, 30}),
        ("-1,2,30", set()),
        ("+9", set()),
        ("-9", {1, 2, 30}),
    ],
)
def test_addresses(address: str, receivers: set[int]) -> None:
    """All, all but, and only: by the numbers of the joins; numbers of other edges' sockets mean nothing here."""
    fanout, members = house(1, 2, 30)
    fanout.deliver([text(address, b"x"), text("+9", b"nobody")])
    assert {member.join for member in members if member.writes} == receivers


def test_nothing_comes_before_the_join_mark() -> None:
    """A joining socket receives from its mark on, within the same batch too, and nothing from before."""
    fanout, (old, new) = house(1, joining=("c5",))
    fanout.deliver([text("*", b"before"), text("+5", b"too early")])
    assert new.writes == []
    fanout.deliver([text("*", b"1"), wire.join_output(5, b"c5"), text("+5", b"2"), text("*", b"3")])
    assert new.writes == [encode_text(b"2") + encode_text(b"3")]
    assert old.writes[-1] == encode_text(b"1") + encode_text(b"3")
    assert new.join == 5


def test_a_mark_for_a_socket_that_left_or_is_elsewhere() -> None:
    """A socket that went away while its join was under way does not become live; other edges' marks mean nothing."""
    fanout, (gone,) = house(joining=("c5",))
    gone.left = True
    fanout.deliver([wire.join_output(5, b"c5"), wire.join_output(6, b"elsewhere"), text("*", b"x")])
    assert (fanout.live, gone.writes) == ({}, [])


def test_a_close_comes_after_what_was_written() -> None:
    """What stands before a close in the batch is written first; what stands behind goes to the others only."""
    fanout, (one, two) = house(1, 2)
    fanout.deliver([text("*", b"last"), text("+1", b"bye"), wire.close_output(1, 4321, "told to"), text("*", b"after")])
    assert (one.writes, one.closed) == ([encode_text(b"last") + encode_text(b"bye")], [(4321, "told to")])
    assert b"".join(two.writes) == encode_text(b"last") + encode_text(b"after")
    assert two.closed == []


def test_a_close_of_nobody_here() -> None:
    """The close of another edge's socket does nothing here."""
    fanout, (one,) = house(1)
    fanout.deliver([wire.close_output(9, 4000, ""), wire.refuse_output(b"c9", 4403, "no")])
    assert one.closed == []


def test_a_refused_join() -> None:
    """The socket is closed with the code and text of the refusal, without ever having been live."""
    fanout, (new,) = house(joining=("c5",))
    fanout.deliver([text("*", b"x"), wire.refuse_output(b"c5", 4403, "members only")])
    assert (new.writes, new.closed, fanout.live) == ([], [(4403, "members only")], {})


def test_removing() -> None:
    """A removed socket gets nothing more; removing one that never was live takes no other away."""
    fanout, (one, new) = house(1, joining=("c5",))
    fanout.remove(cast("Member", new))
    fanout.remove(cast("Member", new))
    assert set(fanout.live) == {1}
    fanout.remove(cast("Member", one))
    fanout.deliver([text("*", b"x")])
    assert (one.writes, fanout.members) == ([], {})


def test_an_unknown_output_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Something a newer worker wrote is skipped, said, and what surrounds it arrives."""
    fanout, (one,) = house(1)
    with caplog.at_level(logging.WARNING, logger="innkeeper.edge"):
        fanout.deliver([text("*", b"1"), (b"dance +1", b""), text("*", b"2")])
    assert b"".join(one.writes) == encode_text(b"1") + encode_text(b"2")
    assert "an output this edge does not know: dance +1" in caplog.text


def test_an_empty_batch_writes_nothing() -> None:
    """A commit without outputs costs no write."""
    fanout, (one,) = house(1)
    fanout.deliver([])
    assert one.writes == []


def test_members_that_close_themselves_while_written_to() -> None:
    """A slow reader that is dropped in the middle of a batch takes nothing away from the others."""
    fanout, members = house(1, 2, 3)

    def drop(frames: bytes) -> None:
        members[0].close(4508, f"{len(frames)} bytes")

    members[0].write = drop  # type: ignore[method-assign]
    fanout.deliver([text("*", b"x")])
    fanout.deliver([text("*", b"y"), text("+2", b"z")])
    assert [len(member.writes) for member in members] == [0, 2, 2]


def test_a_past_socket_does_not_take_a_newer_one_along() -> None:
    """After a cut history two sockets may have had one join number; removing the old one leaves the new one live."""
    fanout = Fanout()
    old, new = Mock(join=1, left=False), Mock(join=1, left=False)
    old.id, new.id = "c-old", "c-new"
    fanout.members = {"c-old": old, "c-new": new}
    fanout.live = {1: new}
    fanout.remove(old)
    assert fanout.live == {1: new}
    assert list(fanout.members) == ["c-new"]
