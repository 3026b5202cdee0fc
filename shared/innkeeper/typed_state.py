"""A room's state as an object of a user's class: each of its fields is one key of the stored state."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
import orjson

from innkeeper.errors import StateInvalid
from innkeeper.state import State, encode


class Shape:
    """A class that can be the shape of a state: a msgspec.Struct, a dataclass or a pydantic model.

    Attributes:
        name: Of the class.
        defaults: The JSON of each field in a new object. A field that is not stored and still has it is not written.

    Args:
        shape: The class.

    Raises:
        TypeError: It is none of the three kinds, or an object of it cannot be made from JSON, or without arguments.
    """

    def __init__(self, shape: Any) -> None:
        self.name = shape.__name__
        self._class = shape
        self._is_model = hasattr(shape, "model_fields")
        # Names as they are stored, and as they stand in the JSON that objects are made of (a Struct may rename them).
        if self._is_model:
            self._names = {name: name for name, field in shape.model_fields.items() if not field.exclude}
        elif issubclass(shape, msgspec.Struct):
            if shape.__struct_config__.array_like:
                raise TypeError(f"Room[{self.name}]: a Struct with array_like=True has no names to store fields under")
            self._names = {field.name: field.encode_name for field in msgspec.structs.fields(shape)}
        elif dataclasses.is_dataclass(shape):
            self._names = {field.name: field.name for field in dataclasses.fields(shape)}
        else:
            raise TypeError(f"Room[{self.name}]: the state is a msgspec.Struct, a dataclass or a pydantic model")
        self._read: Callable[[bytes], Any] = self._read_model if self._is_model else self._decoder()
        try:
            made = shape()
        except (TypeError, ValueError) as error:
            raise TypeError(f"Room[{self.name}]: every field needs a default: {error}") from None
        try:
            self.defaults = self.dump(made)
            self.load(self.defaults)
        except StateInvalid as error:
            raise TypeError(f"Room[{self.name}]: its defaults cannot be stored: {error}") from None

    @property
    def names(self) -> Collection[str]:
        """Of the fields that are stored."""
        return self._names.keys()

    def _decoder(self) -> Callable[[bytes], Any]:
        try:
            return msgspec.json.Decoder(self._class).decode
        except (TypeError, NameError) as error:
            raise TypeError(f"Room[{self.name}]: {error}") from None

    def _read_model(self, text: bytes) -> Any:
        return self._class.model_validate_json(text, by_alias=False, by_name=True)

    def load(self, stored: Mapping[str, bytes]) -> Any:
        """Make an object of the fields stored, the others being as in a new one; names it does not know are left out.

        Raises:
            StateInvalid: They do not fit the class; the text names the field.
        """
        parts = [orjson.dumps(name) + b":" + stored[key] for key, name in self._names.items() if key in stored]
        try:
            return self._read(b"{" + b",".join(parts) + b"}")
        except ValueError as error:
            raise StateInvalid(f"the state does not fit {self.name}: {error}") from None

    def dump(self, value: Any) -> dict[str, bytes]:
        """Return the JSON of an object's fields; one that is unset, or that its model leaves out, is not there.

        Raises:
            StateInvalid: JSON cannot hold it.
        """
        try:
            if self._is_model:
                fields = value.model_dump(mode="json", by_alias=False, round_trip=True, warnings=False)
            else:
                fields = {name: _builtins(getattr(value, name)) for name in self._names}
        except (TypeError, ValueError) as error:
            raise StateInvalid(f"self.state cannot be stored as JSON: {error}") from None
        wanted = {name: fields[name] for name in self._names if name in fields}
        return {
            name: encode(field, f"self.state.{name}") for name, field in wanted.items() if field is not msgspec.UNSET
        }


def _builtins(field: Any) -> Any:
    if field is msgspec.UNSET:
        return field
    # A set has no order of its own: stored as it comes, it would look changed after each reload.
    is_set = isinstance(field, set | frozenset)
    return msgspec.to_builtins(field, str_keys=True, order="deterministic" if is_set else None)


class TypedState:
    """What stands behind ``self.state`` of a ``Room[Shape]``.

    Where a hook has used the state, each field is encoded at its end and compared with what is stored; only changed
    fields are written, and only where they can be read again. Fields that the class does not know (any more) stay
    stored and are not touched.

    Args:
        shape: The class.
        stored: Field name to JSON.
        limit_bytes: Most that all names and values may take.
    """

    def __init__(self, shape: Shape, stored: Mapping[str, bytes], limit_bytes: int) -> None:
        self._shape = shape
        self._keys = State(stored, limit_bytes)
        self._value: Any = None
        self._is_open = False

    def load(self) -> None:
        """Make the object from what is stored.

        Raises:
            StateInvalid: What is stored does not fit the class (any more); the text names the field.
        """
        self._value = self._shape.load(self._keys.stored)

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
        stored, defaults = self._keys.stored, self._shape.defaults
        fields = self._shape.dump(self._value)
        changed = {name: data for name, data in fields.items() if data != stored.get(name, defaults.get(name))}
        unset = [name for name in self._shape.names if name in stored and name not in fields]
        if changed:
            self._shape.load(fields)  # or the room could not start again
            for name, data in changed.items():
                self._keys[name] = orjson.Fragment(data)
        for name in unset:
            del self._keys[name]
        settled = self._keys.settle()
        self._is_open = False
        return settled

    def undo(self) -> None:
        """Forget what the running event did."""
        self._keys.undo()
        self._value = None
        self._is_open = False
