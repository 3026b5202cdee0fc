"""Requests to a room and its answers: what ``on_request`` gets and returns, and how both travel."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from innkeeper.connection import User
from innkeeper.errors import OutputInvalid, RequestInvalid
from innkeeper.finite import is_finite
from innkeeper.turn import TURN_OUT_BYTES

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
BYTES_TYPE: Final = "application/octet-stream"
HEAD_BYTES: Final = 65_536
REQUEST_S: Final = 30.0

# What belongs to one hop, or is written by the edge itself.
HOP_HEADERS: Final = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade")
)  # fmt: skip
_OWN_HEADERS = HOP_HEADERS | {"content-length", "date", "server"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_PATH = re.compile(r"/[^\s#\x00-\x1f\x7f\ud800-\udfff]*")
_LINE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")
_TYPE_HEADER = "content-type"
_FIRST_STATUS, _LAST_STATUS = 200, 599


class Request:
    """A request to the room over HTTP, or by another program.

    Attributes:
        method: As sent, mostly in capitals: ``GET``, ``POST`` …
        path: What follows the room in the URL, ``/`` where nothing does; as it stood on the wire, so not decoded.
        query_all: The pairs of the query in order, decoded.
        headers: By name in lower case; several of one name are joined by ``", "`` (cookies by ``"; "``). Without those
            of the connection, such as ``transfer-encoding``.
        body: As sent; compressed where its ``content-encoding`` says so.
        user: Who asks. Without authentication it proves nothing; empty from other programs.
    """

    __slots__ = ("body", "headers", "method", "path", "query_all", "user")

    def __init__(
        self,
        method: str,
        path: str,
        *,
        query_all: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        user: User | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query_all = [(name, value) for name, value in query_all]
        self.headers = dict(headers or {})
        self.body = body
        self.user = user or User("", "")

    @property
    def query(self) -> dict[str, str]:
        """The query as a mapping; of several values of one name the last."""
        return dict(self.query_all)

    def text(self) -> str:
        """Return the body as text.

        Raises:
            RequestInvalid: It is not UTF-8. Uncaught in ``on_request``, the sender gets 400.
        """
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            raise RequestInvalid("the body is not UTF-8") from None

    def json(self) -> Any:
        """Return the body as a JSON value.

        Raises:
            RequestInvalid: It is not JSON. Uncaught in ``on_request``, the sender gets 400.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise RequestInvalid(f"the body is not JSON: {error}") from None

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path} {len(self.body)} bytes>"

    def encode(self) -> bytes:
        """Return it as the data of an event: a line of JSON, then the body."""
        head = (self.method, self.path, self.query_all, self.headers, list(self.user))
        return orjson.dumps(head) + b"\n" + self.body

    @classmethod
    def decode(cls, data: bytes) -> "Request":
        """Return the request in an event's data.

        Raises:
            ValueError: It is none.
        """
        head, _, body = data.partition(b"\n")
        try:
            method, path, query, headers, user = orjson.loads(head)
            return cls(method, path, query_all=query, headers=headers, body=body, user=User(*user))
        except (TypeError, AttributeError) as error:
            raise ValueError(f"this is no request: {error}") from None


def new_request(
    method: str,
    path: str,
    *,
    body: Any = b"",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
) -> Request:
    """Return a request that a program makes; its user is empty.

    Args:
        method: A word.
        path: From a slash on, perhaps with a query.
        body: bytes, str, or a JSON value; the last two get a ``content-type`` if the headers have none.
        headers: Names in any case. Those of a connection are left out, as an edge does.
        query: Follows that of the path.

    Raises:
        ValueError: The method, path or a header is none; the text says which.
        OutputInvalid: The body is no JSON value, or over 1 MiB.
    """
    if not _fits(_METHOD, method):
        raise ValueError(f"method {method!r}: a word, such as GET")
    if not _fits(_PATH, path):
        raise ValueError(f"path {path!r}: it begins with / and has no blanks, controls, # or halves of surrogates")
    where, _, text = path.partition("?")
    more = query.items() if isinstance(query, Mapping) else query
    pairs = [*parse_query(text), *((str(name), str(value)) for name, value in more)]
    given = _request_headers(headers or {})
    data = body
    if not isinstance(body, bytes):
        natural, data = encode_body(body, "a body")
        if natural:
            given.setdefault(_TYPE_HEADER, natural)
    return Request(method, where, query_all=pairs, headers=given, body=data)


def _request_headers(headers: object) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise ValueError(f"headers {headers!r}: a mapping of names to text")  # noqa: TRY004 - one error for all of it
    given: dict[str, str] = {}
    for name, value in headers.items():
        if not _fits(_TOKEN, name):
            raise ValueError(f"headers: {name!r} is no name that HTTP allows")
        if not _fits(_LINE, value):
            raise ValueError(f"headers: {name}: {value!r} is no line of text")
        if name.lower() not in HOP_HEADERS:
            given[name.lower()] = value
    return given


