"""What one room, or another program, posts to a room: a JSON value and who sent it."""

from typing import Any, Final

import orjson

from innkeeper.errors import OutputInvalid
from innkeeper.finite import is_finite

POST_BYTES: Final = 1_048_576


def encode_post(sender: str, value: Any) -> bytes:
    """Return a post as the data of an event; ``sender`` is a room's address, empty for another program.

    Raises:
        OutputInvalid: The value is not JSON, or takes more than 1 MiB.
    """
    try:
        data = orjson.dumps({"sender": sender, "value": value})
    except (TypeError, ValueError) as error:
        raise OutputInvalid(f"cannot post this value as JSON: {error}") from None
    if not is_finite(value, data):
        raise OutputInvalid("cannot post this value as JSON: NaN and Infinity would arrive as None")
    if len(data) > POST_BYTES:
        raise OutputInvalid(f"a post of {len(data)} bytes: at most {POST_BYTES}")
    return data


def decode_post(data: bytes) -> tuple[str, Any]:
    """Return who sent a post, and what.

    Raises:
        ValueError: It is none.
    """
    fields = orjson.loads(data)
    if not isinstance(fields, dict) or not isinstance(fields.get("sender"), str) or "value" not in fields:
        raise ValueError('a post is {"sender": text, "value": any}')
    return fields["sender"], fields["value"]
