"""A message on its way, to be awaited or not."""

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from innkeeper.errors import MessageFailed, MessageLost


class Sent:
    """Await it: the message is accepted then, and the room applies it exactly once, whatever dies.

    Nobody has to await it. Cancelling the wait does not call the message back.

    Raises:
        MessageLost: The session ended before; ``applied`` says whether it may have been applied all the same.
    """

    __slots__ = ("_accepted", "_applied")

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[None] = loop.create_future()
        self._applied: asyncio.Future[None] = loop.create_future()

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.shield(self._accepted).__await__()

    @property
    def applied(self) -> "Awaitable[None]":
        """Await it: the room has handled the message and committed what came of it.

        Raises:
            MessageFailed: The room's handler failed on it, and was undone.
            MessageLost: As above.
        """
        return asyncio.shield(self._applied)

    # --- told by the session --------------------------------------------------------------------------------------
    def accept(self) -> None:
        """Note that it is in the room's inbox."""
        if not self._accepted.done():
            self._accepted.set_result(None)

    def settle(self, failure: "MessageFailed | None") -> None:
        """Note that the room has handled it, or failed to."""
        if self._applied.done():
            return
        if failure is None:
            self._applied.set_result(None)
        else:
            _break(self._applied, failure)

    def lose(self, error: "MessageLost") -> None:
        """Note that nothing more will be heard of it."""
        for future in (self._accepted, self._applied):
            if not future.done():
                _break(future, error)


def _break(future: "asyncio.Future[None]", error: Exception) -> None:
    future.set_exception(error)
    future.exception()  # nobody has to look at it: no complaint when it goes unseen