def _fits(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


class Response:
    """An answer to a request; return one from ``on_request`` to choose status and headers.

    Attributes:
        body: Bytes.
        status: 200 to 599.
        headers: Pairs, so that one name may stand several times (``set-cookie``).
        content_type: Of the body.

    Args:
        body: A JSON value; str is sent as text, bytes as they are, None as nothing.
        status: 200 to 599.
        headers: A mapping, or pairs. A ``content-type`` among them counts as ``content_type``.
        content_type: Instead of the one that fits the body.

    Raises:
        ValueError: A status, or a header, that HTTP does not allow, or that the edge writes itself; two content types.
        OutputInvalid: The body is no JSON value, or over 1 MiB.
    """

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: Any = None,
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        content_type: str = "",
    ) -> None:
        given: object = status  # users write what they like
        if not isinstance(given, int) or isinstance(given, bool) or not _FIRST_STATUS <= given <= _LAST_STATUS:
            raise ValueError(f"status {status!r}: a whole number from {_FIRST_STATUS} to {_LAST_STATUS}")
        natural, self.body = encode_body(body, "an answer")
        self.status = status
        pairs = [_checked(pair) for pair in (headers.items() if isinstance(headers, Mapping) else headers)]
        self.headers = [pair for pair in pairs if pair[0].lower() != _TYPE_HEADER]
        types = [value for name, value in pairs if name.lower() == _TYPE_HEADER]
        if content_type:
            types.append(_checked((_TYPE_HEADER, content_type))[1])
        if len(types) > 1:
            raise ValueError(f"content types {types}: give one, as content_type or among the headers")
        self.content_type = "".join(types) or natural

    def text(self) -> str:
        """Return the body as text; UnicodeDecodeError where it is not UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body as a JSON value; ValueError where it is none."""
        return orjson.loads(self.body)

    def header(self, name: str) -> str | None:
        """Return the first header of a name, in any case, or None."""
        if name.lower() == _TYPE_HEADER:
            return self.content_type or None
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def __repr__(self) -> str:
        return f"<Response {self.status} {len(self.body)} bytes>"

    def encode(self) -> bytes:
        """Return it as the body of an output: a line of JSON, then the body."""
        return orjson.dumps((self.status, self.content_type, self.headers)) + b"\n" + self.body

    @classmethod
    def decode(cls, data: bytes) -> "Response":
        """Return the response in the body of an output.

        Raises:
            ValueError: It is none.
        """
        head, _, body = data.partition(b"\n")
        try:
            status, content_type, headers = orjson.loads(head)
            response = cls(body, status, headers)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"this is no answer: {error}") from None
        response.content_type = content_type
        return response


def response_of(value: Any) -> Response:
    """Return what ``on_request`` has returned as a response: None is 204, other values 200.

    Raises:
        OutputInvalid: As :class:`Response`.
    """
    if isinstance(value, Response):
        return value
    return Response(value, 204 if value is None else 200)


def failure(status: int, code: str) -> Response:
    """Return the answer of the framework itself: ``{"error": code}``."""
    return Response({"error": code}, status)


def parse_query(text: str) -> list[tuple[str, str]]:
    """Return the pairs of a query, decoded, in order; bytes that are not UTF-8 show as replacement characters."""
    return parse_qsl(text, keep_blank_values=True, errors="replace")


def encode_body(body: Any, what: str) -> tuple[str, bytes]:
    """Return the natural content type of a body, and its bytes; ``what`` it is stands in errors.

    Raises:
        OutputInvalid: It is no JSON value, or over 1 MiB.
    """
    if body is None:
        return "", b""
    try:
        if isinstance(body, str):
            natural, data = TEXT_TYPE, body.encode()
        elif isinstance(body, bytes | bytearray | memoryview):
            natural, data = BYTES_TYPE, bytes(body)
        else:
            natural, data = JSON_TYPE, orjson.dumps(body)
    except (TypeError, ValueError) as error:
        raise OutputInvalid(f"{what} cannot be this value: {error}") from None
    if natural == JSON_TYPE and not is_finite(body, data):
        raise OutputInvalid(f"{what} cannot be this value: NaN and Infinity would arrive as null")
    if len(data) > TURN_OUT_BYTES:
        raise OutputInvalid(f"{what} of {len(data)} bytes: at most {TURN_OUT_BYTES}")
    return natural, data


def _checked(pair: Any) -> tuple[str, str]:
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise ValueError(f"headers {pair!r}: a mapping, or pairs of name and value") from None
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        raise ValueError(f"header name {name!r}: HTTP does not allow it")
    if name.lower() in _OWN_HEADERS:
        raise ValueError(f"header {name!r}: the edge writes it itself")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise ValueError(f"header {name}: {value!r} is no line of ASCII")
    return name, value
