"""What is a finite number, and whether JSON keeps a value's floats: NaN and the infinities come back as None."""

import math
import re
from typing import Any, Final, TypeGuard

import msgspec

# A float of MessagePack whose exponent is that of NaN and the infinities. UTF-8 never holds these bytes, integers may.
_ODD: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value that a user gave is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_finite(value: Any, data: bytes) -> bool:
    """Return whether all floats in a value are finite; ``data`` is its JSON.

    Where no null is in the JSON that costs a search; else the value is encoded once more, in a form that keeps floats.
    """
    if data.rfind(b"null") < 0:  # half as long as ``in``
        return True
    try:
        packed = msgspec.msgpack.encode(value)
    except (TypeError, ValueError, OverflowError):
        return _walk(value)
    return _ODD.search(packed) is None or _walk(value)


def _walk(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_walk, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_walk, value))
    return all(_walk(getattr(value, name)) for name in getattr(value, "__dataclass_fields__", ()))
