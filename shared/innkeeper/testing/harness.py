"""One room in memory, run by the very code that workers run."""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import orjson

from innkeeper import codec, wire
from innkeeper.activation import Activation
from innkeeper.address import parse_address
from innkeeper.close_codes import TOO_BIG
from innkeeper.errors import LeaseLost
from innkeeper.room import Room
from innkeeper.state import State
from innkeeper.testing.clients import Client, Closed
from innkeeper.testing.clock import VirtualClock
from innkeeper.testing.crashes import Fault, Script, check_crashes, check_duplicates
from innkeeper.testing.stored import Commit, StoredRoom
from innkeeper.turn import DeadEvent
from innkeeper.wire import InboxEvent

_SHOWN_BYTES = 200


class _Instance:
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
        turn = self.activation.turn
        if turn.is_empty:
            return None
        commit = self._stored.commit(turn, token=self._token, version=self._version, created=self.is_started)
        self._version += 1
        turn.clear()
        return commit


class RoomHarness:
    """A room, with clients and a clock of its own.

    Every call runs the room until nothing is left to do; an event is a commit. The room object lives from call to call,
    as in a worker, until :meth:`crash`, :meth:`sleep` or ``destroy()``.

    Attributes:
        clock: What the room takes for the time.
        clients: All that ever joined, in order.

    Args:
        room_class: The class to test.
        name: The room's own part of its address.
        state: What the room has stored before; None for a room that was never there.

    Raises:
        InvalidAddress: The name cannot stand in an address.
    """

    def __init__(
        self, room_class: type[Room[Any]], name: str = "test", *, state: Mapping[str, Any] | None = None
    ) -> None:
        self.room_class = room_class
        self.clock = VirtualClock(self._fire)
        self.clients: list[Client] = []
        self._address = parse_address(f"{room_class.kind}/{name}")
        self._state = state
        self._stored = StoredRoom(self._address, state)
        self._instance: _Instance | None = None
        self._ids = itertools.count(1)
        self._running = asyncio.Lock()
        self._dead_seen_count = 0
        self._fault: Fault = ""

    # --- what happens to the room ---------------------------------------------------------------------------------
    async def join(self, name: str = "guest", *, user_id: str = "") -> Client:
        """Let a client join; where the room refuses it, its ``closed`` says how.

        Args:
            name: Of its user.
            user_id: Of its user.

        Raises:
            Exception: Whatever on_create or on_start raise; the join waits for the next call.
        """
        client = Client(self, f"c-{next(self._ids)}", name)
        self.clients.append(client)
        await self._push("join", client.id, orjson.dumps({"user": [user_id, name]}))
        return client

    async def leave(self, client: Client) -> None:
        """Let a client go; one that was closed is gone already, and nothing happens."""
        if client.is_open:
            client.has_left = True
            await self._push("leave", client.id)

    async def sleep(self) -> None:
        """Put the room to sleep as where it is idle: on_sleep, a commit, and the instance is gone. Sockets stay."""
        async with self._running:
            instance, self._instance = self._instance, None
            if instance is not None and instance.activation.runs_hook_at_sleep:
                async with asyncio.timeout(self.room_class.handler_s):
                    await instance.activation.sleep()
                if (commit := instance.commit()) is not None:
                    self._deliver(commit)

    def crash(self) -> None:
        """Lose the room object, as where a worker is killed; the next event finds a new one, from what is committed."""
        self._instance = None

    async def _take(self, client: Client, frame: str | bytes) -> None:
        data = frame.encode() if isinstance(frame, str) else frame
        if len(data) > self.room_class.message_bytes:
            client.closed = Closed(TOO_BIG.code, TOO_BIG.reason)
            await self._push("leave", client.id)
        else:
            await self._push("text" if isinstance(frame, str) else "binary", client.id, data)

    # --- what a test looks at -------------------------------------------------------------------------------------
    @property
    def state(self) -> Any:
        """The committed state: a dict of its values, or an object of the class of a ``Room[Shape]``; a copy."""
        made = self.room_class._make_state(self._stored.state)  # noqa: SLF001 - the framework's side of Room
        return dict(made) if isinstance(made, State) else made.opened()

    @property
    def members(self) -> list[str]:
        """The ids of the members, in the order they joined."""
        rows = self._stored.members
        return sorted(rows, key=lambda name: orjson.loads(rows[name])["join"])

    @property
    def commits(self) -> list[Commit]:
        """All commits, in order."""
        return list(self._stored.commits)

    @property
    def outbox(self) -> list[tuple[str, str, Any]]:
        """What the room owes to the outside: kind, target, JSON value."""
        return [(kind, target, orjson.loads(data)) for kind, target, data in self._stored.outbox]

    @property
    def address(self) -> str:
        """The room's address."""
        return str(self._address)

    @property
    def dead(self) -> list[DeadEvent]:
        """Events that failed; a look counts as having seen them, see :meth:`check`."""
        self._dead_seen_count = len(self._stored.dead)
        return list(self._stored.dead)

    def check(self) -> None:
        """Fail where an event has failed since the last look at :attr:`dead`.

        Raises:
            AssertionError: With the tracebacks.
        """
        unseen = self._stored.dead[self._dead_seen_count :]
        if unseen:
            told = [f"{self._told(dead.kind, dead.connection, dead.data)}: {dead.error}" for dead in unseen]
            texts = [f"{line}\n{dead.traceback}" for line, dead in zip(told, unseen, strict=True)]
            raise AssertionError(
                f"{self._address}: {len(unseen)} events failed, and nobody looked\n" + "\n".join(texts)
            )

    def describe(self, event: InboxEvent) -> str:
        """Return an event as a line for people."""
        return self._told(event.kind, event.connection, event.data)

    def _told(self, kind: bytes, connection: bytes, data: bytes) -> str:
        names = {client.id.encode(): client.name for client in self.clients}
        who = names.get(connection, connection.decode())
        shown = data[:_SHOWN_BYTES].decode(errors="replace") if kind != b"join" else ""
        return f"{kind.decode()} of {who} {shown}".rstrip()

    # --- whole histories ------------------------------------------------------------------------------------------
    async def crash_everywhere(self, script: Script) -> None:
        """Run a history undisturbed, and again with crashes at every commit; all must come to the same.

        The history runs three times on rooms like this one: as it is; with the room object lost after each commit; and
        with it lost before each commit, so that every event runs twice and counts once. This harness is not touched.

        Args:
            script: What happens: an async function that gets a harness.

        Raises:
            Diverged: State, members, timers, outputs or failures of a commit differ; the text says which was the first.
        """
        await check_crashes(self._like, script)

    async def duplicate_owner(self, script: Script) -> None:
        """Run a history undisturbed, and again so that before each event another worker takes the room over.

        The owner before, which does not know, runs the event first; its commit must be refused and nothing of it show.

        Args:
            script: What happens: an async function that gets a harness.

        Raises:
            Diverged: As in :meth:`crash_everywhere`.
        """
        await check_duplicates(self._like, script)

    def _like(self, fault: Fault) -> "RoomHarness":
        other = RoomHarness(self.room_class, self._address.name, state=self._state)
        other._fault = fault
        return other

    # --- running --------------------------------------------------------------------------------------------------
    async def _push(self, kind: str, connection: str, data: bytes = b"") -> None:
        self._stored.push(kind, connection, data, now_us=self.clock.tick())
        await self._run()

    async def _run(self) -> None:
        async with self._running:
            while self._stored.inbox:
                instance = await self._handled(self._stored.inbox[0])
                commit = instance.commit()
                assert commit is not None  # noqa: S101 - it consumed an event
                if self._fault == "after" or commit.is_end:
                    self._instance = None
                self._deliver(commit)

    async def _handled(self, event: InboxEvent) -> _Instance:
        """Return the owner after it has run an event."""
        owner = self._instance = self._instance or self._claimed()
        await owner.start_for(event)
        if self._fault == "before":
            await owner.handle(event)
            owner = self._instance = self._claimed()
        elif self._fault == "twin":
            stale, owner = owner, self._claimed()
            self._instance = owner
            if await stale.handle(event):
                _must_be_refused(stale)
        await owner.start_for(event)
        if not await owner.handle(event):
            why = f"the handler took longer than {self.room_class.handler_s:g} s"
            owner = self._instance = self._claimed({event.id: why})
            owner.activation.condemn(event, why)
        return owner

    def _claimed(self, condemned: dict[bytes, str] | None = None) -> _Instance:
        return _Instance(self._stored, self.room_class, self.clock.now_us, condemned or {})

    async def _fire(self, until_us: int) -> None:
        while (fired := self._stored.fire(until_us=until_us)) is not None:
            due_us, _, data = fired
            self.clock.now_us = max(self.clock.now_us, due_us)
            await self._push("timer", "-", data)

    # --- what the edges do ----------------------------------------------------------------------------------------
    def _deliver(self, commit: Commit) -> None:
        """Show clients what a commit sent; those it closed, or took elsewhere, leave."""
        for header, body in commit.outputs:
            verb, _, rest = header.partition(b" ")
            if verb == b"join":
                join, name = rest.split(b" ")[:2]
                self._named(name).join = int(join)
            elif verb == b"refuse":
                self._named(rest).closed = Closed(*wire.read_close(body))
            elif verb in (b"text", b"binary", b"error"):
                for client in self._addressed(rest):
                    client.received.append(codec.decode(self.room_class.codec, binary=verb == b"binary", data=body))
            elif verb in (b"close", b"move"):
                for client in self._addressed(rest):
                    self._end(client, verb, body)

    def _end(self, client: Client, verb: bytes, body: bytes) -> None:
        if verb == b"close":
            client.closed = Closed(*wire.read_close(body))
        else:
            client.moved = body.decode()
        self._stored.push("leave", client.id, b"", now_us=self.clock.tick())

    def _named(self, connection: bytes) -> Client:
        return next(client for client in self.clients if client.id.encode() == connection)

    def _addressed(self, address: bytes) -> list[Client]:
        joins = {int(join) for join in address[1:].split(b",") if join}
        is_only = address[:1] == b"+"
        return [client for client in self.clients if client.is_open and (client.join in joins) == is_only]


def _must_be_refused(stale: _Instance) -> None:
    try:
        stale.commit()
    except LeaseLost:
        return
    raise AssertionError("the commit of an owner that was replaced was taken")


def _nothing() -> None:
    pass
