"""The codecs of a room: what its handler gets and gives, against what travels in frames."""

from typing import Any, Literal

import orjson

from innkeeper.errors import OutputInvalid
from innkeeper.finite import is_finite

Codec = Literal["json", "raw"]


class MessageInvalid(ValueError):
    """A text message that is not JSON, in a json room."""


def decode(codec: str, *, binary: bool, data: bytes) -> Any:
    """Return a message as the handler gets it: JSON value, or bytes of a binary frame; in raw rooms str or bytes.

    Raises:
        MessageInvalid: The text is not JSON.
    """
    if binary:
        return data
    if codec == "raw":
        return data.decode()
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MessageInvalid(str(error)) from None


def encode(codec: str, value: Any) -> tuple[bool, bytes]:
    """Return (is binary, payload) for a value that a handler sends.

    Raises:
        OutputInvalid: The codec cannot send a value of this type.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return True, bytes(value)
    if codec == "raw":
        if isinstance(value, str):
            try:
                return False, value.encode()
            except UnicodeEncodeError as error:
                raise OutputInvalid(f"cannot send this text: {error}") from None
        raise OutputInvalid(f"a raw room sends str or bytes, not {type(value).__name__}")
    try:
        data = orjson.dumps(value)
    except (TypeError, ValueError) as error:
        raise OutputInvalid(f"cannot send this value as JSON: {error}") from None
    if not is_finite(value, data):
        raise OutputInvalid("cannot send this value as JSON: NaN and Infinity would arrive as null")
    return False, data
