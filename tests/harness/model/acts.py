"""One act asked for, as a value: who asks what. It builds the product's own command and may travel more than once."""

from dataclasses import dataclass

from innkeeper import functions
from innkeeper.channel import Command
from innkeeper.functions import PushEvent
from innkeeper.keys import RoomKeys
from innkeeper.turn import Turn

LEASE_MS = 3_600_000
WINDOW_MS = 3_600_000
# Leases and windows end by a step of the model, never by the clock; heartbeats are given as of far ahead for that.
_HEARD_MS = 2**43


@dataclass(frozen=True, slots=True, eq=False)
class Push:
    """A batch of an edge; a silent edge has not heard a heartbeat's answer for too long."""

    edge: str
    batch: int
    events: tuple[PushEvent, ...]
    backlog_count: int
    silent: bool

    def command(self, keys: RoomKeys) -> Command:
        """Return the command."""
        return functions.push(
            keys, edge=self.edge, batch=self.batch, heartbeat_ms=0 if self.silent else _HEARD_MS,
            backlog_count=self.backlog_count, events=self.events,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A claim of a worker that saw a lock value."""

    worker: str
    mark: int
    seen: bytes
    own_subscriptions: int

    def command(self, keys: RoomKeys) -> Command:
        """Return the command."""
        return functions.claim(
            keys, worker=self.worker, mark=self.mark, lease_ms=LEASE_MS, seen=self.seen,
            own_subscriptions=self.own_subscriptions,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """A turn of an owner, or of one that believes to be."""

    worker: str
    token: str
    version: int
    turn: Turn
    extends: bool
    keep_outputs: int
    created: bool
    tries: bool = False
    shown_bytes: int = 0

    def command(self, keys: RoomKeys) -> Command:
        """Return the command."""
        return functions.commit(
            keys, token=self.token, version=self.version, worker=self.worker, lease_ms=LEASE_MS if self.extends else 0,
            keep_outputs=self.keep_outputs, turn=self.turn, created=self.created, tries=self.tries,
            shown_bytes=self.shown_bytes,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """A room given back."""

    worker: str
    token: str
    force: bool

    def command(self, keys: RoomKeys) -> Command:
        """Return the command."""
        return functions.release(keys, token=self.token, worker=self.worker, force=self.force, window_ms=WINDOW_MS)


@dataclass(frozen=True, slots=True, eq=False)
class Renew:
    """A lease to be extended."""

    worker: str
    token: str

    def command(self, keys: RoomKeys) -> Command:
        """Return the command."""
        return functions.renew(keys, token=self.token, worker=self.worker, lease_ms=LEASE_MS)


@dataclass(frozen=True, slots=True, eq=False)
class Reap:
    """An edge declared dead."""

    edge: str

    def command(self, keys: RoomKeys) -> Command:
        """Return the command."""
        return functions.reap_edge(keys, edge=self.edge)


Act = Push | Claim | Commit | Release | Renew | Reap
