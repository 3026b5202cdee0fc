"""How fast sockets may talk, and what may wait for those that do not read: judged four times a second, not per message.

What a message costs here is one comparison and two additions where it is taken. A socket over its rate is not read for
a while, so that TCP slows its client down; one that stays over it is closed.
"""

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Final

from innkeeper.close_codes import SLOW_READER, TOO_FAST
from innkeeper_edge.limits import BURST_S, Limits

if TYPE_CHECKING:
    from innkeeper_edge.edge import Edge
    from innkeeper_edge.member import Member

log = logging.getLogger("innkeeper.edge")

TICK_S: Final = 0.25
_LOOK_TICKS = 4
_MOST_DEBT_S = 5.0  # so that a socket is never deaf for longer, pings included
_SHED_BYTES = 65_536  # who has less waiting is not slow
_SHED_TO = 0.75


class Meter:
    """What one socket or user may still say, in messages and bytes; below 0 it owes."""

    __slots__ = ("at_s", "bytes_left", "messages_left", "over_since_s")

    def __init__(self, rates: tuple[int, int], now_s: float) -> None:
        self.messages_left, self.bytes_left = (rate * BURST_S for rate in rates)
        self.at_s = now_s
        self.over_since_s: float | None = None

    def settle(self, rates: tuple[int, int], now_s: float, count: int = 0, size_bytes: int = 0) -> None:
        """Add what was earned since the last time, take away what was said."""
        passed_s, self.at_s = now_s - self.at_s, now_s
        self.messages_left = _left(self.messages_left, rates[0], passed_s, count)
        self.bytes_left = _left(self.bytes_left, rates[1], passed_s, size_bytes)
        if self.is_over:
            self.over_since_s = now_s if self.over_since_s is None else self.over_since_s
        elif self._part(rates) >= 0.5:  # noqa: PLR2004 - half of it
            self.over_since_s = None

    @property
    def is_over(self) -> bool:
        """Whether it has said more than it may."""
        return self.messages_left < 0 or self.bytes_left < 0

    def _part(self, rates: tuple[int, int]) -> float:
        left = (self.messages_left, self.bytes_left)
        return min((each / (rate * BURST_S) for each, rate in zip(left, rates, strict=True) if rate), default=1.0)

    def is_full(self, rates: tuple[int, int]) -> bool:
        """Whether it has all that it can have."""
        return self._part(rates) >= 1


def _over_s(meter: Meter, now_s: float) -> float:
    return now_s - meter.over_since_s if meter.over_since_s is not None else 0.0


def _left(left: float, rate: int, passed_s: float, said: int) -> float:
    return max(min(left + passed_s * rate, rate * BURST_S) - said, -rate * _MOST_DEBT_S) if rate else 0.0


