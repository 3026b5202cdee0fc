"""The codecs of a room: what its handler gets and gives, against what travels in frames."""

from typing import Any, Final, Literal

import orjson

from innkeeper.errors import OutputInvalid
from innkeeper.finite import is_finite

Codec = Literal["json", "raw"]

MOST_DEPTH: Final = 32
MOST_KEYS: Final = 1_000
_BYTES: Final = (bytes, bytearray, memoryview)
_LEAST_DEEP: Final = 2 * MOST_DEPTH  # bytes: what is shorter cannot be too deep


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


def decode_message(codec: str, *, binary: bool, data: bytes) -> Any:
    """Return a client's message as the handler gets it, see :func:`decode`, within the limits of JSON from outside.

    Raises:
        MessageInvalid: The text is not JSON, is nested deeper than 32 levels, or has an object of over 1,000 keys.
    """
    value = decode(codec, binary=binary, data=data)
    # Counting bytes is nothing beside parsing them, and for nearly all messages it settles the matter.
    if (
        len(data) > _LEAST_DEEP
        and (data.count(b"[") + data.count(b"{") > MOST_DEPTH or data.count(b":") > MOST_KEYS)
        and not binary
        and codec == "json"
    ):
        _check_shape(value)
    return value


def _check_shape(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        within: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                if len(each) > MOST_KEYS:
                    raise MessageInvalid(f"an object of {len(each):,} keys: at most {MOST_KEYS:,}")
                within.extend(each.values())
            elif isinstance(each, list):
                within.extend(each)
        level = [each for each in within if isinstance(each, dict | list)]
        if not level:
            return
    raise MessageInvalid(f"nested deeper than {MOST_DEPTH} levels")


def encode(codec: str, value: Any) -> tuple[bool, bytes]:
    """Return (is binary, payload) for a value that a handler sends.

    Raises:
        OutputInvalid: The codec cannot send a value of this type.
    """
    if isinstance(value, _BYTES):
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
