"""Handshakes take turns with open sockets: thousands that come at once, as after a lost edge, stop nobody."""

import asyncio
from collections import deque
from typing import Final

from innkeeper.memory import Thrift

_EVERY_S: Final = 0.002
"""500 handshakes a second. Without, 10,000 sessions that came back made others' p99 190 ms; with two every 4 ms it was
60-74 ms on a machine where one every 2 ms made it 35-55 ms."""

_MOST_WAITING: Final = 5_000
"""Ten seconds' worth: clients wait fifteen for an answer."""


class Gate:
    """Lets handshakes through in the order in which they came, one at a time; who comes alone does not wait."""

    def __init__(self, thrift: Thrift) -> None:
        self._thrift = thrift
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_closed = False  # for a moment, behind the last one

    async def turn(self) -> bool:
        """Return when it is the caller's turn; at once False where too many wait already."""
        if not self._is_closed:
            self._close()
            return True
        if len(self._waiting) >= _MOST_WAITING:
            return False
        self._thrift.grew()
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        await waiter
        return True

    def _close(self) -> None:
        self._is_closed = True
        self._loop.call_later(_EVERY_S, self._open)

    def _open(self) -> None:
        self._is_closed = False
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # whoever waited may be gone
                waiter.set_result(None)
                self._close()
                return
