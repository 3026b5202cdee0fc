"""What speaks against a room's next events after its owner died, and the trial that each of them gets."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from innkeeper import keys
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.functions import Claimed
from innkeeper.wire import parse_id
from innkeeper_workers.deaths import is_storm

if TYPE_CHECKING:
    from innkeeper_workers.owner import Owner

log = logging.getLogger("innkeeper.worker")

CONVICTED = "its workers died of it"
"""How the reason begins for which a convicted event is put aside."""

_STRIKES = 2
_STRIKES_IN_STORM = 4
_LOOK_AGAIN_S = 0.05


class Suspicion:
    """The marked events of one owned room: an unclean claim leaves them, and they run one at a time.

    Attributes:
        marked_iseq: The last marked event; 0 once it is committed, or where the claim was clean.
        strikes: How many workers have died while the next event's handler ran.

    Args:
        owner: Whose room it is.
        claimed: What the claim answered.
    """

    def __init__(self, owner: "Owner", claimed: Claimed) -> None:
        self.marked_iseq = int(claimed.meta.get(b"marked", 0))
        self.strikes = int(claimed.meta.get(b"strikes", 0))
        self._owner = owner
        self._taken_from = claimed.taken_from
        self._claimed_ms = claimed.server_us // 1000
        self._is_trying = False  # whether it holds one of the fleet's trials

    async def convicts(self) -> bool:
        """Return whether so many workers died of the next event, a marked one, that it is not run any more."""
        if self.strikes < _STRIKES:
            return False
        fleet = self._owner.fleet
        if self._taken_from and await self._was_robbed():
            self.strikes -= 1
            with contextlib.suppress(RedisUnavailable, RedisReplied):  # the next owner would look for itself
                await fleet.link.call("HSET", self._owner.keys.meta, "strikes", self.strikes)
            return False
        return self.strikes >= _STRIKES_IN_STORM or not await is_storm(fleet.link, now_ms=fleet.redis_time_ms)

    async def _was_robbed(self) -> bool:
        """Return whether the owner before is alive after all: its room was taken because nobody heard its bell.

        A claim counts that as a death, because it cannot know better. Waits until a heartbeat of its shows that it
        lives, for the time of two.
        """
        fleet, worker = self._owner.fleet, self._taken_from
        until_s = fleet.loop.time() + 2 * fleet.times.heartbeat_ms / 1000
        while fleet.loop.time() < until_s:
            try:
                beaten_ms = await fleet.link.call("ZSCORE", keys.WORKERS, worker)
            except (RedisUnavailable, RedisReplied) as error:
                log.debug("worker %s not looked for: %s", worker, error)
            else:
                if beaten_ms is None:
                    return False
                if float(beaten_ms) > self._claimed_ms:
                    log.info("room %s: worker %s was robbed, it did not die", self._owner.address, worker)
                    return True
            await asyncio.sleep(_LOOK_AGAIN_S)
        return False

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
