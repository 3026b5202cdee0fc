"""The class users write: a room, fed one event at a time, the only one allowed to change its state."""

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, get_args, get_origin

from typing_extensions import TypeVar

from innkeeper import codec as codecs
from innkeeper import jobs, wire
from innkeeper.address import KIND_PATTERN, parse_address
from innkeeper.connection import Connection, User
from innkeeper.context import RoomContext
from innkeeper.dispatch import Dispatch, find_handlers
from innkeeper.errors import JobInvalid, OutputInvalid, TimerInvalid
from innkeeper.hook_rules import check_hooks
from innkeeper.jobs import JobResult
from innkeeper.limits import check_limits
from innkeeper.posting import encode_post
from innkeeper.request import REQUEST_S, Request, Response
from innkeeper.state import State
from innkeeper.timers import Missed, Timer
from innkeeper.typed_state import Shape, TypedState

S = TypeVar("S", default=State)


class Event(NamedTuple):
    """What ``on_error`` learns of the event that failed."""

    id: str
    kind: str
    connection: Connection | None
    data: bytes


class Connections:
    """Members of a room, in the order they joined; iterate, ``len()``, ``get(id)``."""

    def __init__(self, members: Mapping[str, Connection]) -> None:
        self._members = members

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, connection: object) -> bool:
        return isinstance(connection, Connection) and self._members.get(connection.id) is connection

    def get(self, connection_id: str) -> Connection | None:
        """Return the member with this id, or None."""
        return self._members.get(connection_id)


