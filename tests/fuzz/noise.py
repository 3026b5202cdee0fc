"""Seeded noise: bytes that are nearly right, and JSON with one thing in the place of another."""

import random
from collections.abc import Iterator
from typing import Any, Final

import orjson

_ODD: Final = (
    b"",
    b"\x00",
    b"\xff",
    b"\r\n",
    b"\n",
    b" ",
    b"{",
    b"[",
    b'"',
    b"%00",
    b"-1",
    b"1e999",
    b"\xed\xa0\x80",
    b"!",
)
_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**53, 2**63, -(2**63), 1.5, -0.0, 1e308, "", "x", "\x00", "\ud7ff", "0-0", "1-1",
    "a/b", "99999999999999999999-1", [], {}, [[]], {"": ""}, "x" * 200,
)  # fmt: skip


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Return bytes with some of them changed, doubled, moved or left out."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(7):
            case 0 if out:
                out[at % len(out)] = rng.randrange(256)
            case 1 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 2:
                out[at:at] = rng.choice(_ODD)
            case 3:
                del out[at : at + rng.randint(1, 8)]
            case 4:
                out[at:at] = out[at : at + rng.randint(1, 16)]
            case 5:
                out[at:at] = rng.randbytes(rng.randint(1, 6))
            case _:
                out = out[:at]
    return bytes(out)


def pieces(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """Yield bytes in pieces, as a network might: mostly whole, sometimes one by one."""
    size = rng.choice((len(data), len(data), rng.randint(1, 20), 1)) or 1
    if size == 1 and len(data) > 500:
        size = 100
    for at in range(0, len(data), size):
        yield data[at : at + size]


def shuffled_json(rng: random.Random, value: Any) -> bytes:
    """Return JSON like a value, in which sometimes another value stands where one was."""
    return orjson.dumps(_shuffled(rng, value))


def _shuffled(rng: random.Random, value: Any) -> Any:
    if rng.random() < 0.15:
        return rng.choice(_VALUES)
    if isinstance(value, dict):
        return {key: _shuffled(rng, each) for key, each in value.items() if rng.random() > 0.05}
    if isinstance(value, list):
        return [_shuffled(rng, each) for each in value if rng.random() > 0.05]
    return value
