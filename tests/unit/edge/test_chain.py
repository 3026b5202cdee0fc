"""What a published batch means to an edge: append, repeat, fill or resync."""

import pytest

from innkeeper.wire import Batch
from innkeeper_edge.chain import Chain, Verdict

MARK, NEW_MARK = 7, 8


def batch(previous: str, first: int, last: int, *, mark: int = MARK, pointer: bool = False) -> Batch:
    """Return a batch of outputs first … last."""
    outputs = [] if pointer else [(b"text *", b"x")] * (last - first + 1)
    return Batch(previous.encode(), b"%d" % mark, first, last, 0, outputs)


def chain_at(last: int, mark: int = MARK) -> Chain:
    """Return a chain of an edge that has heard the outputs 1 … last."""
    chain = Chain((0, 0))
    chain.advance(1, last, mark)
    return chain


def take(chain: Chain, *batches: Batch) -> None:
    """Append batches."""
    for each in batches:
        assert chain.judge(each, young=False) is Verdict.APPEND
        chain.advance(each.first, each.last, int(each.mark))


def test_what_follows_is_appended() -> None:
    """Batches that name the edge's last id are taken, over claims too, from the empty log on."""
    chain = Chain((0, 0))
    take(chain, batch("0-0", 1, 3), batch("3-7", 4, 4), batch("4-7", 5, 9, mark=NEW_MARK), batch("9-8", 10, 10, mark=9))
    assert chain.position == (10, 9)


def test_a_commit_without_outputs() -> None:
    """It is in order if it names the edge's last id, moves nothing, and shows a hole otherwise."""
    chain = chain_at(3)
    take(chain, batch("3-7", 4, 3))
    assert chain.position == (3, MARK)
    assert chain.judge(batch("5-7", 6, 5), young=False) is Verdict.FILL
    assert chain.judge(batch("2-7", 3, 2), young=False) is Verdict.REPEAT


def test_a_pointer_is_filled() -> None:
    """An output too large for pub/sub is read from the outlog."""
    assert chain_at(3).judge(batch("3-7", 4, 4, pointer=True), young=False) is Verdict.FILL


@pytest.mark.parametrize(("previous", "first", "last"), [("0-0", 1, 3), ("2-7", 3, 3), ("1-7", 2, 2), ("0-0", 1, 1)])
def test_a_repeat_is_dropped(previous: str, first: int, last: int) -> None:
    """What the edge has already, read from the log meanwhile, changes nothing."""
    assert chain_at(3).judge(batch(previous, first, last), young=False) is Verdict.REPEAT


def test_a_repeat_of_before_a_claim() -> None:
    """Batches of an earlier mark are known by their range under that mark."""
    chain = chain_at(3)
    take(chain, batch("3-7", 4, 6, mark=NEW_MARK))
    assert chain.judge(batch("0-0", 1, 3), young=False) is Verdict.REPEAT
    assert chain.judge(batch("4-8", 5, 6, mark=NEW_MARK), young=False) is Verdict.REPEAT


@pytest.mark.parametrize("mark", [MARK, NEW_MARK])
def test_a_hole_is_filled(mark: int) -> None:
    """A batch after outputs that did not come: read the log from the edge's own last id."""
    assert chain_at(3).judge(batch("5-7", 6, 6, mark=mark), young=False) is Verdict.FILL


def test_a_rollback_is_a_resync() -> None:
    """Under a new mark the same numbers are other outputs."""
    assert chain_at(5).judge(batch("2-7", 3, 3, mark=NEW_MARK), young=False) is Verdict.RESYNC


def test_a_rollback_by_one_output_is_a_resync() -> None:
    """The batch that takes the place of the edge's last output names the one before: a mark alone would not show it."""
    assert chain_at(5).judge(batch("4-7", 5, 5, mark=NEW_MARK), young=False) is Verdict.RESYNC
    assert chain_at(5).judge(batch("4-7", 5, 9, mark=NEW_MARK), young=False) is Verdict.RESYNC


def test_the_same_number_under_another_mark_is_a_resync() -> None:
    """A batch that follows an output the edge had under another mark: histories have parted."""
    assert chain_at(5).judge(batch("5-6", 6, 6, mark=NEW_MARK), young=False) is Verdict.RESYNC
    assert chain_at(5).judge(batch("5-6", 6, 5, mark=NEW_MARK), young=False) is Verdict.RESYNC


def test_a_log_begun_anew_is_a_resync() -> None:
    """After the room's keys were gone its numbers start over."""
    assert chain_at(5).judge(batch("0-0", 1, 1, mark=NEW_MARK), young=False) is Verdict.RESYNC


def test_a_young_edge_ignores_what_was_shown_before() -> None:
    """Just subscribed, an edge may still hear batches from before its position; later such a batch is a resync."""
    chain = Chain((5, NEW_MARK))
    old = batch("2-7", 3, 4)
    assert chain.judge(old, young=True) is Verdict.REPEAT
    assert chain.judge(old, young=False) is Verdict.RESYNC
    take(chain, batch("5-8", 6, 6, mark=NEW_MARK))
    assert chain.judge(old, young=True) is Verdict.REPEAT
    assert chain.judge(batch("6-7", 7, 7, mark=9), young=True) is Verdict.RESYNC


def test_the_position_itself_is_known() -> None:
    """The batch that ends at the position the edge began with is a repeat."""
    assert Chain((5, MARK)).judge(batch("4-7", 5, 5), young=False) is Verdict.REPEAT


def test_an_advance_by_nothing() -> None:
    """An empty range moves nothing."""
    chain = chain_at(3)
    chain.advance(4, 3, NEW_MARK)
    assert chain.position == (3, MARK)


def test_memory_is_bounded() -> None:
    """Output by output under one mark is one range; of many marks the newest are kept."""
    chain = Chain((0, 0))
    for number in range(1, 1_000):
        chain.advance(number, number, MARK)
    assert chain.judge(batch("0-0", 1, 1), young=False) is Verdict.REPEAT
    for number in range(1_000, 2_000):
        chain.advance(number, number, number)
    assert len(chain._ranges) <= 256
    assert chain.judge(batch("1998-1998", 1_999, 1_999, mark=1_999), young=False) is Verdict.REPEAT
