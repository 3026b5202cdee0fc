"""The same history undisturbed and disturbed: every commit must be the same."""

from collections.abc import Awaitable, Callable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from innkeeper.testing.harness import RoomHarness
    from innkeeper.testing.stored import Commit

Fault = Literal["", "before", "after", "twin"]
Script = Callable[["RoomHarness"], Awaitable[Any]]
Make = Callable[[Fault], "RoomHarness"]

_SHOWN_CHARACTERS = 300


class Diverged(AssertionError):
    """The room came to something else; the text says at which event, and what."""


async def check_crashes(make: Make, script: Script) -> None:
    """Compare a history with itself under crashes; see :meth:`RoomHarness.crash_everywhere`."""
    plain = make("")
    await script(plain)
    await _compare(plain, make("after"), script, "with the room object lost after each commit")
    await _compare(
        plain, make("before"), script, "with the room object lost before each commit, and the event run again"
    )


async def check_duplicates(make: Make, script: Script) -> None:
    """Compare a history with itself under takeovers; see :meth:`RoomHarness.duplicate_owner`."""
    plain = make("")
    await script(plain)
    await _compare(plain, make("twin"), script, "with the owner before running each event too, in vain")


async def _compare(plain: "RoomHarness", other: "RoomHarness", script: Script, how: str) -> None:
    raised: Exception | None = None
    try:
        await script(other)
    except Exception as error:  # noqa: BLE001 - the script's own; where the commits differ, they say more
        raised = error
    for number, (first, second) in enumerate(zip_longest(plain.commits, other.commits), 1):
        if second is None and raised is not None:
            break
        found = list(_differences(first, second))
        if found:
            commit = first or second
            assert commit is not None  # noqa: S101 - one is there
            events = "; ".join(plain.describe(event) for event in commit.events) or "on_sleep"
            raise Diverged(_TEXT.format(plain.address, how, number, events, "\n  ".join(found))) from raised
    if raised is not None:
        raise raised


_TEXT = """{} came to something else {}.
The first difference is in commit {} ({}):
  {}
Is something kept in an attribute or a global, or taken from a clock or chance of its own? Keep it in self.state, or
make it anew in on_start; use self.now(), self.random and self.new_id()."""


def _differences(first: "Commit | None", second: "Commit | None") -> Iterator[str]:
    """Tell what differs between two commits, a line each."""
    if first is None or second is None:
        yield f"there is none {'undisturbed' if first is None else 'disturbed'}"
        return
    one, two = dict(_parts(first)), dict(_parts(second))
    for what in [*one, *(what for what in two if what not in one)]:
        left, right = one.get(what, b"nothing"), two.get(what, b"nothing")
        if left != right:
            yield f"{what}: {_shown(left)} undisturbed, {_shown(right)} disturbed"


def _parts(commit: "Commit") -> Iterator[tuple[str, Any]]:
    """Return all that must be the same, by names for people."""
    yield "events", [event[1:] for event in commit.events]
    for what in ("state", "members", "timers"):
        for key, data in getattr(commit, f"{what}_set").items():
            yield f"{what} {key!r}", data
        for key in getattr(commit, f"{what}_del"):
            yield f"{what} {key!r}", b"deleted"
    for what in ("outputs", "outbox"):
        for place, value in enumerate(getattr(commit, what), 1):
            yield f"{what} {place}", value
    for event_id, kind, connection, data, error, _ in commit.dead:
        yield f"failure of {event_id.decode()}", (kind, connection, data, error)
    if commit.is_end:
        yield "the room", b"destroyed"


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        text = value.decode(errors="replace")
    elif isinstance(value, tuple):
        text = " ".join(map(_shown, value))
    elif isinstance(value, list):
        text = ", ".join(map(_shown, value)) or "nothing"
    else:
        text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
