"""The start of a room object: tried again where its hooks raise, and seldom where workers died of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from innkeeper.activation import text_of
from innkeeper.channel import Command, Reply

if TYPE_CHECKING:
    from innkeeper_workers.owner import Owner

log = logging.getLogger("innkeeper.worker")

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_DEATHS = 2  # noted ones; the first death is never noted, because nothing spoke against the room before it
_FIRST_WAIT_AFTER_DEATHS_S = 60.0
_LONGEST_WAIT_AFTER_DEATHS_S = 3600.0


class Starting:
    """Runs ``on_create`` and ``on_start`` of one owned room until they succeed.

    Attributes:
        is_done: Whether they have.

    Args:
        owner: Whose room it is.
        meta: As the claim answered it.
        commit: Commits what the room says meanwhile.
        release: Gives the room back.
        ask: Sends a command until there is an answer.
    """

    def __init__(
        self,
        owner: "Owner",
        meta: Mapping[bytes, bytes],
        *,
        commit: Callable[[], Awaitable[None]],
        release: Callable[[], Awaitable[bool]],
        ask: Callable[[Command], Awaitable[Reply]],
    ) -> None:
        self.is_done = False
        self._owner = owner
        self._commit = commit
        self._release = release
        self._ask = ask
        self._is_suspect = b"marked" in meta
        self._deaths = int(meta.get(b"starting", 0))
        self._shows_error = b"error" in meta
        self._is_noted = b"starting" in meta

    @property
    def is_failing(self) -> bool:
        """Whether the room does not start; ``meta`` says why."""
        return self._shows_error and not self.is_done

    async def run(self) -> None:
        """Start the room; return when its hooks have succeeded.

        Raises:
            MemoryError: The worker must end.
            CancelledError: The room was handed over, or lost.
        """
        owner = self._owner
        is_suspect = self._is_suspect and owner.activation.runs_hooks_at_start
        wait_s = _FIRST_WAIT_S
        while True:
            if is_suspect:
                await self._suspect()
            is_started = await self._succeeds(wait_s)
            owner.fleet.stage.leave(owner)
            if self._is_noted:  # this worker lives
                await self._ask(("HDEL", owner.keys.meta, "starting"))
                self._is_noted, self._deaths = False, 0
            if is_started:
                break
            await self._pause(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        self.is_done = True
        if self._shows_error:
            await owner.fleet.note_error(owner.keys, "")

    async def _suspect(self) -> None:
        """Note in ``meta`` that user code starts now; wait first if workers died there before."""
        owner = self._owner
        if self._deaths >= _DEATHS:
            doublings = min(self._deaths - _DEATHS, 30)
            wait_s = min(_FIRST_WAIT_AFTER_DEATHS_S * 2.0**doublings, _LONGEST_WAIT_AFTER_DEATHS_S)
            text = f"{self._deaths + 1} workers died in on_create or on_start"
            log.error("room %s: %s, again in %.0f s", owner.address, text, wait_s)
            await self._tell(text)
            await self._pause(wait_s)
        if self._deaths:
            await owner.fleet.stage.wait(owner, alone=True)
        self._is_noted = True
        await self._ask(("HSET", owner.keys.meta, "starting", self._deaths + 1))

    async def _succeeds(self, wait_s: float) -> bool:
        owner = self._owner
        try:
            async with asyncio.timeout(owner.room_class.handler_s):
                await owner.activation.start()
        except MemoryError:
            raise
        except Exception as error:  # a user's hook may raise anything
            log.exception("room %s: on_start failed, again in %.0f s", owner.address, wait_s)
            await self._tell(f"{type(error).__name__}: {text_of(error)}")
            return False
        return True

    async def _pause(self, wait_s: float) -> None:
        """Wait; raises CancelledError where the room was handed over instead."""
        owner = self._owner
        loop = owner.fleet.loop
        until = loop.time() + wait_s
        while loop.time() < until:
            if owner.leaving == "handover":
                await self._release()
                raise asyncio.CancelledError
            await asyncio.sleep(min(0.05, wait_s))

    async def _tell(self, text: str) -> None:
        owner = self._owner
        self._shows_error = True
        await owner.fleet.note_error(owner.keys, text)
        owner.activation.tell_all("room_unavailable")
        await self._commit()
