"""Where an edge stands in a room's outputs, and what a published batch means to it: pure arithmetic on ids."""

from collections import deque
from enum import Enum, auto

from innkeeper.wire import Batch, StreamId, format_id, parse_id

_KEPT_RANGES = 256


class Verdict(Enum):
    """What to do with a batch."""

    APPEND = auto()
    REPEAT = auto()
    FILL = auto()
    RESYNC = auto()


class Chain:
    """The edge's last output of a room and the ranges it had lately.

    An id ``oseq-mark`` belongs to one claim, and a claim writes each oseq once: so a batch is a repeat exactly if its
    range under its mark was seen. A mark alone would not show a rollback by one output.

    Args:
        position: The id of the last output when the edge began to listen.
    """

    def __init__(self, position: StreamId) -> None:
        self.position = position
        self._text = format_id(position)
        self._floor = position[0]
        self._ranges: deque[tuple[int, int, int]] = deque(maxlen=_KEPT_RANGES)
        self._ranges.append((position[0], position[0], position[1]))

    def follows(self, batch: Batch) -> bool:
        """Say quickly whether a batch is the next one and complete; else ask :meth:`judge`."""
        return batch.previous == self._text and batch.last - batch.first + 1 == len(batch.outputs)

    def judge(self, batch: Batch, *, young: bool) -> Verdict:
        """Say what to do with a batch that just came.

        Args:
            batch: As published.
            young: Whether the edge began to listen a moment ago: then what was published before that may still come.
        """
        previous = parse_id(batch.previous)
        if previous == self.position:
            complete = batch.last - batch.first + 1 == len(batch.outputs)
            return Verdict.APPEND if complete else Verdict.FILL
        mark = int(batch.mark)
        known = previous if batch.first > batch.last else (batch.last, mark)
        if self._knows(known) or (young and batch.last <= self._floor):
            return Verdict.REPEAT
        return Verdict.RESYNC if previous[0] <= self.position[0] else Verdict.FILL

    def advance(self, first: int, last: int, mark: int) -> None:
        """Take the outputs first … last as had."""
        if first > last:
            return
        self.position = (last, mark)
        self._text = b"%d-%d" % self.position
        begin, end, old_mark = self._ranges[-1]
        if end == first - 1 and old_mark == mark:
            self._ranges[-1] = (begin, last, mark)
        else:
            self._ranges.append((first, last, mark))

    def _knows(self, stream_id: StreamId) -> bool:
        number, mark = stream_id
        return any(first <= number <= last and mark == kept for first, last, kept in self._ranges)
