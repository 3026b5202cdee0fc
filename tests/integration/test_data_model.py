"""docs/data-model.md and keys.py name the same keys, and a real server holds them as the page says."""

import inspect
import re
from pathlib import Path

import pytest

from harness.acts import RoomActs, join, session, text, turn_of
from innkeeper import keys
from innkeeper.address import Address
from innkeeper.keys import RoomKeys, room_keys
from innkeeper.turn import DeadEvent

PAGE = Path(__file__).parents[2] / "docs" / "data-model.md"
# How the page writes what varies in a name.
STANDS_FOR = {"incarnation": "ID", "kind": "KIND", "shard": "N"}


def rows() -> dict[str, list[str]]:
    """Return the rows of the page's table of keys by name: type, TTL, writer, meaning."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.read_text().splitlines() if line.startswith("| `inn:")]
    found = {line[0].strip().strip("`"): [cell.strip() for cell in line[1:]] for line in lines}
    assert len(found) == len(lines), "a key stands twice on the page"
    return found


def names() -> set[str]:
    """Return every key and channel that keys.py knows, as the page writes them."""
    found = {key.replace("{test/x}", "{kind/name}") for key in room_keys(Address("test", "x"))}
    for name, value in vars(keys).items():
        if isinstance(value, str) and value.startswith(keys.PREFIX) and name != "PREFIX":
            found.add(value.format(**STANDS_FOR))
        elif inspect.isfunction(value) and value.__module__ == keys.__name__ and value is not room_keys:
            found.add(value(*(STANDS_FOR[parameter] for parameter in inspect.signature(value).parameters)))
    return found


def test_the_page_lists_every_key() -> None:
    """No key of keys.py is missing on the page."""
    assert names() - set(rows()) == set()


def test_the_page_lists_no_other_key() -> None:
    """No row of the page is about a key that keys.py does not know."""
    assert set(rows()) - names() == set()


@pytest.mark.parametrize("name", sorted(names()))
def test_every_row_is_filled(name: str) -> None:
    """Each key has a type, a TTL, a writer and a meaning; what nothing writes yet says so."""
    kind, ttl, writer, meaning = rows()[name]
    assert re.match(r"(STREAM|HASH|STRING|ZSET|SET|channel|\u2013)", kind)
    assert ttl
    assert writer
    assert len(meaning) > 10
    if "\u2013" in (kind, writer):
        assert "designed" in meaning


async def test_a_room_has_the_types_of_the_page(room: RoomActs) -> None:
    """Every key that the acts write has the type that the page gives, and every field of meta is explained there."""
    await room.push(join(), text(), session("join"))
    claimed = await room.own()
    value = {"x": b"{}"}
    turn = turn_of(
        await room.ids(), state_set=value, members_set=value, timers_set=value, outputs=[(b"text *", b"1")],
        outbox=[("post", "a/b", b"")], dead=[DeadEvent(b"1-1", b"text", b"c", b"", "e", "t")],
    )  # fmt: skip
    await room.done(claimed, 0, turn)
    assert await room.exist() == set(RoomKeys._fields) - {"bell", "out"}
    for part in await room.exist():
        kind = await room.link.call("TYPE", getattr(room.keys, part))
        assert rows()[f"inn:{{kind/name}}:{part}"][0] == kind.decode().upper()
    await room.link.call(*room.delete("lock"))
    await room.push(text())
    await room.done(await room.own(), 1, turn_of())
    await room.link.call(*room.delete("lock", "inbox"))
    shown = set(await room.hash("meta"))
    mended = await room.own()
    await room.release(mended)
    shown |= set(await room.hash("meta"))
    assert shown - set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)) == set()
