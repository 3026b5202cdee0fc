"""Orders to a worker, on its channel ``inn:worker:ID:ear``: their words. No order is evidence of anything.

``handover kind/name`` gives the room back to whoever comes; ``handover kind/name w-TARGET`` to that worker, which hears
``claim kind/name`` then. A worker that does not own the room, or does not know the word, leaves it at that.
"""

from typing import Final, NamedTuple

from innkeeper.address import Address, InvalidAddress, parse_address

HANDOVER: Final = "handover"
CLAIM: Final = "claim"
_LONGEST = 1_024


class Order(NamedTuple):
    """What a worker is asked to do with a room; ``target`` is the incarnation that is to have it, or empty."""

    verb: str
    room: Address
    target: str = ""


def write_order(order: Order) -> bytes:
    """Return an order as it is published."""
    return " ".join(part for part in (order.verb, str(order.room), order.target) if part).encode()


def read_order(body: bytes) -> Order:
    """Return what was published.

    Raises:
        ValueError: It is no order; the text says why, and is fit for a log.
    """
    words = body[:_LONGEST].decode(errors="replace").split(" ")
    verb, room, target = words[0], words[1] if len(words) > 1 else "", words[2] if len(words) > 2 else ""  # noqa: PLR2004
    if verb not in (HANDOVER, CLAIM) or len(words) > (3 if verb == HANDOVER else 2) or len(body) > _LONGEST:
        raise ValueError(f"unknown order {body[:80]!r}")
    try:
        return Order(verb, parse_address(room), target)
    except InvalidAddress as error:
        raise ValueError(f"order {verb}: {error}") from error
