"""Events as lines for people, in what a test that fails shows."""

from innkeeper.request import Request

_SHOWN_BYTES = 200


def told(kind: bytes, who: str, data: bytes) -> str:
    """Return an event as a line.

    Args:
        kind: Of the event.
        who: Its client's name, or its connection id.
        data: Of the event; only the beginning is shown.
    """
    if kind == b"request":
        request = Request.decode(data)
        return f"request {request.method} {request.path} {_shown(request.body)}".rstrip()
    if who == "-":  # of no connection
        return f"{kind.decode()} {_shown(data)}".rstrip()
    return f"{kind.decode()} of {who} {_shown(data) if kind != b'join' else ''}".rstrip()


def _shown(data: bytes) -> str:
    return data[:_SHOWN_BYTES].decode(errors="replace")
