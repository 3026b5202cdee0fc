"""One room in memory, run by the very code that workers run."""

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from innkeeper import codec, wire
from innkeeper.address import parse_address
from innkeeper.close_codes import TOO_BIG
from innkeeper.connection import User
from innkeeper.jobs import Status
from innkeeper.posting import encode_post
from innkeeper.request import HEAD_BYTES, Response, failure, new_request
from innkeeper.room import Room
from innkeeper.state import State
from innkeeper.testing.clients import Client, Closed
from innkeeper.testing.clock import VirtualClock
from innkeeper.testing.crashes import Fault, Script, check_crashes, check_duplicates
from innkeeper.testing.jobs import Job, ending, jobs_of
from innkeeper.testing.owner import Owner
from innkeeper.testing.stored import Commit, StoredRoom
from innkeeper.testing.telling import told
from innkeeper.turn import DeadEvent
from innkeeper.wire import InboxEvent


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
        self._instance: Owner | None = None
        self._ids = itertools.count(1)
        self._request_ids = itertools.count(1)
        self._answers: dict[bytes, Response] = {}
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

    async def request(
        self,
        method: str,
        path: str = "/",
        *,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        user: User | None = None,
    ) -> Response:
        """Ask the room's ``on_request`` and return its answer, or what an edge answers in its place (404, 413, 431).

        Args:
            method: ``GET``, ``POST`` …
            path: From a slash on, perhaps with a query.
            body: bytes, str, or a JSON value.
            headers: Given to the handler with names in lower case.
            query: More of the query, by name or as pairs.
            user: Who asks; as without authentication if not given: the name is that of the query, or ``guest``.

        Raises:
            ValueError: The method or path is none; OutputInvalid for the body.
            Exception: Whatever on_create or on_start raise; the request waits for the next call.
        """
        asked = new_request(method, path, body=body, headers=headers, query=query)
        asked.user = user or User("", asked.query.get("name") or "guest")
        if self.room_class.on_request is Room.on_request:
            return failure(404, "no_requests")
        if len(asked.body) > self.room_class.message_bytes:
            return failure(413, "body_too_large")
        data = asked.encode()
        if len(data) - len(asked.body) > HEAD_BYTES:
            return failure(431, "headers_too_large")
        request_id = f"q-{next(self._request_ids):012x}"
        await self._push("request", request_id, data)
        return self._answers.pop(request_id.encode())

    async def post(self, value: Any, sender: str = "") -> None:
        """Post a value to the room, as another room or a program does.

        Args:
            value: JSON, at most 1 MiB.
            sender: The address of the room that posts; empty for a program.

        Raises:
            InvalidAddress: The sender is no address.
            OutputInvalid: The value is not JSON, or too large.
            Exception: Whatever on_create or on_start raise; the post waits for the next call.
        """
        if sender:
            parse_address(sender)
        await self._push("post", "-", encode_post(sender, value))

    async def finish(self, job_id: str, value: Any = None, *, status: Status | None = None, error: str = "") -> None:
        """Let a job end; its result comes to ``on_job``, unless the room does not wait for it any more.

        A value that is not JSON, or over 1 MiB, makes it a failure, as it does for a real job.

        Args:
            job_id: One of :attr:`jobs`.
            value: What it returned, if it is done.
            status: How it ended; ``failed`` where only an error is given, else ``done``.
            error: What went wrong.

        Raises:
            ValueError: The room has no such job, or a job cannot end so.
            Exception: Whatever on_start raises; the result waits for the next call.
        """
        await self._push("job", "-", ending(self.jobs, job_id, value=value, status=status or "", error=error))

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
        """What the room owes to the outside, never taken out: kind, target, JSON value.

        Kinds: ``post``; ``job``, with the function as target; ``cancel`` of a job, with its id as target and None.
        """
        return [(kind, target, orjson.loads(data or b"null")) for kind, target, data in self._stored.outbox]

    @property
    def jobs(self) -> list[Job]:
        """All jobs that the room ever put into the queue, in order."""
        return list(jobs_of(self._stored))

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
            lines = [f"{self._told(dead.kind, dead.connection, dead.data)}: {dead.error}" for dead in unseen]
            texts = [f"{line}\n{dead.traceback}" for line, dead in zip(lines, unseen, strict=True)]
            raise AssertionError(
                f"{self._address}: {len(unseen)} events failed, and nobody looked\n" + "\n".join(texts)
            )

    def describe(self, event: InboxEvent) -> str:
        """Return an event as a line for people."""
        return self._told(event.kind, event.connection, event.data)

    def _told(self, kind: bytes, connection: bytes, data: bytes) -> str:
        names = {client.id.encode(): client.name for client in self.clients}
        return told(kind, names.get(connection, connection.decode()), data)

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

    async def _handled(self, event: InboxEvent) -> Owner:
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
                stale.must_be_refused()
        await owner.start_for(event)
        if not await owner.handle(event):
            why = f"the handler took longer than {self.room_class.handler_s:g} s"
            owner = self._instance = self._claimed({event.id: why})
            owner.activation.condemn(event, why)
        return owner

    def _claimed(self, condemned: dict[bytes, str] | None = None) -> Owner:
        return Owner(self._stored, self.room_class, self.clock.now_us, condemned or {})

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
            elif verb == b"answer":
                self._answers[rest] = Response.decode(body)
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
        return [client for client in self.clients if client.is_open and wire.is_addressed(address, client.join)]
