"""What libraries would log of requests, without the secrets in them."""

import logging
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError

_LOGGER: Final = logging.getLogger("innkeeper.edge.http")


class _Discreet(logging.Filter):
    """Says of a malformed request only what kind of error it is: the rest quotes what was sent, perhaps a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args = "a malformed request was refused: %s", (type(error).__name__,)
            record.exc_info = record.exc_text = None
            record.levelno, record.levelname = logging.INFO, "INFO"
        return True


def hide_secrets() -> logging.Logger:
    """Return the logger for the HTTP server; aiohttp logs no offered subprotocols (tokens among them) any more."""
    if not _LOGGER.filters:
        _LOGGER.addFilter(_Discreet())
    logging.getLogger("aiohttp.websocket").setLevel(logging.ERROR)
    return _LOGGER