class Rates:
    """The meters of those who talk fast, and the look at those who read slowly.

    Attributes:
        most_count: Messages one socket may say between two judgements; who says more is held until the next.
    """

    def __init__(self, edge: "Edge", limits: Limits) -> None:
        self.most_count = limits.message_rate * BURST_S or math.inf
        self.throttled_count = 0
        self.shed_count = 0
        self.stalled_count = 0
        self._edge = edge
        self._limits = limits
        self._rates = (limits.message_rate, limits.byte_rate)
        self._user_rates = (limits.user_message_rate, 0)
        self._users: dict[str, Meter] = {}
        self._throttled: dict[Member, tuple[Meter, ...]] = {}
        self._queued_bytes = 0

    async def run(self) -> None:
        """Judge for ever."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            self.judge(self._edge.loop.time())
            ticks += 1
            # More often while much waits: a flood of outputs is faster than a second.
            if ticks % _LOOK_TICKS == 0:
                self.look(stalls=True)
            elif self._limits.output_bytes and self._queued_bytes * 2 > self._limits.output_bytes:
                self.look(stalls=False)

    # --- who talks ------------------------------------------------------------------------------------------------
    def judge(self, now_s: float) -> None:
        """Count what was said since the last time; throttle who is over, let go who has paid, close who goes on."""
        edge = self._edge
        talkers, edge.talkers = edge.talkers, []
        by_user: dict[str, list[Member]] = {}
        for member in talkers:
            count, size_bytes = member.taken_count, member.taken_bytes
            member.taken_count = member.taken_bytes = 0
            if member.left:
                continue
            self._meter(member, count, size_bytes, now_s)
            if self._limits.user_message_rate and member.grant.user.id:
                by_user.setdefault(member.grant.user.id, []).append(member)
                meter = self._users.get(member.grant.user.id)
                if meter is None:
                    meter = self._users[member.grant.user.id] = Meter(self._user_rates, now_s)
                meter.settle(self._user_rates, now_s, count)
        for user_id, members in by_user.items():
            if self._users[user_id].is_over:
                for member in members:
                    self._throttle(member, self._users[user_id])
        self._let_go(now_s)

    def _meter(self, member: "Member", count: int, size_bytes: int, now_s: float) -> None:
        rates = self._rates
        meter = member.meter
        if meter is not None:
            meter.settle(rates, now_s)
            if meter.is_full(rates):
                meter = member.meter = None
        if meter is None:
            if (not rates[0] or count <= rates[0] * TICK_S) and (not rates[1] or size_bytes <= rates[1] * TICK_S):
                return
            meter = member.meter = Meter(rates, now_s)
        meter.settle(rates, now_s, count, size_bytes)
        if meter.is_over:
            self._throttle(member, meter)

    def _throttle(self, member: "Member", meter: Meter) -> None:
        meters = self._throttled.get(member, ())
        if not meters:
            self.throttled_count += 1
            member.throttle()
        if meter not in meters:
            self._throttled[member] = (*meters, meter)

    def hold(self, member: "Member") -> None:
        """Read nothing more of a socket until it is judged."""
        self._throttled.setdefault(member, ())
        member.throttle()

    def _let_go(self, now_s: float) -> None:
        for user_id, meter in list(self._users.items()):
            meter.settle(self._user_rates, now_s)
            if meter.is_full(self._user_rates):
                del self._users[user_id]
        for member, meters in list(self._throttled.items()):
            if member.meter is not None:
                member.meter.settle(self._rates, now_s)
            over = [meter for meter in meters if meter.is_over]
            if not over or member.left or member.closing:
                del self._throttled[member]
                member.unthrottle()
            elif any(_over_s(meter, now_s) > self._limits.rate_patience_s for meter in over):
                log.info("member %s: over its rate for %g s, closed", member.id, self._limits.rate_patience_s)
                member.close_with(TOO_FAST)

    # --- who does not read ----------------------------------------------------------------------------------------
    def look(self, *, stalls: bool) -> None:
        """Look at what waits for each socket; ``stalls``: a second has passed since this was asked last."""
        stall_count = max(1, round(self._limits.stall_s / (TICK_S * _LOOK_TICKS)))
        queued_bytes = 0
        slow: list[tuple[int, Member]] = []
        for feed in self._edge.feeds.values():
            for member in feed.sockets():
                size_bytes = member.queued_bytes
                if size_bytes:
                    queued_bytes += size_bytes
                    if (
                        min(size_bytes, member.behind_bytes) >= _SHED_BYTES
                    ):  # now and a look ago: not just a large batch
                        slow.append((size_bytes, member))
                if stalls and member.stalled_looks(size_bytes) >= stall_count:
                    self.stalled_count += 1
                    log.info("member %s: nothing moved for %g s, closed", member.id, self._limits.stall_s)
                    member.cut_off(SLOW_READER)
        self._queued_bytes = queued_bytes
        if slow and self._limits.output_bytes and queued_bytes > self._limits.output_bytes:
            self._shed(slow)

    def _shed(self, slow: "list[tuple[int, Member]]") -> None:
        """Cut off slow sockets, the newest first, until enough is free."""
        least_bytes = self._limits.output_bytes * _SHED_TO
        shed_count = 0
        for size_bytes, member in sorted(slow, key=lambda pair: -pair[1].entered_at_s):
            if self._queued_bytes <= least_bytes:
                break
            member.cut_off(SLOW_READER)
            self._queued_bytes -= size_bytes
            shed_count += 1
        self.shed_count += shed_count
        log.warning("more than %d bytes waited for slow sockets: %d cut off", self._limits.output_bytes, shed_count)
