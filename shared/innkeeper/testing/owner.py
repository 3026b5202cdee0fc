"""An owner of a room in memory: its room object, by the very code that workers run, and its right to commit."""

import asyncio

from innkeeper.activation import Activation
from innkeeper.errors import LeaseLost
from innkeeper.room import Room
from innkeeper.testing.stored import Commit, StoredRoom
from innkeeper.wire import InboxEvent


class Owner:
    """An owner's room object; its commits count as long as nobody claims the room after it."""

    def __init__(self, stored: StoredRoom, room_class: type[Room], now_us: int, condemned: dict[bytes, str]) -> None:
        claimed, self._version = stored.claim(now_us=now_us)
        self._stored = stored
        self._token = claimed.token
        self._handler_s = room_class.handler_s
        self.is_started = False
        self.activation = Activation(
            stored.address, room_class, claimed, on_suspend=_nothing, on_resume=_nothing, condemned=condemned
        )

    async def start(self) -> None:
        """Run on_create and on_start, unless they have run."""
        if not self.is_started:
            async with asyncio.timeout(self._handler_s):
                await self.activation.start()
            self.is_started = True

    async def start_for(self, event: InboxEvent) -> None:
        """Start for an event that concerns the room."""
        if self._stored.is_created or not self.activation.concerns_nobody(event):
            await self.start()

    async def handle(self, event: InboxEvent) -> bool:
        """Run an event; False where its hook took longer than it may: the instance cannot be used any more."""
        activation = self.activation
        try:
            async with asyncio.timeout(self._handler_s):
                rest = activation.handle(event)
                if rest is not None:
                    await rest
        except TimeoutError:
            activation.seal(f"the handler took longer than {self._handler_s:g} s")
            return False
        return True

    def commit(self) -> Commit | None:
        """Make true what the events since the last commit did; None where they changed nothing.

        Raises:
            LeaseLost: Another owner has claimed the room.
        """
        turn = self.activation.turn
        if turn.is_empty:
            return None
        commit = self._stored.commit(turn, token=self._token, version=self._version, created=self.is_started)
        self._version += 1
        turn.clear()
        return commit

    def must_be_refused(self) -> None:
        """Try a commit as an owner that does not know that it was replaced.

        Raises:
            AssertionError: It was taken.
        """
        try:
            self.commit()
        except LeaseLost:
            return
        raise AssertionError("the commit of an owner that was replaced was taken")


def _nothing() -> None:
    pass
