"""A room's state as an object of a user's class: each of its fields is one key of the stored state."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from innkeeper.errors import StateInvalid
from innkeeper.state import State


class TypedState:
    """What stands behind ``self.state`` of a ``Room[Shape]``.

    Where a hook has used the state, each field is encoded at its end and compared with what is stored; only changed
    fields are written. Fields that the class does not know (any more) stay stored and are not touched.

    Args:
        shape: A msgspec.Struct, a dataclass or a pydantic model, all of whose fields have defaults.
        stored: Field name to JSON.
        limit_bytes: Most that all names and values may take.
    """

    def __init__(self, shape: type[Any], stored: Mapping[str, bytes], limit_bytes: int) -> None:
        self._shape = shape
        self._fields = field_names(shape)
        self._keys = State(stored, limit_bytes)
        self._value: Any = None
        self._is_open = False

    def load(self) -> None:
        """Make the object from what is stored.

        Raises:
            StateInvalid: What is stored does not fit the class (any more); the text names the field.
        """
        fields = {name: self._keys[name] for name in self._fields if name in self._keys}
        self._keys.undo()  # they were only looked at
        validate = getattr(self._shape, "model_validate", None)
        try:
            self._value = validate(fields) if validate else msgspec.convert(fields, type=self._shape)
        except ValueError as error:
            raise StateInvalid(f"the stored state does not fit {self._shape.__name__}: {error}") from None

    def opened(self) -> Any:
        """Return the object; a hook may change it."""
        if self._value is None:
            self.load()
        self._is_open = True
        return self._value

    @property
    def stored(self) -> Mapping[str, bytes]:
        """The bytes as of the last settled event."""
        return self._keys.stored

    @property
    def is_touched(self) -> bool:
        """Whether the running event looked at the state."""
        return self._is_open

    def settle(self) -> tuple[dict[str, bytes], set[str]]:
        """End an event, as :meth:`State.settle` does."""
        if not self._is_open:
            return {}, set()
        plain = getattr(self._value, "model_dump", None)
        if plain:
            values = plain(mode="json")
        else:
            try:
                values = {name: msgspec.to_builtins(getattr(self._value, name)) for name in self._fields}
            except (TypeError, ValueError) as error:
                raise StateInvalid(f"self.state cannot be stored as JSON: {error}") from None
        for name in self._fields:
            self._keys[name] = values[name]
        changed, deleted = self._keys.settle()
        self._is_open = False
        return changed, deleted

    def undo(self) -> None:
        """Forget what the running event did."""
        self._keys.undo()
        self._value = None
        self._is_open = False


def field_names(shape: type[Any]) -> tuple[str, ...]:
    """Return the fields of a class that can be the shape of a state.

    Raises:
        TypeError: It is none of the three kinds of classes, or not all of its fields have defaults.
    """
    if hasattr(shape, "model_fields"):
        names = tuple(shape.model_fields)
    elif issubclass(shape, msgspec.Struct):
        names = tuple(field.name for field in msgspec.structs.fields(shape))
    elif dataclasses.is_dataclass(shape):
        names = tuple(field.name for field in dataclasses.fields(shape))
    else:
        raise TypeError(f"Room[{shape!r}]: the state is a msgspec.Struct, a dataclass or a pydantic model")
    try:
        shape()
    except (TypeError, ValueError) as error:
        raise TypeError(f"Room[{shape.__name__}]: every field needs a default: {error}") from None
    return names
