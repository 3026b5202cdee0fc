"""What one can do in the inspector: what operators' commands do, by the same acts."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from innkeeper.address import Address
from innkeeper.close_codes import KICKED
from innkeeper.operator import acts
from innkeeper.outside import Innkeeper
from innkeeper.waking import wake

_WAIT_S: Final = 10.0
_MOST_REASON: Final = 120
_REFUSED: Final = 400
_NOT_THERE: Final = 404


class Refused(Exception):
    """It cannot be done; the text says why, ``status`` as in HTTP."""

    def __init__(self, text: str, *, status: int = _REFUSED) -> None:
        super().__init__(text)
        self.status = status


async def _send(inn: Innkeeper, room: Address, body: dict[str, Any]) -> str:
    if "message" not in body:
        raise Refused("there is no message")
    await inn.room(str(room)).post(body["message"])
    return "the message is accepted"


async def _kick(inn: Innkeeper, room: Address, body: dict[str, Any]) -> str:
    connection, reason = _text(body, "connection"), _text(body, "reason", "")
    if len(reason.encode()) > _MOST_REASON:
        raise Refused(f"a reason has at most {_MOST_REASON} bytes")
    if not await acts.kick(inn, room, connection, code=KICKED.code, reason=reason, timeout_s=_WAIT_S):
        raise Refused(f"there is no member {connection} (any more)", status=_NOT_THERE)
    return f"{connection} is kicked"


async def _wake(inn: Innkeeper, room: Address, _body: dict[str, Any]) -> str:
    await wake(inn.link, [room])
    return "it is woken"


async def _evict(inn: Innkeeper, room: Address, _body: dict[str, Any]) -> str:
    before = await acts.owner_of(inn.link, room)
    if not before:
        raise Refused("it has no owner: it sleeps", status=_NOT_THERE)
    try:
        now = await acts.hand_over(inn.link, room, timeout_s=_WAIT_S)
    except TimeoutError as error:
        raise Refused(str(error) or "its owner has not let go in time", status=504) from None
    return f"it was {before.split(':')[0]}'s, and is " + (f"{now.split(':')[0]}'s" if now else "given back")


async def _retry(inn: Innkeeper, room: Address, body: dict[str, Any]) -> str:
    entry = _text(body, "entry")
    done = await acts.retry_dead(inn.link, room, entry)
    if not done.iseq:
        why = "is not there (any more)" if done.why_not == "gone" else f"is a {done.why_not}, which is not retried"
        raise Refused(f"{entry} {why}", status=_NOT_THERE)
    return f"{entry} is tried again as event {done.iseq}"


async def _drop(inn: Innkeeper, room: Address, body: dict[str, Any]) -> str:
    entry = _text(body, "entry")
    if not await acts.drop_dead(inn.link, room, [entry]):
        raise Refused(f"{entry} is not there (any more)", status=_NOT_THERE)
    return f"{entry} is deleted"


def _text(body: dict[str, Any], name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise Refused(f"{name} is missing, or no text")
    return value


DEEDS: Final[dict[str, Callable[[Innkeeper, Address, dict[str, Any]], Awaitable[str]]]] = {
    "send": _send,
    "kick": _kick,
    "wake": _wake,
    "evict": _evict,
    "retry": _retry,
    "drop": _drop,
}
"""By name: takes the rooms, a room, and what was asked; returns in words what was done."""
