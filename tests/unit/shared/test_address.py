"""Addresses: what may name a room, and that nothing else gets past."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innkeeper import Innkeeper
from innkeeper.address import KIND_PATTERN, NAME_PATTERN, Address, InvalidAddress, check_address, parse_address


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("a", "b"),
        ("chat", "lobby"),
        ("a-b_9", "A.b:c~d-e_f"),
        ("a" * 32, "n" * 128),
        ("chat", "..a"),
        ("chat", "a.."),
        ("chat", ".-."),
        ("chat", "-"),
        ("chat", "~"),
        ("chat", "0"),
        ("chat", "a:b:inbox"),
    ],
)
def test_valid(kind: str, name: str) -> None:
    """Every address within the rules is taken, and reads back from its text."""
    address = check_address(kind, name)
    assert address == Address(kind, name)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "A",
        "Chat",
        "1a",
        "-a",
        "_a",
        "a" * 33,
        "a b",
        "a{b",
        "a}b",
        "a/b",
        "a\n",
        "\na",
        "a\x00",
        "é",
        "a.b",
        "a:b",
        "\uff41",
    ],
)
def test_invalid_kind(kind: str) -> None:
    """A kind outside the rule is refused, and the text shows it."""
    with pytest.raises(InvalidAddress, match="invalid room kind"):
        check_address(kind, "x")


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "...", "." * 128, "a" * 129, "a b", " a", "a ", "a\n", "\n", "a\x00b", "a\x7f", "a\tb",
        "a{b", "a}b", "{a}", "a/b", "/", "a%2e", "%2e%2e", "%2e", "a+b", "a?b", "a#b", "a*b", "a'b", 'a"b', "é",
        "\uff41", "\u0661", "a\u200bb", "\U0001f98a", "\ud800", "a\\b", "a,b", "a;b", "a|b", "a@b", "a!b",
        "a=b", "a&b", "a(b", "a[b", "a<b",
    ],
)  # fmt: skip
def test_invalid_name(name: str) -> None:
    """A name that could break out of a key, a path or a frame is refused."""
    with pytest.raises(InvalidAddress, match="invalid room name"):
        check_address("chat", name)


@pytest.mark.parametrize("text", ["", "chat", "chatlobby", "/", "chat/", "/lobby", "chat/a/b", "chat//a", " chat/a"])
def test_parse_refuses(text: str) -> None:
    """A text that is not kind/name is refused, also with a slash too many."""
    with pytest.raises(InvalidAddress):
        parse_address(text)


@pytest.mark.parametrize("value", [None, 5, b"chat/a", ["chat", "a"], ("chat/a",)])
def test_what_is_no_text(value: Any) -> None:
    """Whatever a caller gives by mistake is an invalid address, in rooms and in programs."""
    with pytest.raises(InvalidAddress, match="write it as kind/name"):
        parse_address(value)
    with pytest.raises(InvalidAddress, match="write it as kind/name"):
        Innkeeper.connect().room(value)
    with pytest.raises(InvalidAddress, match="invalid room kind"):
        check_address(value, "a")
    with pytest.raises(InvalidAddress, match="invalid room name"):
        check_address("chat", value)


def test_a_long_name_is_cut_in_the_text() -> None:
    """An attacker's megabyte does not fill the log."""
    with pytest.raises(InvalidAddress) as caught:
        check_address("chat", "x" * 1_000_000)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=140), st.text(max_size=140))
def test_no_text_gets_past_the_patterns(kind: str, name: str) -> None:
    """Whatever is accepted is ASCII without braces, spaces, slashes and control characters."""
    try:
        address = check_address(kind, name)
    except InvalidAddress:
        return
    assert str(address).isascii()
    assert not set(str(address)) & set("{}% \n\r\t\x00#?")
    assert str(address).count("/") == 1


@given(st.from_regex(KIND_PATTERN, fullmatch=True), st.from_regex(NAME_PATTERN, fullmatch=True))
def test_all_within_the_patterns_is_taken(kind: str, name: str) -> None:
    """Nothing but dots alone is refused within the patterns."""
    if name.strip("."):
        assert parse_address(f"{kind}/{name}") == (kind, name)
    else:
        with pytest.raises(InvalidAddress, match="dots alone"):
            check_address(kind, name)
