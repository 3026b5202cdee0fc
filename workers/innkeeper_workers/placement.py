"""Options that say which rooms a worker takes, and how many."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from innkeeper.room import Room

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What the options of :func:`placement_options` say.

    Attributes:
        kinds: The kinds to serve, separated by commas; empty: all of the targets.
        max_rooms: Take no more rooms than that; 0: no limit.
        rebalance: Give rooms to workers that have less to do, and take rooms from those that have more.
    """

    kinds: str = ""
    max_rooms: int = 0
    rebalance: bool = True

    def choose(self, rooms: Mapping[str, type[Room]]) -> dict[str, type[Room]]:
        """Return the room classes of the kinds to serve.

        Raises:
            click.BadParameter: A kind is not among the targets'; the text names it and those that are.
        """
        wanted = [kind.strip() for kind in self.kinds.split(",") if kind.strip()]
        if missing := sorted(set(wanted) - set(rooms)):
            has = ", ".join(sorted(rooms))
            raise click.BadParameter(
                f"the targets have no kind {', '.join(map(repr, missing))}; they have {has}", param_hint="--kinds"
            )
        if self.kinds and not wanted:
            raise click.BadParameter("name at least one kind, as in --kinds chat,match", param_hint="--kinds")
        return {kind: room for kind, room in rooms.items() if not wanted or kind in wanted}

    @property
    def arguments(self) -> list[str]:
        """The same for a process of this worker."""
        return [
            "--kinds", self.kinds, "--max-rooms", str(self.max_rooms),
            "--rebalance" if self.rebalance else "--no-rebalance",
        ]  # fmt: skip


UNMOVED: Final = Placement(rebalance=False)
"""All kinds, without a limit, and no room is given away."""


def placement_options(command: Decorated) -> Decorated:
    """Add ``--kinds``, ``--max-rooms`` and ``--rebalance``, the arguments of :class:`Placement`."""
    for option in (
        click.option(
            "--rebalance/--no-rebalance",
            envvar="INNKEEPER_REBALANCE",
            default=True,
            help="Give rooms to workers that have less to do, and take some from those that have more.",
        ),
        click.option(
            "--max-rooms",
            envvar="INNKEEPER_MAX_ROOMS",
            type=click.IntRange(0),
            default=0,
            help="Rooms that each process takes at most; 0: no limit.",
        ),
        click.option(
            "--kinds",
            metavar="KIND,...",
            envvar="INNKEEPER_KINDS",
            default="",
            help="Serve only these kinds of the targets.",
        ),
    ):
        command = option(command)
    return command
