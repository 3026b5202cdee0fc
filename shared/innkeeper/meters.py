"""Counters and histograms of one process: plain attributes, kept by the classes that do the work.

Counting must cost next to nothing, so nothing here locks, labels or formats. What reads them (``innkeeper.ops``) makes
Prometheus' families of them when it is asked to. A message costs at most one addition; times are taken once a flush or
commit.
"""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from innkeeper.errors import LeaseLost

if TYPE_CHECKING:
    from innkeeper.functions import Claimed
    from innkeeper.turn import Turn

LATENCY_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of what is measured in the middle of a message's way, in seconds."""

_MOST_ERRORS: Final = 50
_ERROR: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Histogram:
    """How many values fell into each of some fixed ranges, and their sum.

    Attributes:
        bounds: Upper bounds of the ranges, inclusive, growing; one more range has no bound.
        counts: Values in each range, not cumulative.
        sum: Of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Take a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values it has taken."""
        return sum(self.counts)


class EdgeMeters:
    """What one edge counts.

    Attributes:
        joins: Joins and returns of sessions that were pushed.
        messages_in: Messages taken from sockets.
        bytes_in: Payload of the events that were pushed, messages for the most part.
        messages_out: Frames handed to sockets, each socket counted.
        bytes_out: Of these frames.
        requests: HTTP requests pushed to rooms.
        pushes: Pushes sent, one a room and flush; ``pushed_events`` is what they carried.
        push_s: From sending a flush to its answer.
        refused: Events that a full room did not take; they go again.
        deferred: Pushes that Redis answered with an error; they go again.
        closes: Sockets that ended, by the code that this edge closed them with; 0 where the client went.
        rejections: Requests that did not become a socket or reach a room, by the error's name.
        resynced_sockets: Closed with 4512, or told to resync, because history was cut.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "closes",
        "deferred",
        "joins",
        "messages_in",
        "messages_out",
        "push_s",
        "pushed_events",
        "pushes",
        "refused",
        "rejections",
        "requests",
        "resynced_sockets",
    )

    def __init__(self) -> None:
        self.joins = 0
        self.messages_in = 0
        self.bytes_in = 0
        self.messages_out = 0
        self.bytes_out = 0
        self.requests = 0
        self.pushes = 0
        self.pushed_events = 0
        self.push_s = Histogram()
        self.refused = 0
        self.deferred = 0
        self.closes: Counter[int] = Counter()
        self.rejections: Counter[str] = Counter()
        self.resynced_sockets = 0

    def reject(self, error: str) -> None:
        """Count a refusal; a room's answer may name errors too, and must not make labels without number."""
        is_known = error in self.rejections or (len(self.rejections) < _MOST_ERRORS and _ERROR.fullmatch(error))
        self.rejections[error if is_known else "other"] += 1


class KindMeters:
    """What one worker counts of the rooms of one kind.

    Attributes:
        commits: Sent.
        events: Consumed by them.
        outputs: Written by them.
        dead: Events that they put aside.
        errors: Hooks that raised, those tried again included.
        turn_s: Handlers' time in one turn, what they wait for included.
        commit_s: From building a commit to its answer.
    """

    __slots__ = ("commit_s", "commits", "dead", "errors", "events", "outputs", "turn_s")

    def __init__(self) -> None:
        self.commits = 0
        self.events = 0
        self.outputs = 0
        self.dead = 0
        self.errors = 0
        self.turn_s = Histogram()
        self.commit_s = Histogram()

    def committing(self, turn: "Turn") -> None:
        """Count what a commit carries."""
        self.commits += 1
        self.events += len(turn.consumed)
        self.outputs += len(turn.outputs)
        self.dead += len(turn.dead)


class WorkerMeters:
    """What one worker counts.

    Attributes:
        kinds: By kind of room.
        claims: Rooms that became this worker's.
        takeovers: Those of them whose owner had not given them back, by how that showed: ``deserted`` (nobody listened
            to the bell), ``expired`` (the lease was over, but its lock stood there), ``lapsed`` (no lock any more).
        releases: Rooms given back, by why.
        failures: Rooms whose task ended otherwise, by why: ``lost``, ``cut`` or ``failed``.
        refused_commits: Fenced: somebody else owned the room by then.
        timers_fired: By whom: the ``owner`` of the room, or the ``lookout`` for rooms without one.
        timer_late_s: How long after its time an owner fired a timer.
        posts: Posts that their targets have.
        jobs: Jobs and cancellations that rq's queue has.
        heard_at_s: When Redis last answered a heartbeat, by the loop's clock.
    """

    __slots__ = (
        "claims",
        "failures",
        "heard_at_s",
        "jobs",
        "kinds",
        "posts",
        "refused_commits",
        "releases",
        "takeovers",
        "timer_late_s",
        "timers_fired",
    )

    def __init__(self) -> None:
        self.kinds: defaultdict[str, KindMeters] = defaultdict(KindMeters)
        self.claims = 0
        self.takeovers: Counter[str] = Counter()
        self.releases: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.refused_commits = 0
        self.timers_fired: Counter[str] = Counter()
        self.timer_late_s = Histogram()
        self.posts = 0
        self.jobs = 0
        self.heard_at_s = 0.0

    def claimed(self, claimed: "Claimed", *, is_own: bool) -> None:
        """Count a claim; ``is_own``: this worker had the room before, and cut a hook or failed on it."""
        self.claims += 1
        if not is_own and not claimed.taken_from and b"marked" in claimed.meta:
            self.takeovers["lapsed"] += 1

    def ended(self, leaving: str, error: BaseException | None, *, is_dropped: bool) -> None:
        """Count a room that this worker owns no more.

        Args:
            leaving: Why it was given back.
            error: What its task failed with.
            is_dropped: Whether its task was cancelled: the room was lost.
        """
        if is_dropped or isinstance(error, LeaseLost):
            self.failures["lost"] += 1
        elif error is not None:
            self.failures["failed"] += 1
        else:
            self.releases[leaving] += 1
