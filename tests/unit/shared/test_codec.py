"""Codecs: what a handler gets and gives, against what travels."""

from typing import Any

import pytest

from innkeeper.codec import MessageInvalid, decode, decode_message, encode
from innkeeper.errors import OutputInvalid


@pytest.mark.parametrize(
    ("codec", "binary", "data", "value"),
    [
        ("json", False, b'{"a":[1,2.5,null]}', {"a": [1, 2.5, None]}),
        ("json", False, b'"\xc3\xa9"', "é"),
        ("json", True, b"\x00\xff", b"\x00\xff"),
        ("raw", False, b"{not json", "{not json"),
        ("raw", True, b"\x00\xff", b"\x00\xff"),
    ],
)
def test_decode(codec: str, binary: bool, data: bytes, value: Any) -> None:
    """Text is JSON in json rooms and str in raw ones; binary frames are bytes in both."""
    assert decode(codec, binary=binary, data=data) == value


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b"1 2", b"NaN", b"\xff"])
def test_text_that_is_not_json(data: bytes) -> None:
    """A json room's handler never sees text that is not JSON."""
    with pytest.raises(MessageInvalid):
        decode("json", binary=False, data=data)


@pytest.mark.parametrize(
    ("codec", "value", "sent"),
    [
        ("json", {"a": 1}, (False, b'{"a":1}')),
        ("json", "é", (False, '"é"'.encode())),
        ("json", None, (False, b"null")),
        ("json", b"\x00", (True, b"\x00")),
        ("json", bytearray(b"ab"), (True, b"ab")),
        ("json", memoryview(b"ab"), (True, b"ab")),
        ("raw", "é", (False, "é".encode())),
        ("raw", b"\xff", (True, b"\xff")),
        ("raw", "", (False, b"")),
    ],
)
def test_encode(codec: str, value: Any, sent: tuple[bool, bytes]) -> None:
    """Bytes leave as binary frames, all else as text."""
    assert encode(codec, value) == sent


@pytest.mark.parametrize(
    ("codec", "value"), [("json", object()), ("json", {1: 2}), ("json", 2**70), ("raw", {}), ("raw", 1), ("raw", None)]
)
def test_what_cannot_be_sent(codec: str, value: Any) -> None:
    """A value the codec cannot send is an error in the hook that sends it; the text says why."""
    with pytest.raises(OutputInvalid, match=r"JSON|raw room"):
        encode(codec, value)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 33 + "]" * 33,
        '{"a":' * 33 + "1" + "}" * 33,
        "[" * 1_000 + "]" * 1_000,
        "[" * 30_000 + "]" * 30_000,
        "{" + ",".join(f'"{n}":1' for n in range(1_001)) + "}",
        '[{"x":{' + ",".join(f'"{n}":1' for n in range(1_001)) + "}}]",
        "NaN",
        "[Infinity]",
        "-Infinity",
    ],
    ids=lambda text: f"{text[:9]} {len(text)}",
)
def test_json_from_outside_has_its_limits(text: str) -> None:
    """Nesting and objects beyond any use, and numbers that are none, are refused as what they are: no message."""
    with pytest.raises(MessageInvalid):
        decode_message("json", binary=False, data=text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "[" * 32 + "]" * 32,
        '{"a":' * 32 + "1" + "}" * 32,
        "{" + ",".join(f'"{n}":1' for n in range(1_000)) + "}",
        "[" + ",".join('{"a":{"b":[]}}' for _ in range(2_000)) + "]",
        '"' + "[{:" * 5_000 + '"',
    ],
    ids=lambda text: f"{text[:9]} {len(text)}",
)
def test_large_json_within_the_limits_is_taken(text: str) -> None:
    """What is long, or full of brackets in its texts, is not deep."""
    assert decode_message("json", binary=False, data=text.encode()) == decode("json", binary=False, data=text.encode())


def test_other_codecs_know_no_depth() -> None:
    """Bytes and raw texts are what they are."""
    deep = b"[" * 500
    assert decode_message("json", binary=True, data=deep) == deep
    assert decode_message("raw", binary=False, data=deep) == deep.decode()
