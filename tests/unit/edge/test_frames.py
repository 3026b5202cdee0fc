"""Server frames, byte by byte."""

import pytest

from innkeeper_edge.frames import encode_binary, encode_close, encode_text, is_close_code


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (125, b"\x7d"),
        (126, b"\x7e\x00\x7e"),
        (65_535, b"\x7e\xff\xff"),
        (65_536, b"\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_length_encoding(size: int, length: bytes) -> None:
    """A frame carries FIN, its opcode, no mask and the shortest encoding of its length."""
    payload = b"x" * size
    assert encode_text(payload) == b"\x81" + length + payload
    assert encode_binary(payload) == b"\x82" + length + payload


def test_close_carries_code_and_reason() -> None:
    """A close frame is the code in network order, then the reason in UTF-8."""
    assert encode_close(1000, "") == b"\x88\x02\x03\xe8"
    assert encode_close(4403, "née") == b"\x88\x06\x11\x33n\xc3\xa9e"


@pytest.mark.parametrize("reason", ["x" * 200, "é" * 100, "€" * 50, "x" + "🦊" * 40])
def test_long_reason_is_cut_at_a_character(reason: str) -> None:
    """A reason that does not fit a control frame is cut, never inside a character."""
    frame = encode_close(1011, reason)
    assert len(frame) <= 2 + 125
    assert frame[1] == len(frame) - 2
    assert reason.startswith(frame[4:].decode())
    assert len(frame) > 2 + 121


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_536])
def test_reserved_codes_are_not_sent(code: int) -> None:
    """A code that may not stand in a frame is an error of the caller, and the message says what may."""
    assert not is_close_code(code)
    with pytest.raises(ValueError, match=rf"close code {code} may not stand in a frame: use 1000-1003"):
        encode_close(code, "")


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 3999, 4000, 4999])
def test_open_codes_are_sent(code: int) -> None:
    """The borders of what the RFC and its registry allow are inside."""
    assert is_close_code(code)
    assert encode_close(code, "")[2:] == code.to_bytes(2, "big")
