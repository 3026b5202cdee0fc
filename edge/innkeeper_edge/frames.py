"""Server frames of RFC 6455, encoded once and written to any number of sockets.

Frames to clients are never masked and never fragmented, so one encoded frame serves a whole room.
"""

_SMALL_BYTES = 125
_MEDIUM_BYTES = 0xFFFF
_REASON_BYTES = 123

# The headers of the frames nearly every room sends: a table is half the cost of building two bytes each time.
_TEXT_HEADERS = tuple(bytes((0x81, size)) for size in range(_SMALL_BYTES + 1))
_BINARY_HEADERS = tuple(bytes((0x82, size)) for size in range(_SMALL_BYTES + 1))


def encode_text(payload: bytes) -> bytes:
    """Return one final, unmasked text frame.

    Args:
        payload: UTF-8; it is not checked again.
    """
    size = len(payload)
    if size <= _SMALL_BYTES:
        return _TEXT_HEADERS[size] + payload
    if size <= _MEDIUM_BYTES:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def encode_binary(payload: bytes) -> bytes:
    """Return one final, unmasked binary frame."""
    size = len(payload)
    if size <= _SMALL_BYTES:
        return _BINARY_HEADERS[size] + payload
    if size <= _MEDIUM_BYTES:
        return b"\x82\x7e" + size.to_bytes(2, "big") + payload
    return b"\x82\x7f" + size.to_bytes(8, "big") + payload


def encode_close(code: int, reason: str) -> bytes:
    """Return one unmasked close frame.

    Args:
        code: One that may stand in a frame, see :func:`is_close_code`.
        reason: Cut after 123 bytes of UTF-8, at a character's border.

    Raises:
        ValueError: The code may not be sent; use one of ``close_codes`` or 3000-4999.
    """
    if not is_close_code(code):
        raise ValueError(f"close code {code} may not stand in a frame: use 1000-1003, 1007-1014 or 3000-4999")
    text = reason.encode()
    if len(text) > _REASON_BYTES:
        text = text[:_REASON_BYTES].decode(errors="ignore").encode()
    return bytes((0x88, len(text) + 2)) + code.to_bytes(2, "big") + text


def is_close_code(code: int) -> bool:
    """Return whether a close frame may carry this code: 1000-1003, 1007-1014 and 3000-4999."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999  # noqa: PLR2004 - the RFC's numbers
