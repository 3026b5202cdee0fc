"""A room's durable state: a mapping whose nested changes are noticed, undone and written key by key.

Every key an event touched is encoded at the event's end and compared with the bytes stored: those bytes are what is
committed, and what a failed event is restored from (encode + compare costs 2.6 µs at 10 kB, NUMBERS.md).
"""

from collections.abc import Iterator, Mapping, MutableMapping
from enum import Enum
from typing import Any, Final
from uuid import UUID

import orjson

from innkeeper.compact import compact
from innkeeper.errors import StateInvalid, StateTooLarge
from innkeeper.finite import is_finite

_STRICT: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
_IMMUTABLE: Final = (str, int, float, bool, type(None))
_KEPT: Final = (str, int, type(None), orjson.Fragment)  # without a look; enums of text or numbers are equal to those


def encode(value: Any, where: str) -> bytes:
    """Return a value as JSON that holds the same value, see :func:`check_kept`.

    Raises:
        StateInvalid: JSON cannot hold it; ``where`` says which value it was.
    """
    data = to_json(value, where)
    check_kept(value, data, where)
    return data


def to_json(value: Any, where: str) -> bytes:
    """Return a value as JSON. What orjson writes as text, and could not read back, is refused where it can tell.

    Raises:
        StateInvalid: JSON cannot hold it.
    """
    try:
        return orjson.dumps(value, option=_STRICT)
    except (TypeError, ValueError) as error:
        raise StateInvalid(f"{where} cannot be stored as JSON: {error}") from None


def check_kept(value: Any, data: bytes, where: str) -> None:
    """Look at what ``data``, a value's JSON, would make of it when it is read back.

    A look at every UUID or member of an Enum deep in a value would take longer than encoding it: only the value itself
    is looked at.

    Raises:
        StateInvalid: None, of a float that is no number; or a text, of a UUID or of a member of an Enum.
    """
    if isinstance(value, UUID | Enum):
        raise StateInvalid(f"{where} cannot be stored as JSON: {type(value).__name__} would come back as another type")
    if not is_finite(value, data):
        raise StateInvalid(f"{where} cannot be stored as JSON: NaN and Infinity would come back as None")


def _size_of(key: str) -> int:
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise StateInvalid(f"self.state[{key!r}]: keys must be valid Unicode: {error}") from None
    return len(key)


class State(MutableMapping[str, Any]):
    """The mapping behind ``self.state``. Keys are text, values what JSON holds.

    Take nested values from the mapping within each event: a change to a list kept from an earlier event is not
    noticed before the key is looked at again. After a reload a tuple has become a list.
    """

    def __init__(self, stored: Mapping[str, bytes], limit_bytes: int) -> None:
        self._stored = dict(stored)
        self._values: dict[str, Any] = {}
        self._touched: dict[str, None] = {}  # in the order of touching, which is the order of storing
        self._deleted: set[str] = set()
        self._limit_bytes = limit_bytes
        self._size_bytes = sum(len(key) + len(data) for key, data in self._stored.items())

    def __getitem__(self, key: str) -> Any:
        if key in self._values:
            value = self._values[key]
        elif key in self._stored and key not in self._deleted:
            value = self._values[key] = orjson.loads(self._stored[key])
        else:
            raise KeyError(key)
        if not isinstance(value, _IMMUTABLE):
            self._touched[key] = None
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise StateInvalid(f"self.state[{key!r}]: keys must be text")
        self._values[key] = value
        self._touched[key] = None
        self._deleted.discard(key)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._values.pop(key, None)
        self._touched[key] = None
        self._deleted.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._values or (key in self._stored and key not in self._deleted)

    def __iter__(self) -> Iterator[str]:
        # Lazy where it can be: a list made for each first key would make some loops take the square of its length.
        for key in self._stored:
            if key not in self._deleted:
                yield key
        yield from [key for key in self._values if key not in self._stored]

    def __len__(self) -> int:
        gone = sum(key in self._stored for key in self._deleted)
        return len(self._stored) - gone + sum(key not in self._stored for key in self._values)

    def clear(self) -> None:
        """Delete all keys."""
        for key in list(self):
            del self[key]

    def __repr__(self) -> str:
        return f"State({dict(self)!r})"

    def load(self) -> None:
        """Do nothing: values are read from their bytes when they are looked at."""

    def opened(self) -> "State":
        """Return what a hook sees, this mapping itself."""
        return self

    @property
    def stored(self) -> Mapping[str, bytes]:
        """The bytes as of the last settled event."""
        return self._stored

    @property
    def is_touched(self) -> bool:
        """Whether the running event looked at or changed anything that may have to be stored."""
        return bool(self._touched)

    def settle(self) -> tuple[dict[str, bytes], set[str]]:
        """End an event: return what it changed and what it deleted, and take both as stored.

        Raises:
            StateInvalid: A value is not JSON; nothing was taken: call :meth:`undo`.
            StateTooLarge: The whole would pass the limit; likewise.
        """
        if not self._touched:
            return {}, set()
        changed: dict[str, bytes] = {}
        deleted: set[str] = set()
        size = self._size_bytes
        for key in self._touched:
            before = self._stored.get(key)
            if key in self._values:
                value = self._values[key]
                try:
                    data = orjson.dumps(value, option=_STRICT)
                except (TypeError, ValueError):
                    data = to_json(value, f"self.state[{key!r}]")  # says it in words
                if data != before:
                    if not isinstance(value, _KEPT):
                        check_kept(value, data, f"self.state[{key!r}]")
                    changed[key] = compact(data)
                    size += len(data) - len(before) if before is not None else _size_of(key) + len(data)
            elif before is not None:
                deleted.add(key)
                size -= len(key) + len(before)
        if size > self._limit_bytes and size > self._size_bytes:
            raise StateTooLarge(f"the state would be {size} bytes, the limit is {self._limit_bytes}")
        self._size_bytes = size
        self._stored.update(changed)
        for key in deleted:
            del self._stored[key]
        self._touched.clear()
        self._deleted.clear()
        return changed, deleted

    def undo(self) -> None:
        """Forget what the running event did."""
        for key in self._touched:
            self._values.pop(key, None)
        self._touched.clear()
        self._deleted.clear()
