"""What a worker shows operators: its readiness, its counts as metrics, and the rooms that nobody serves."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from innkeeper import keys
from innkeeper.address import parse_address
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.logs import describe
from innkeeper.ops import Family, OpsSettings, Sample
from innkeeper.ops.listener import Listener
from innkeeper.traces import open_traces
from innkeeper_workers.traces import TracedOwner

if TYPE_CHECKING:
    from innkeeper_workers.fleet import Fleet
    from innkeeper_workers.owner import Owner
    from innkeeper_workers.sweep import Sweep

log = logging.getLogger("innkeeper.worker")

_SILENT_S = 5.0
_LOOK_S = 0.5
_BY_KIND = ("kind",)

ROOMS = Family("innkeeper_worker_rooms", "gauge", "Rooms owned.", _BY_KIND)
LAG = Family(
    "innkeeper_worker_inbox_lag_events", "gauge", "Accepted events of owned rooms that are not committed yet.", _BY_KIND
)
LAG_S = Family(
    "innkeeper_worker_inbox_lag_seconds", "gauge", "Age of the oldest of these events.", _BY_KIND
)  # fmt: skip
FAILING = Family(
    "innkeeper_worker_failing_rooms", "gauge", "Owned rooms whose on_create or on_start raises.", _BY_KIND
)  # fmt: skip
OWED = Family("innkeeper_worker_owed_posts", "gauge", "Posts and jobs of owned rooms that are not delivered yet.")
OWNERLESS = Family(
    "innkeeper_worker_ownerless_rooms", "gauge", "Rooms with events, without owner and without sockets, in its shards."
)
OWNERLESS_S = Family(
    "innkeeper_worker_ownerless_seconds", "gauge", "For how long the first of them has been seen without an owner."
)
WAKING = Family(
    "innkeeper_waking_rooms", "gauge", "Rooms in the wake queue of a kind; each worker shows the same.", _BY_KIND
)
SILENT = Family("innkeeper_worker_redis_silent_seconds", "gauge", "Since Redis last answered this worker's heartbeat.")
EVENTS = Family("innkeeper_worker_events_total", "counter", "Events consumed.", _BY_KIND)
OUTPUTS = Family("innkeeper_worker_outputs_total", "counter", "Outputs written.", _BY_KIND)
COMMITS = Family("innkeeper_worker_commits_total", "counter", "Commits sent.", _BY_KIND)
DEAD = Family("innkeeper_worker_dead_events_total", "counter", "Events put aside, with their error.", _BY_KIND)
ERRORS = Family("innkeeper_worker_handler_errors_total", "counter", "Hooks that raised.", _BY_KIND)
TURN_S = Family(
    "innkeeper_worker_turn_seconds", "histogram", "Time in handlers in one turn, up to 256 events.", _BY_KIND
)
COMMIT_S = Family(
    "innkeeper_worker_commit_seconds", "histogram", "From building a commit to its answer, resends included.", _BY_KIND
)
CLAIMS = Family("innkeeper_worker_claims_total", "counter", "Rooms that became this worker's.")
TAKEOVERS = Family(
    "innkeeper_worker_takeovers_total",
    "counter",
    "Rooms taken from an owner that had not given them back, by how that showed: deserted, expired or lapsed.",
    ("why",),
)
RELEASES = Family("innkeeper_worker_releases_total", "counter", "Rooms given back: idle or handover.", ("why",))
FAILURES = Family(
    "innkeeper_worker_room_failures_total",
    "counter",
    "Rooms whose task ended otherwise: lost, cut (at the handler limit) or failed.",
    ("why",),
)
FENCED = Family("innkeeper_worker_refused_commits_total", "counter", "Commits refused: somebody else owned the room.")
FIRED = Family("innkeeper_worker_timers_fired_total", "counter", "Timers fired, by an owner or the lookout.", ("by",))
LATE_S = Family("innkeeper_worker_timer_late_seconds", "histogram", "How long after its time an owner fired a timer.")
POSTS = Family("innkeeper_worker_posts_total", "counter", "Posts that their targets have.")
JOBS = Family("innkeeper_worker_jobs_total", "counter", "Jobs and cancellations that rq's queue has.")
WOKEN = Family("innkeeper_worker_woken_rooms_total", "counter", "Rooms that the sweep found without owner, and woke.")
RECONNECTS = Family("innkeeper_worker_reconnects_total", "counter", "Connections lost on which bells come.")

FAMILIES: Final = (
    ROOMS, LAG, LAG_S, FAILING, OWED, OWNERLESS, OWNERLESS_S, WAKING, SILENT, EVENTS, OUTPUTS, COMMITS, DEAD, ERRORS,
    TURN_S, COMMIT_S, CLAIMS, TAKEOVERS, RELEASES, FAILURES, FENCED, FIRED, LATE_S, POSTS, JOBS, WOKEN, RECONNECTS,
)  # fmt: skip


class Lag(NamedTuple):
    """What an owned room has accepted and not committed: events, and the age of the first in seconds."""

    events: int
    age_s: float


def lag_of(owner: "Owner", *, now_s: float, server_now_s: float) -> Lag:
    """Return how far behind an owner is; nothing is asked of Redis, so it may lack what the last 500 ms brought.

    Args:
        owner: Of the room.
        now_s: By the loop's clock.
        server_now_s: By the server's clock, as well as it is known.
    """
    unread = max(0, owner.known_iseq - owner.read_iseq)
    first = owner.unsettled or (owner.pending[0] if owner.pending else None)
    if owner.inside is not None and not owner.activation.turn.consumed:
        first = owner.inside  # a hook waits: what came before it in its turn was committed when it began to
    if first is None:
        # What was not read has no time here; nothing was handled since the last turn, or since the claim.
        return Lag(unread, now_s - owner.used_at_s if unread else 0.0)
    return Lag(owner.read_iseq + unread - first.iseq + 1, max(0.0, server_now_s - first.time_us / 1_000_000))


def facts_of(fleet: "Fleet", room: str) -> dict[str, str]:
    """Return what belongs to a record about a room, or about none, in a JSON log."""
    facts = {"incarnation": fleet.incarnation}
    owner = fleet.owners.get(parse_address(room)) if room else None
    if owner is not None:
        facts |= {"owner": fleet.incarnation, "token": owner.token}
    return facts


def show(fleet: "Fleet", sweep: "Sweep", ops: OpsSettings) -> Listener:
    """Return the operators' listener of a worker, to be started; let its logs tell more of its rooms, and trace them.

    Raises:
        ExtraMissing: Traces are asked for, and OpenTelemetry is not installed.
    """
    describe(lambda room: facts_of(fleet, room))
    if ops.traces:
        TracedOwner.traces = open_traces("worker", ops.traces)
        fleet.owner_class = TracedOwner
    return Listener(ops, WorkerSource(fleet, sweep))


class WorkerSource:
    """One worker, as the operators' listener asks it.

    Args:
        fleet: Whose figures these are.
        sweep: Its sweep over the rooms awake.
    """

    role = "worker"
    families = FAMILIES

    def __init__(self, fleet: "Fleet", sweep: "Sweep") -> None:
        self._fleet = fleet
        self._sweep = sweep
        self._waking: dict[str, int] = {}

    @property
    def incarnation(self) -> str:
        """The id of this run."""
        return self._fleet.incarnation

    def missing(self) -> list[str]:
        """Return what is missing before this worker counts as one that serves rooms."""
        fleet = self._fleet
        if fleet.draining:
            return ["this worker hands over its rooms"]
        if not fleet.is_registered:  # the heartbeat is a function too, so this says that they are loaded
            return ["the functions are not loaded, or this worker is not registered yet"]
        if self._silent_s > _SILENT_S:
            return [f"Redis has not answered for {self._silent_s:.0f} s"]
        return []

    @property
    def _silent_s(self) -> float:
        heard_at_s = self._fleet.meters.heard_at_s
        return self._fleet.loop.time() - heard_at_s if heard_at_s else 0.0

    async def look(self) -> None:
        """Count the rooms in the wake queues of all kinds, those included that nobody serves."""
        link = self._fleet.link
        self._waking = {}
        try:
            async with asyncio.timeout(_LOOK_S):
                known = {name.decode() for name in await link.call("HKEYS", keys.KINDS)}
                kinds = sorted(known.union(self._fleet.rooms))
                counts = await link.send([("ZCARD", keys.wake_queue(kind)) for kind in kinds])
        except (TimeoutError, RedisUnavailable, RedisReplied) as error:
            log.debug("wake queues not counted: %s", error)
        else:
            self._waking = {kind: n for kind, n in zip(kinds, counts, strict=True) if not isinstance(n, RedisReplied)}

    def samples(self) -> Iterator[Sample]:
        """Return the samples as of now; they cost a look at each room."""
        fleet, meters, sweep = self._fleet, self._fleet.meters, self._sweep
        yield from self._of_rooms()
        for kind, count in self._waking.items():
            yield WAKING, (kind,), count
        yield OWNERLESS, (), len(sweep.deserted)
        yield OWNERLESS_S, (), fleet.loop.time() - min(sweep.deserted.values()) if sweep.deserted else 0.0
        yield SILENT, (), self._silent_s
        for kind in sorted({*fleet.rooms, *meters.kinds}):  # from 0 on, so that the first failure is an increase
            counts = meters.kinds[kind]
            yield EVENTS, (kind,), counts.events
            yield OUTPUTS, (kind,), counts.outputs
            yield COMMITS, (kind,), counts.commits
            yield DEAD, (kind,), counts.dead
            yield ERRORS, (kind,), counts.errors
            yield TURN_S, (kind,), counts.turn_s
            yield COMMIT_S, (kind,), counts.commit_s
        yield CLAIMS, (), meters.claims
        for why in ("deserted", "expired", "lapsed"):
            yield TAKEOVERS, (why,), meters.takeovers[why]
        for why in ("idle", "handover"):
            yield RELEASES, (why,), meters.releases[why]
        for why in ("lost", "cut", "failed"):
            yield FAILURES, (why,), meters.failures[why]
        yield FENCED, (), meters.refused_commits
        for by in ("owner", "lookout"):
            yield FIRED, (by,), meters.timers_fired[by]
        yield LATE_S, (), meters.timer_late_s
        yield POSTS, (), meters.posts
        yield JOBS, (), meters.jobs
        yield WOKEN, (), sweep.woken_count
        yield RECONNECTS, (), fleet.bells.lost_count

    def _of_rooms(self) -> Iterator[Sample]:
        fleet = self._fleet
        now_s = fleet.loop.time()
        server_now_s = fleet.redis_time_ms / 1000 + self._silent_s
        rooms, events, failing = Counter[str](), Counter[str](), Counter[str]()
        ages_s = dict.fromkeys(fleet.rooms, 0.0)
        owed = 0
        for address, owner in fleet.owners.items():
            kind = address.kind
            lag = lag_of(owner, now_s=now_s, server_now_s=server_now_s)
            rooms[kind] += 1
            events[kind] += lag.events
            ages_s[kind] = max(ages_s[kind], lag.age_s)
            failing[kind] += owner.starting.is_failing
            owed += owner.courier.waiting_count
        for kind in fleet.rooms:
            yield ROOMS, (kind,), rooms[kind]
            yield LAG, (kind,), events[kind]
            yield LAG_S, (kind,), ages_s[kind]
            yield FAILING, (kind,), failing[kind]
        yield OWED, (), owed
