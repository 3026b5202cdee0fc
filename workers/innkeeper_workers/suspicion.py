"""What speaks against a room's next events after its owner died, and the trial that each of them gets."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from innkeeper.wire import parse_id
from innkeeper_workers.deaths import is_storm

if TYPE_CHECKING:
    from innkeeper_workers.owner import Owner

CONVICTED = "its workers died of it"
"""How the reason begins for which a convicted event is put aside."""

_STRIKES = 2
_STRIKES_IN_STORM = 4


class Suspicion:
    """The marked events of one owned room: an unclean claim leaves them, and they run one at a time.

    Attributes:
        marked_iseq: The last marked event; 0 once it is committed, or where the claim was clean.
        strikes: How many workers have died while the next event's handler ran.

    Args:
        owner: Whose room it is.
        meta: As the claim answered it.
    """

    def __init__(self, owner: "Owner", meta: Mapping[bytes, bytes]) -> None:
        self.marked_iseq = int(meta.get(b"marked", 0))
        self.strikes = int(meta.get(b"strikes", 0))
        self._owner = owner
        self._is_trying = False  # whether it holds one of the fleet's trials

    async def convicts(self) -> bool:
        """Return whether so many workers died of the next event, a marked one, that it is not run any more."""
        if self.strikes < _STRIKES:
            return False
        fleet = self._owner.fleet
        return self.strikes >= _STRIKES_IN_STORM or not await is_storm(fleet.link, now_ms=fleet.redis_time_ms)

    async def begin_trial(self, note: Callable[[], Awaitable[None]]) -> None:
        """Note a marked event as tried, when everything else that its handler has to wait for is there.

        A worker that dies from here to the event's commit speaks against the event: nothing else may wait in between,
        and few rooms may be there at once, or one death would speak against many.
        """
        stage = self._owner.fleet.stage
        await stage.trials.acquire()
        self._is_trying = True
        await stage.wait(self._owner, alone=self.strikes > 0)
        await note()

    def end_trial(self) -> None:
        """Let another room have its trial; does nothing where there is none."""
        if self._is_trying:
            self._is_trying = False
            self._owner.fleet.stage.trials.release()

    def committed(self, event_id: bytes) -> None:
        """Hear that the commit of a turn up to this event is on its way: it ends the suspicion of the last one."""
        if parse_id(event_id)[0] >= self.marked_iseq:
            self.marked_iseq = 0
