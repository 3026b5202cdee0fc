"""Is what an act published what it stored?"""

from harness.model.history import Violation, hold
from innkeeper.wire import InboxEvent, read_batch, read_news

_LARGEST = 12_000
_LIMIT_BYTES = 16_384


def judge_shown(heard: list[bytes], stored: list[bytes]) -> None:
    """Check that members are shown what was stored, no more and no less; what is too large they read in the outlog."""
    batches = [read_batch(body) for body in heard]
    if all(batch.outputs or batch.last < batch.first for batch in batches):
        hold("shown is what was stored", [body for batch in batches for _, body in batch.outputs], stored)


def judge_bell(heard: list[bytes], *, rung: bool, events: list[InboxEvent] | None = None) -> None:
    """Check the bell: rung once if somebody should hear it, with exactly the new events or nothing."""
    hold("bell", len(heard), int(rung))
    if not heard or not heard[0]:
        size = sum(len(event.data) for event in events or ())
        if heard and events and size < _LARGEST / 2:
            raise Violation("bell", "no news of small events")
        return
    news = [event._replace(id=b"") for event in read_news(heard[0])]
    hold("bell: news is what was accepted", news, events)


def judge_out(
    heard: list[bytes], outputs: list[tuple[bytes, bytes]], *, previous: bytes, mark: bytes, cursors: tuple[int, int]
) -> None:
    """Check what a commit published: all outputs, each once, in order, linked to the one before, in small messages.

    ``cursors`` are the room's before and after the commit; ``previous`` is the id of the last output before it.
    """
    law, oseq, at = "published is what was stored", int(previous.partition(b"-")[0]), 0
    batches = [read_batch(body) for body in heard]
    if not batches:
        raise Violation(law, "nothing was published")
    for batch in batches:
        hold(law, (batch.previous, batch.mark, batch.first), (previous, mark, oseq + 1))
        count = batch.last - batch.first + 1
        expected = outputs[at : at + count]
        if count and not batch.outputs:
            if count > 1 or sum(map(len, expected[0])) + 8 <= _LARGEST:
                raise Violation(law, "left out although small")
        else:
            hold(law, batch.outputs, expected)
        if count:
            previous = b"%d-%b" % (batch.last, mark)
        at, oseq = at + count, batch.last
        hold(f"{law}: cursor", batch.cursor, cursors[batch is batches[-1]])
    hold(law, at, len(outputs))
    if max(map(len, heard)) >= _LIMIT_BYTES:
        raise Violation("published in small messages", f"{max(map(len, heard))} bytes")
