"""Codecs: what a handler gets and gives, against what travels."""

from typing import Any

import pytest

from innkeeper.codec import MessageInvalid, decode, encode
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
