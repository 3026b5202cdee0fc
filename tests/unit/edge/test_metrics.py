"""When an edge counts as ready, and what it counts of sockets of both modes."""

import asyncio
from types import SimpleNamespace
from typing import Any

from innkeeper.meters import EdgeMeters
from innkeeper_edge.fanout import Fanout
from innkeeper_edge.metrics import EdgeSource


def edge(**fields: Any) -> Any:
    """Return an edge that is ready."""
    ready = asyncio.Event()
    ready.set()
    whole = {"draining": False, "ready": ready, "heard_at_s": 99.0, "kinds": {"chat": object()}, "incarnation": "e-1"}
    return SimpleNamespace(loop=SimpleNamespace(time=lambda: 100.0), **{**whole, **fields})


def test_readiness_says_what_is_missing() -> None:
    """An edge is ready while Redis answers, a kind of rooms is known and it does not drain."""
    assert EdgeSource(edge()).missing() == []
    for lacking, word in (
        (edge(draining=True), "draining"),
        (edge(ready=asyncio.Event()), "not reached"),
        (edge(heard_at_s=90.0), "10 s"),
        (edge(kinds={}), "kind"),
    ):
        (why,) = EdgeSource(lacking).missing()
        assert word in why


def test_messages_out_count_for_each_socket() -> None:
    """Broadcasts count for all, addressed ones for those they mean; marks and closes are no messages."""

    class Socket(SimpleNamespace):
        """A member that takes all."""

        def write(self, frames: bytes) -> None:
            """Take them."""

    meters = EdgeMeters()
    fanout = Fanout(meters)
    fanout.live = {n: Socket(id=f"c{n}", join=n, outgoing=[], left=False) for n in (1, 2, 3)}  # type: ignore[misc]
    fanout.deliver([(b"text *", b"a"), (b"text *", b"bc")])
    assert (meters.messages_out, meters.bytes_out) == (6, 3 * (2 + 1 + 2 + 2))
    fanout.deliver([(b"text *", b"a"), (b"join 9 c9", b""), (b"text +2", b"d"), (b"text -2", b"e")])
    assert meters.messages_out == 6 + 3 + 1 + 2
