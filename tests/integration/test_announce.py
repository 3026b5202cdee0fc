"""announce on a real server: what a commit kept to itself is shown in order, in pieces, by its owner alone."""

import pytest

from harness.acts import LEASE_MS, Listener, RoomActs, turn_of
from harness.house import until
from innkeeper import functions
from innkeeper.functions import Claimed, Committed


async def commit_unseen(room: RoomActs, claimed: Claimed, version: int, outputs: list[tuple[bytes, bytes]]) -> bytes:
    """Commit outputs without showing them; return the id of the last."""
    command = functions.commit(
        room.keys, token=claimed.token, version=version, worker="w1", lease_ms=LEASE_MS, keep_outputs=0,
        turn=turn_of(outputs=outputs), shown=False,
    )  # fmt: skip
    committed = functions.read_committed(await room.ask(command))
    assert isinstance(committed, Committed)
    return committed.last_id


async def announce(room: RoomActs, token: str, previous: bytes, last: bytes) -> list[object]:
    """Announce; return the act's answer."""
    answer: list[object] = await room.ask(functions.announce(room.keys, token=token, previous=previous, last=last))
    return answer


@pytest.mark.parametrize(
    "sizes", [[1], [1] * 40, [5000, 5000, 5000], [20_000], [1, 20_000, 1], [20_000, 20_000], [11_000, 2_000, 11_999]]
)
async def test_all_outputs_are_shown_once(room: RoomActs, listener: Listener, sizes: list[int]) -> None:
    """The batches follow each other without a hole, below 16 KiB; an output that is too large is pointed to."""
    await listener.subscribe(room.keys.out)
    claimed = await room.own()
    outputs = [(b"text *", b"x" * size) for size in sizes]
    last = await commit_unseen(room, claimed, 0, outputs)
    assert listener.heard == []
    assert await announce(room, claimed.token, b"0-0", last) == [1]
    batches = await listener.batches(len(sizes))
    position, shown = b"0-0", list[tuple[bytes, bytes] | None]()
    for batch in batches:
        assert batch.previous == position
        assert batch.first == len(shown) + 1
        position = f"{batch.last}-{batch.mark.decode()}".encode()
        shown += list(batch.outputs) or [None] * (batch.last - batch.first + 1)
    assert position == last
    assert [output is None for output in shown] == [size + len(b"text *") + 8 > 12_000 for size in sizes]


async def test_only_what_is_new(room: RoomActs, listener: Listener) -> None:
    """Announcing goes on from where it stopped; equal ids tell the last id alone."""
    await listener.subscribe(room.keys.out)
    claimed = await room.own()
    first = await commit_unseen(room, claimed, 0, [(b"text *", b"a")])
    second = await commit_unseen(room, claimed, 1, [(b"text *", b"b")])
    await announce(room, claimed.token, first, second)
    await announce(room, claimed.token, second, second)
    await until(lambda: len(listener.heard) > 1, "both are heard")  # they end with the same output
    only, empty = await listener.batches(2)
    assert (only.previous, only.first, only.last) == (first, 2, 2)
    assert (empty.previous, empty.first, empty.last, len(empty.outputs)) == (second, 3, 2, 0)


async def test_a_stale_owner_announces_nothing(room: RoomActs, listener: Listener) -> None:
    """Under another token than the stored one nothing is shown."""
    await listener.subscribe(room.keys.out)
    claimed = await room.own()
    last = await commit_unseen(room, claimed, 0, [(b"text *", b"a")])
    assert await announce(room, "1:1", b"0-0", last) == [0, b"token"]
    await room.own("w2", seen=f"w1:{claimed.token}".encode())
    assert await announce(room, claimed.token, b"0-0", last) == [0, b"token"]
    assert listener.heard == []
