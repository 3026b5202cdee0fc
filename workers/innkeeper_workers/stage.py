"""Who may run a handler in this process: rooms whose lease is fresh, one alone where an event is a suspect."""

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from innkeeper_workers.owner import Owner

_TRIALS_AT_ONCE = 32
_ALONE_S = 2.0
"""What kills its process does so at once, as a rule; one that waits for something shall not stop all other rooms."""

log = logging.getLogger("innkeeper.worker")


class Stage:
    """The owners whose handlers run now, and the one that wants to be alone.

    Attributes:
        trials: Rooms between noting an event as tried and its commit: few, or one death would speak against many.

    Args:
        stop_s: A lease confirmed longer ago than this starts no handler.
    """

    def __init__(self, *, stop_s: float) -> None:
        self.trials = asyncio.Semaphore(_TRIALS_AT_ONCE)
        self._stop_s = stop_s
        self._running: set[Owner] = set()
        self._alone: Owner | None = None
        self._slow: set[Owner] = set()  # were alone for long: others go on, but no other is alone meanwhile
        self._patience: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def enter(self, owner: "Owner", now_s: float) -> bool:
        """Let the owner start handlers if nothing speaks against it; else it asks :meth:`wait`."""
        if (self._alone is not None and self._alone is not owner) or now_s - owner.confirmed_at_s > self._stop_s:
            return False
        self._running.add(owner)
        return True

    async def wait(self, owner: "Owner", *, alone: bool) -> None:
        """Return when the owner may start handlers, ``alone`` when no other's run any more."""
        while True:
            if self._loop.time() - owner.confirmed_at_s > self._stop_s:
                await asyncio.sleep(0.02)
            elif (self._alone is not None and self._alone is not owner) or (alone and self._slow - {owner}):
                await asyncio.sleep(0.005)
            elif alone and self._running - {owner}:
                self._alone = owner
                await asyncio.sleep(0.005)
            else:
                break
        if alone:
            self._alone = owner
            self._patience = self._loop.call_later(_ALONE_S, self._share, owner)
        self._running.add(owner)

    def _share(self, owner: "Owner") -> None:
        log.warning(
            "room %s: its next event, of which a worker may have died, runs alone for %g s now; other rooms go on",
            owner.address, _ALONE_S,
        )  # fmt: skip
        self._alone = None
        self._running.discard(owner)
        self._slow.add(owner)

    def leave(self, owner: "Owner") -> None:
        """The owner's turn is over, or the owner is."""
        self._running.discard(owner)
        self._slow.discard(owner)
        if self._alone is owner:
            self._alone = None
            if self._patience is not None:
                self._patience.cancel()
