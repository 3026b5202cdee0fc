"""``@on("type")``: which handler of a room takes a message, and whether the message fits the handler's annotation."""

import inspect
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, TypeVar, get_type_hints

import msgspec

from innkeeper.wire import sendable

FALLBACK: Final = "*"
_MARK: Final = "__innkeeper_on__"
_PARAMETERS: Final = 2  # self and the connection come before the message
_DETAIL_CHARACTERS: Final = 200

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


class MessageRefused(Exception):
    """A message that no handler takes: the code and the details go to its sender in an error frame."""

    def __init__(self, code: str, **details: Any) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


def on(message_type: str) -> Callable[[_Handler], _Handler]:
    """Make a method of a room the handler for messages whose ``"type"`` is this; ``"*"`` takes all other types.

    The method gets the connection and the message. Annotate the message with a msgspec.Struct, a dataclass, a TypedDict
    or a pydantic model, and it is validated and converted first; what does not fit is answered with an error frame.

    Raises:
        ValueError: The type is empty or no text.
    """
    given: object = message_type  # users write what they like
    if not isinstance(given, str) or not given:
        raise ValueError(f"@on({message_type!r}): a message type is text that is not empty")

    def mark(handler: _Handler) -> _Handler:
        setattr(handler, _MARK, (*getattr(handler, _MARK, ()), message_type))
        return handler

    return mark


def is_handler(method: object) -> bool:
    """Return whether :func:`on` has marked a method."""
    return bool(getattr(method, _MARK, ()))


class _Route(NamedTuple):
    name: str  # of the method; looked up on the room, so that a subclass may override it
    convert: Callable[[Any], Any] | None


class Dispatch:
    """The handlers of one room class, by message type."""

    def __init__(self, routes: dict[str, _Route], *, has_on_message: bool) -> None:
        self._routes = routes
        self._has_on_message = has_on_message

    def choose(self, room: Any, connection: Any, message: Any) -> tuple[Callable[..., Any], tuple[Any, Any]]:
        """Return the handler for a message and its arguments; binary messages go to ``on_message``.

        Raises:
            MessageRefused: No handler takes its type, or it does not fit.
        """
        if isinstance(message, bytes):
            return room.on_message, (connection, message)
        message_type = message.get("type") if isinstance(message, dict) else None
        route = self._routes.get(message_type) if isinstance(message_type, str) else None
        route = route or self._routes.get(FALLBACK)
        if route is None:
            if self._has_on_message:
                return room.on_message, (connection, message)
            if not isinstance(message_type, str):
                raise MessageRefused("invalid_message", detail='a message is an object with a "type"')
            raise MessageRefused("unknown_type", message_type=message_type[:_DETAIL_CHARACTERS])
        if route.convert is not None:
            try:
                message = route.convert(message)
            except ValueError as error:  # of msgspec and of pydantic
                named = {"message_type": message_type[:_DETAIL_CHARACTERS]} if isinstance(message_type, str) else {}
                raise MessageRefused("invalid_message", **named, detail=_told(error)) from None
        return getattr(room, route.name), (connection, message)


def find_handlers(cls: type, *, has_on_message: bool) -> Dispatch | None:
    """Return the handlers that a room class and its bases mark with :func:`on`, None where there are none.

    A method that overrides one takes its types too.

    Raises:
        TypeError: A handler takes other arguments than a connection and a message, or its annotation cannot be used.
        ValueError: Two handlers of one class take the same type.
    """
    routes: dict[str, _Route] = {}
    for base in reversed(cls.__mro__):
        own: dict[str, str] = {}
        for name, value in vars(base).items():
            for message_type in getattr(value, _MARK, ()):
                if message_type in own:
                    both = f"{own[message_type]} and {name}"
                    raise ValueError(f"{cls.__name__}: two handlers for messages of type {message_type!r}: {both}")
                own[message_type] = name
                routes[message_type] = _Route(name, _converter(cls, getattr(cls, name)))
    return Dispatch(routes, has_on_message=has_on_message) if routes else None


def _converter(cls: type, handler: Any) -> Callable[[Any], Any] | None:
    """Return what turns a message into a value of the handler's annotation; None for no annotation, or Any."""
    where = f"{cls.__name__}.{getattr(handler, '__name__', handler)}"
    try:
        signature = inspect.signature(handler)
        signature.bind(None, None, None)
    except TypeError:
        raise TypeError(f"{where}: a handler takes a connection and a message") from None
    places = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    wanted = _evaluated(handler, places[_PARAMETERS].annotation, where) if len(places) > _PARAMETERS else Any
    if wanted is Any or wanted is object or wanted is inspect.Parameter.empty:
        return None
    validate: Callable[[Any], Any] | None = getattr(wanted, "model_validate", None)  # of a pydantic model
    if validate is not None:
        return validate
    try:
        strange = _strange_part(msgspec.inspect.type_info(wanted), set())
    except TypeError as error:
        raise TypeError(f"{where}: messages cannot be converted to {wanted!r}: {error}") from None
    if strange is not None:
        raise TypeError(f"{where}: messages cannot be converted to {wanted!r}: not to {strange!r}")
    return lambda message: msgspec.convert(message, type=wanted)


def _evaluated(handler: Any, annotation: Any, where: str) -> Any:
    """Return what an annotation means; those beside it may be names that only type checkers know."""
    alone = SimpleNamespace(__annotations__={"message": annotation})
    try:
        names = getattr(inspect.unwrap(handler), "__globals__", {})
        return get_type_hints(alone, globalns=names)["message"]
    except Exception as error:  # noqa: BLE001 - whatever evaluating it raises
        raise TypeError(f"{where}: its annotation {annotation!r} cannot be used: {error}") from None


def _strange_part(info: Any, seen: set[int]) -> Any:
    """Return a class somewhere in a type that msgspec would take only from Python code, never from JSON; else None."""
    if isinstance(info, msgspec.inspect.CustomType):
        return None if info.cls is object else info.cls
    if isinstance(info, tuple):
        parts: Iterable[Any] = info
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) and id(info) not in seen:
        seen.add(id(info))  # types may hold themselves
        parts = (getattr(info, name) for name in info.__struct_fields__)
    else:
        return None
    return next((found for part in parts if (found := _strange_part(part, seen)) is not None), None)


def _told(error: ValueError) -> str:
    """Return what a client may hear of a validation error: where and what, never the values of others."""
    errors = getattr(error, "errors", None)
    if callable(errors):  # pydantic
        first = errors()[0]
        where = ".".join(map(str, first.get("loc", ())))
        return sendable(f"{first.get('msg', 'invalid')} - at `{where}`"[:_DETAIL_CHARACTERS])
    return sendable(str(error)[:_DETAIL_CHARACTERS])