class Room(Generic[S]):
    """Subclass it and define the hooks you need; each room name is one live instance, wherever its worker is.

    Hooks may be sync or async; a sync hook must not block. What a hook asks for (state, broadcasts, closes) takes
    effect in one commit or, if the hook raises, not at all. Attributes you set yourself live as long as the instance.

    ``class Chat(Room[ChatState])`` makes ``self.state`` an object of that class (a msgspec.Struct, a dataclass or a
    pydantic model, every field with a default) instead of a mapping.

    Attributes:
        kind: The first part of the address; the class's name in lower case unless set.
        codec: ``"json"`` (values; bytes stay binary frames) or ``"raw"`` (str and bytes as they came).
        message_bytes: The largest message taken from a client (64 KiB; at most 1 MiB).
        backlog_count: Messages and joins that may wait for this room before senders are slowed down.
        state_bytes: The largest state (1 MiB), keys and JSON values together.
        max_connections: Most members at a time; further ones are closed with 4503. None: no limit.
        handler_s: Seconds an async hook may take before it is cut.
        idle_s: Seconds without events after which the instance is put to sleep; sockets stay.
        request_s: Seconds after which a request without an answer gets 504 (30; at most 300).
        grace_s: Seconds a client of ``innkeeper.v1`` may be away before it leaves; 0: it leaves at once.
    """

    kind: ClassVar[str] = ""
    codec: ClassVar[codecs.Codec] = "json"
    message_bytes: ClassVar[int] = 65_536
    backlog_count: ClassVar[int] = 10_000
    state_bytes: ClassVar[int] = 1_048_576
    max_connections: ClassVar[int | None] = None
    handler_s: ClassVar[float] = 30.0
    idle_s: ClassVar[float] = 10.0
    request_s: ClassVar[float] = REQUEST_S
    grace_s: ClassVar[float] = 30.0

    _context: RoomContext
    _dispatch: ClassVar[Dispatch | None] = None
    _shape: ClassVar[Shape | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check_hooks(cls, Room)
        if "kind" not in cls.__dict__:
            cls.kind = re.sub(r"[^a-z0-9_-]", "", cls.__name__.lower()).lstrip("_-0123456789")
        if not KIND_PATTERN.fullmatch(cls.kind):
            raise ValueError(f"{cls.__name__}.kind = {cls.kind!r}: it must match [a-z][a-z0-9_-]{{0,31}}")
        if cls.codec not in ("json", "raw"):
            raise ValueError(f'{cls.__name__}.codec = {cls.codec!r}: "json" or "raw"')
        check_limits(cls)
        cls._dispatch = find_handlers(cls, has_on_message=cls.on_message is not Room.on_message)
        if cls._dispatch is not None and cls.codec == "raw":
            raise ValueError(f"{cls.__name__}: @on handlers need the json codec; raw messages have no type")
        for base in cls.__dict__.get("__orig_bases__", ()):
            origin, arguments = get_origin(base), get_args(base)
            if isinstance(origin, type) and issubclass(origin, Room):
                cls._take_shape(arguments[0])

    @classmethod
    def _take_shape(cls, shape: Any) -> None:
        if isinstance(shape, type):
            cls._shape = None if shape is State else Shape(shape)
        elif not isinstance(shape, TypeVar):
            raise TypeError(f"{cls.__name__}(Room[{shape!r}]): the state is a class, not its name")

    @classmethod
    def _make_state(cls, stored: Mapping[str, bytes]) -> State | TypedState:
        if cls._shape is None:
            return State(stored, cls.state_bytes)
        return TypedState(cls._shape, stored, cls.state_bytes)

    # --- what the framework calls ---------------------------------------------------------------------------------
    def on_create(self) -> Any:
        """Run once, before the room's first event ever; what it does is committed with that event."""

    def on_start(self) -> Any:
        """Run each time an instance is made, before any event."""

    @classmethod
    def authorize(cls, user: User, name: str) -> Any:  # noqa: ARG003 - for those who override it
        """Say whether a user may enter the room of this name, and make requests to it: True or False, sync or async.

        Asked before ``on_connect`` or ``on_request``, and again when a session comes back. Whatever it raises counts as
        no: the socket is closed with 4403, the request answered with 403.
        """
        return True

    def on_connect(self, conn: Connection) -> Any:
        """Run when a connection joins; raising refuses it (close code 4403), then it was never a member."""

    def on_message(self, conn: Connection, message: Any) -> Any:
        """Run for each message of a member that no ``@on`` handler takes."""

    def on_leave(self, conn: Connection) -> Any:
        """Run exactly once for each member that is gone, after it was taken out of ``self.connections``."""

    def on_drop(self, conn: Connection) -> Any:
        """Run when a client with a session has lost its socket: still a member, it may come back within ``grace_s``."""

    def on_resume(self, conn: Connection) -> Any:
        """Run when such a client is back; what it has missed is shown to it without your doing."""

    def on_resync(self, conn: Connection) -> Any:
        """Run when what such a client has missed cannot be had any more: send it a snapshot, as in ``on_connect``."""

    def on_request(self, request: Request) -> Any:
        """Run for each HTTP request to the room; what it returns is the answer, sent after the commit.

        A JSON value, str, bytes, None (204) or a :class:`Response`. Raising undoes the event; the sender gets 500.
        """

    def on_post(self, sender: str, message: Any) -> Any:
        """Run for each post to the room: from the room ``sender``, an address, or from another program (``""``)."""

    def on_timer(self, name: str, payload: Any) -> Any:
        """Run when a timer is due that :meth:`schedule` has set; raising lets it be tried again later."""

    def on_sleep(self) -> Any:
        """Run before the instance is put away on purpose (idle, or handed over); not where its worker dies."""

    def on_job(self, result: JobResult) -> Any:
        """Run once for each job put into the queue by :meth:`enqueue`, however it ended."""

    def on_error(self, error: Exception, event: Event) -> Any:
        """Run after a hook raised and its event was undone."""

    # --- what you call --------------------------------------------------------------------------------------------
    @property
    def name(self) -> str:
        """The room's own part of its address."""
        return self._context.address.name

    @property
    def state(self) -> S:
        """The durable state: a mapping of text to JSON values, written key by key with the commit."""
        context = self._context
        context.check_open()
        state: Any = context.state.opened()  # not by cast: its call would cost as much as the rest
        return state  # type: ignore[no-any-return]

    @property
    def connections(self) -> Connections:
        """The members."""
        return Connections(self._context.members)

    def get_connections(self, tag: str | None = None) -> list[Connection]:
        """Return the members that have a tag, all without one, in the order they joined."""
        return [conn for conn in self._context.members.values() if tag is None or conn.has_tag(tag)]

    def now(self) -> float:
        """Return the server's time when the running event was accepted, as Unix seconds.

        A second run of the same event, after its worker died, finds the same time. In ``on_create`` and ``on_start`` it
        is the time at which this worker took the room, in ``on_sleep`` that of the last event.
        """
        return self._context.now_s

    @property
    def random(self) -> random.Random:
        """Chance that a second run of the same event finds again. Do not make secrets of it."""
        return self._context.random

    def new_id(self) -> str:
        """Return a new id of 32 hex digits; a second run of the same event makes the same ones. It is no secret."""
        return self._context.new_id()

    def broadcast(
        self,
        value: Any,
        *,
        exclude: Connection | str | Iterable[Connection | str] | None = None,
        tags: str | Iterable[str] | None = None,
    ) -> None:
        """Send to all members, in one order that everybody sees; takes effect in the commit.

        Args:
            value: What the codec can send.
            exclude: A member, or several, that do not get it; themselves or their ids.
            tags: Only members with this tag, or at least one of these.

        Raises:
            OutputInvalid: The room's codec cannot send this value, or what this event sends would be over 8 MiB.
            TypeError: ``exclude`` holds something else.
        """
        context = self._context
        if tags is None and (exclude is None or exclude == ()):
            context.send_to_all(value)
            return
        excluded = self._joins_of(exclude)
        if tags is None:
            context.send(value, wire.address_all(excluded))
            return
        wanted = {tags} if isinstance(tags, str) else set(tags)
        chosen = [
            conn.join
            for conn in context.members.values()
            if conn.join not in excluded and any(conn.has_tag(tag) for tag in wanted)
        ]
        context.send(value, wire.address_only(*chosen), is_addressed=bool(chosen))

    def _joins_of(self, some: Connection | str | Iterable[Connection | str] | None) -> set[int]:
        """Return the joins of connections; those that are gone need no excluding."""
        each = () if some is None else (some,) if isinstance(some, Connection | str) else some
        found = set()
        for entry in each:
            conn: object = self._context.members.get(entry) if isinstance(entry, str) else entry
            if isinstance(conn, Connection):
                found.add(conn.join)
            elif conn is not None:
                raise TypeError(f"exclude: {conn!r} is neither a connection nor the id of one")
        return found

    def post(self, target: str, value: Any) -> None:
        """Send a value to another room's ``on_post``; it leaves with the commit and arrives exactly once.

        Posts to one room arrive in the order in which they were sent. The room need not exist, nor be served now.

        Args:
            target: Its address, ``kind/name``; the room's own is fine.
            value: JSON, at most 1 MiB.

        Raises:
            InvalidAddress: The target is no address.
            OutputInvalid: The value is not JSON, or too large, or this event's posts and jobs would be over 8 MiB.
        """
        context = self._context
        context.owe("post", str(parse_address(target)), encode_post(str(context.address), value))

    def schedule(
        self,
        name: str,
        *,
        after: float | None = None,
        at: float | datetime | None = None,
        every: float | None = None,
        cron: str | None = None,
        payload: Any = None,
        missed: Missed = "skip",
    ) -> None:
        """Let ``on_timer(name, payload)`` run later, also where nobody is in the room and whatever dies until then.

        Takes effect in the commit. A timer of that name is replaced. One in the past runs at once. What runs late keeps
        its grid: the next run of ``every`` is counted from when the last one was due.

        Args:
            name: Its own in the room: 1 to 128 bytes, not beginning with ``~``.
            after: Seconds from :meth:`now` to the (first) run.
            at: The (first) run: Unix seconds, or a datetime with a time zone.
            every: Seconds between runs, 0.02 at least; alone, the first run is that far away too.
            cron: When it runs, as ``minute hour day month weekday`` in UTC; without any of the others.
            payload: JSON that the hook gets, 16 KiB at most.
            missed: What becomes of runs whose time passes before the one before them has run: ``skip`` them, run
                ``once`` for all of them, or run ``all``. The first that nobody was there for runs late in any case.

        Raises:
            TimerInvalid: Something makes no sense, this class has no ``on_timer``, or the room has 1,000 timers.
            StateInvalid: The payload is not JSON.
        """
        self._context.check_open()
        if type(self).on_timer is Room.on_timer:
            raise TimerInvalid(f"timer {name!r}: {type(self).__name__} has no on_timer(self, name, payload)")
        self._context.timers.schedule(name, payload, after=after, at=at, every=every, cron=cron, missed=missed)

    def cancel(self, name: str) -> bool:
        """Take a timer out; return whether there was one. It does not run after this event, whenever it was due."""
        self._context.check_open()
        return self._context.timers.cancel(name)

    @property
    def timers(self) -> Mapping[str, Timer]:
        """The timers that are set, by name, the next one first; a look at this moment, change them by the calls."""
        self._context.check_open()
        return MappingProxyType(self._context.timers.shown())

    def enqueue(
        self,
        function: str | Callable[..., Any],
        *args: Any,
        timeout: float = 60.0,
        deadline: float | None = None,
        **kwargs: Any,
    ) -> str:
        """Have a function run outside the room, under ``innkeeper jobs``; its result comes to :meth:`on_job`.

        Args:
            function: Marked with :func:`innkeeper.job`; itself, or as ``pkg.mod:function``.
            args: JSON values, with ``kwargs`` at most 1 MiB.
            timeout: Seconds it may run, from 1.
            deadline: Seconds after which the room waits no longer, its time in the queue included; an hour more than
                ``timeout`` unless given.
            kwargs: JSON values.

        Returns:
            The job's id, which its result carries too.

        Raises:
            JobInvalid: The name, the arguments or the times make no sense, or this class has no ``on_job``.
            OutputInvalid: This event's posts and jobs would be over 8 MiB.
        """
        self._context.check_open()
        name, job_id = jobs.job_name(function), self._context.new_id()
        if type(self).on_job is Room.on_job:
            raise JobInvalid(f"job {name}: {type(self).__name__} has no on_job(self, result)")
        data = jobs.job_data(job_id, args, kwargs, timeout_s=timeout)
        due_s = self._context.now_s + jobs.deadline_s(timeout, deadline)
        self._context.timers.await_job(job_id, name, round(due_s * 1000))
        try:
            self._context.owe("job", name, data)
        except OutputInvalid:
            self._context.timers.take_job(job_id)
            raise
        return job_id

    def destroy(self) -> None:
        """End the room with this event: everybody leaves (closed with 4404), state and members are deleted.

        ``on_leave`` runs for every member; what is sent in this event still arrives. A later join finds a fresh room.

        Raises:
            RuntimeError: There is no event: in ``on_create``, ``on_start`` and ``on_sleep``.
        """
        self._context.check_open()
        if self._context.outside:
            raise RuntimeError(
                f"destroy() in {self._context.outside}: it ends the room with an event, and here is none"
            )
        self._context.is_destroyed = True


__all__ = ["Connection", "Connections", "Event", "Request", "Response", "Room", "Timer", "User"]
