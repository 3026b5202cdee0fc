"""How much one event may send, and owe to the outside: more than that would burden everybody with one commit."""

from typing import Final

from innkeeper.errors import OutputInvalid

EVENT_BYTES: Final = 8 * 1_048_576


class Allowance:
    """Counts what one event takes of it; the hooks of one event (of all members of a dead edge, say) share it.

    Args:
        what: What is counted, for the text of the error.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._moment = b""
        self._settled_bytes = 0
        self._running_bytes = 0

    def take(self, moment: bytes, size_bytes: int) -> None:
        """Take a part for the running hook of the event with this id.

        Raises:
            OutputInvalid: There is not so much left; nothing was taken.
        """
        if moment is not self._moment and moment != self._moment:
            self._moment, self._settled_bytes, self._running_bytes = moment, 0, 0
        total = self._settled_bytes + self._running_bytes + size_bytes
        if total > EVENT_BYTES:
            raise OutputInvalid(f"{self._what} of one event would be {total} bytes: at most {EVENT_BYTES}")
        self._running_bytes += size_bytes

    def settle(self) -> None:
        """Hear that the running hook has ended well."""
        self._settled_bytes += self._running_bytes
        self._running_bytes = 0

    def undo(self) -> None:
        """Give back what the running hook took."""
        self._running_bytes = 0
