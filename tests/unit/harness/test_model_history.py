"""The model's history checker on forged outlogs: whatever is lost, doubled, moved or written by two is found."""

import pytest

from harness.model.history import History, Violation, line_of

HONEST = (
    (1, b"join c1 1"), (2, b"text c1 2"), (3, b"join c2 1"), (4, b"text s1 1"), (5, b"text c1 3"), (6, b"leave c1 4"),
    (0, b"left c1 0"), (7, b"text s1 2"), (8, b"edge-gone e1 0"), (0, b"left c2 0"),
)  # fmt: skip

Line = tuple[int, bytes]
Entry = tuple[bytes, list[bytes]]


def outlog(lines: list[Line], *, first: int = 1) -> list[Entry]:
    """Return the lines as XREVRANGE would, each sealed by the chain."""
    entries, chain = [], 0
    for oseq, (iseq, what) in enumerate(lines, first):
        chain, body = line_of(chain, iseq, what)
        entries.append((b"%d-7" % oseq, [b"h", b"text *", b"d", body, b"b", b"0"]))
    return entries[::-1]


def test_an_honest_outlog_passes() -> None:
    """Dense, chained, in order, everybody left: read in one go or in pieces, twice or once."""
    history = History()
    newest_first = outlog(list(HONEST))
    history.read(newest_first[5:])
    history.read(newest_first[5:])
    history.read(newest_first)
    history.agrees({b"cursor": b"8", b"last": b"10-7"}, {b"chain": b"%d" % history.chain})
    assert (len(history.applied), history.present) == (8, set())


def moved(lines: list[Line], at: int, to: int) -> list[Line]:
    """Return the lines with one of them at another place."""
    lines.insert(to, lines.pop(at))
    return lines


@pytest.mark.parametrize(
    ("forged", "law"),
    [
        ([*HONEST[:3], *HONEST[4:]], "one order: events"),
        ([*HONEST[:4], HONEST[3], *HONEST[4:]], "one order: events"),
        (moved(list(HONEST), 3, 5), "one order: events"),
        ([*HONEST[:4], (5, b"text c1 2")], "once and in order"),
        ([*HONEST[:4], (5, b"text s1 3")], "once and in order"),
        ([*HONEST[:7], (0, b"left c1 0")], "leaves once"),
        ([*HONEST, (9, b"edge-gone e1 0")], "an edge dies once"),
        ([*HONEST[:3], (0, b"destroyed room 0")], "leaves once"),
    ],
)
def test_a_forged_order_is_found(forged: list[Line], law: str) -> None:
    """Lost, doubled, moved or skipped events, and leaves that do not match, are each named."""
    with pytest.raises(Violation) as found:
        History().read(outlog(forged))
    assert found.value.law == law


def test_two_histories_are_found() -> None:
    """An output written by somebody who did not know the one before it breaks the chain."""
    newest_first = outlog(list(HONEST))
    other = outlog([*HONEST[:4], (5, b"text c1 9"), *HONEST[5:]])
    with pytest.raises(Violation, match="unbroken chain"):
        History().read([*other[:5], *newest_first[5:]])


def test_a_hole_is_found() -> None:
    """An output that is missing in the outlog is noticed at the next one."""
    newest_first = outlog(list(HONEST))
    with pytest.raises(Violation, match="dense log"):
        History().read([*newest_first[:3], *newest_first[4:]])


@pytest.mark.parametrize(
    ("meta", "chain", "law"),
    [
        ({b"cursor": b"8", b"last": b"10-7"}, -1, "one history: state"),
        ({b"cursor": b"7", b"last": b"10-7"}, 0, "one history: cursor"),
        ({b"cursor": b"8", b"last": b"11-7"}, 0, "one history: last output"),
    ],
)
def test_a_torn_write_is_found(meta: dict[bytes, bytes], chain: int, law: str) -> None:
    """State, cursor and outputs that do not end at the same commit are found."""
    history = History()
    history.read(outlog(list(HONEST)))
    with pytest.raises(Violation) as found:
        history.agrees(meta, {b"chain": b"%d" % (history.chain + chain)})
    assert found.value.law == law
