"""Operators' commands that look: ``rooms``, ``room``, ``workers``, ``edges``, ``top``, ``doctor``."""

import time
from dataclasses import asdict
from typing import Any

import click
import msgspec

from innkeeper import keys
from innkeeper.address import Address
from innkeeper.load import Load
from innkeeper.operator.detail import RoomDetail, detail
from innkeeper.operator.doctor import NOT_MENDED, Finding, examine, mended
from innkeeper.operator.reasons import house, reasons
from innkeeper.operator.running import ROOM, Interrupted, OperatorFailed, operator_options, with_link
from innkeeper.operator.survey import ProcessRow, RoomRow, Totals, addresses, loads, processes, rows, totals
from innkeeper.operator.tables import safe, show_facts, show_json, show_table
from innkeeper.topology import Commands

_EVENT = ("id", "type", "connection", "data")
_OUTPUT = ("id", "header", "body")
_DEAD = ("entry", "type", "connection", "error")
_COLUMNS = ("room", "owner", "lag", "lag s", "members", "what is wrong")


@click.command()
@operator_options
@click.option("--kind", help="Rooms of this kind alone.")
@click.option("--owner", help="Rooms of this worker alone; '-' for those without an owner.")
@click.option("--search", help="Rooms whose address holds this text.")
@click.option("--min-lag", type=click.IntRange(0), default=0, help="With so many events waiting at least.")
@click.option("--min-members", type=click.IntRange(0), default=0, help="With so many members at least.")
@click.option("--stuck", is_flag=True, help="Rooms that do not get on, and why.")
@click.option("--after", help="Rooms behind this one: the last of the page before.")
@click.option("--limit", type=click.IntRange(1), default=50, help="Rooms on a page.")
def rooms(  # noqa: PLR0917 - click passes them by name
    redis: str, as_json: bool, kind: str | None, owner: str | None, search: str | None, min_lag: int,
    min_members: int, stuck: bool, after: str | None, limit: int,
) -> None:  # fmt: skip
    """List the rooms that are awake, have sockets, timers or something to deliver."""

    async def look(link: Commands) -> tuple[list[tuple[RoomRow, str]], int]:
        wanted = [
            address
            for address in await addresses(link)
            if (kind is None or address.kind == kind)
            and (search is None or search in str(address))
            and (after is None or str(address) > after)
        ]
        needs_all = stuck or owner is not None or min_lag or min_members
        seen = await rows(link, wanted if needs_all else wanted[:limit])
        found = []
        for row, why in zip(seen, await reasons(link, seen, await house(link)), strict=True):
            owned = owner is None or row.owner == ("" if owner == "-" else owner)
            if owned and row.lag >= min_lag and row.members >= min_members and (why or not stuck):
                found.append((row, why))
        return found[:limit], len(found) if needs_all else len(wanted)

    found, count = with_link(redis, look)
    if as_json:
        show_json([{**_row(row), "trouble": why} for row, why in found])
        return
    if not found:
        click.echo("no room is stuck" if stuck else "no rooms")
        return
    show_table(_COLUMNS, [(*_cells(row), why) for row, why in found])
    if count > len(found):
        click.echo(f"{len(found)} of {count}; the next: --after {found[-1][0].room}")


def _row(row: RoomRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in RoomRow.__slots__}


def _cells(row: RoomRow) -> tuple[object, ...]:
    return row.room, row.owner or ("(woken)" if row.is_woken else "-"), row.lag, round(row.lag_s, 1), row.members


@click.command()
@operator_options
@click.argument("room", type=ROOM)
def room(redis: str, as_json: bool, room: Address) -> None:
    """Show one room: owner, lag, state, members, timers, last outputs, what waits, what was put aside."""

    async def look(link: Commands) -> tuple[RoomDetail, str]:
        found = await detail(link, room)
        return found, (await reasons(link, [found.row], await house(link)))[0]

    found, why = with_link(redis, look)
    if not found.exists:
        raise OperatorFailed(f"there is no room {room} (any more)")
    if as_json:
        facts = {name: getattr(found, name) for name in RoomDetail.__slots__}
        show_json({**facts, "last_error": found.last_error, "trouble": why})
    else:
        _show_room(found, why)


def _show_room(found: RoomDetail, why: str) -> None:
    row, meta = found.row, found.meta
    show_facts(
        {
            "room": row.room,
            "owner": f"{found.lock} (lease {found.lease_ms} ms)" if found.lock else "none: it sleeps, or waits for one",
            "stuck": why or "no",
            "last error": found.last_error or "none",
            "lag": f"{row.lag} event(s)" + (f", the oldest {row.lag_s:.1f} s" if row.lag else ""),
            "commits": meta.get("version", "0"),
            "last event": meta.get("cursor", "0"),
            "last output": meta.get("last", "-"),
            "claims": meta.get("epoch", "0"),
            "state": f"{len(found.state)} key(s), {found.state_bytes} bytes",
            "owes": f"{found.outbox} effect(s)",
        }
    )
    sections: list[tuple[str, tuple[str, ...], list[tuple[object, ...]]]] = [
        ("state", ("key", "value"), list(found.state.items())),
        ("members", ("connection", "user", "edge", "session", "connected", "state", "tags"), [
            (name, " ".join(m["user"]), m["edge"], m["session"][:8], m.get("up", True), m["state"],
             " ".join(m.get("tags", []))) for name, m in found.members.items()
        ]),
        ("timers", ("name", "due", "fired", "payload"), [
            (name, time.strftime("%F %T", time.localtime(t["due"])), t["fired"], t["payload"])
            for name, t in found.timers.items()
        ]),
        ("waiting events", _EVENT, [_texts(each, *_EVENT) for each in found.inbox]),
        ("last outputs", _OUTPUT, [_texts(each, *_OUTPUT) for each in found.outputs]),
        ("put aside", _DEAD, [_texts(each, *_DEAD) for each in found.dead]),
    ]  # fmt: skip
    for title, columns, lines in sections:
        if lines:
            click.echo()
            show_table(columns, lines, title=title)


def _texts(entry: dict[str, str], *names: str) -> tuple[object, ...]:
    return tuple(entry.get(name, "")[:160] for name in names)


_PROCESS = ("heartbeat", "rooms")


@click.command()
@operator_options
def workers(redis: str, as_json: bool) -> None:
    """List the workers: heartbeat, rooms, the kinds they serve, and how much they have to do."""

    async def look(link: Commands) -> tuple[list[ProcessRow], dict[str, Load]]:
        return await processes(link, keys.WORKERS), await loads(link)

    found, told = with_link(redis, look)
    if as_json:
        show_json([{**asdict(row), "load": _load(told.get(row.name))} for row in found])
    elif found:
        show_table(
            ("worker", *_PROCESS, "kinds", "cpu", "loop lag ms", "events/s", ""),
            [(*_process(row), *_doings(told.get(row.name)), _state(row, told.get(row.name))) for row in found],
        )
    else:
        click.echo("no workers")


@click.command()
@operator_options
def edges(redis: str, as_json: bool) -> None:
    """List the edges: the age of their last heartbeats, and how many rooms they have sockets in."""
    found = with_link(redis, lambda link: processes(link, keys.EDGES))
    if as_json:
        show_json(found)
    elif found:
        show_table(("edge", *_PROCESS, ""), [(*_process(row), _state(row, None)) for row in found])
    else:
        click.echo("no edges")


def _process(row: ProcessRow) -> tuple[object, ...]:
    return row.name, f"{row.silent_s:.2f} s ago", row.rooms


def _doings(load: Load | None) -> tuple[object, ...]:
    if load is None:
        return "?", "?", "?", "?"
    return " ".join(load.kinds), f"{load.cpu:.0%}", load.loop_lag_ms, load.events_s


def _state(row: ProcessRow, load: Load | None) -> str:
    if row.is_silent:
        return "SILENT"
    if load is not None and load.draining:
        return "ends"
    return f"full: {load.max_rooms} rooms" if load is not None and load.places <= 0 else ""


def _load(load: Load | None) -> dict[str, Any] | None:
    return None if load is None else msgspec.to_builtins(load)


@click.command()
@operator_options
@click.option("--once", is_flag=True, help="Print it once instead of every second until Ctrl-C.")
@click.option("--limit", type=click.IntRange(1), default=20, help="Rooms shown, those furthest behind first.")
def top(redis: str, as_json: bool, once: bool, limit: int) -> None:
    """Watch the whole: rooms, workers and edges, and the rooms that are furthest behind."""

    async def look(link: Commands) -> tuple[Totals, list[tuple[RoomRow, str]]]:
        found = await rows(link, await addresses(link))
        found.sort(key=lambda row: (-row.lag_s, -row.lag, -row.members, row.room))
        shown = found[:limit]
        return await totals(link), [*zip(shown, await reasons(link, shown, await house(link)), strict=True)]

    while True:
        try:
            whole, found = with_link(redis, look)
        except Interrupted:
            return
        if as_json:
            show_json({"totals": whole, "rooms": [row for row, _ in found]})
        else:
            if not once:
                click.clear()
            counters = ", ".join(f"{name} {count}" for name, count in sorted(whole.counters.items())) or "none"
            show_facts(
                {
                    "rooms": f"{whole.rooms} known, {whole.owned} owned, {whole.waiting} waiting for an owner",
                    "workers": f"{whole.workers}, {whole.deaths} died in the last minute",
                    "edges": whole.edges,
                    "kinds": " ".join(whole.kinds),
                    "went wrong": counters,
                }
            )
            show_table(_COLUMNS, [(*_cells(row), why) for row, why in found])
        if once:
            return
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            return


@click.command()
@operator_options
@click.option("--fix", is_flag=True, help="Mend what can be mended; without it nothing is changed.")
@click.option("--limit", type=click.IntRange(1), default=100, help="Findings shown; JSON has all.")
def doctor(redis: str, as_json: bool, fix: bool, limit: int) -> None:
    """Find what is wrong: rooms that are stuck and why, ghosts, stale indexes, settings of Redis.

    Exit code 1 if anything is, and was not mended: after --fix it looks again.
    """

    async def look(link: Commands) -> list[tuple[Finding, str]]:
        found = await examine(link)
        return await mended(link, found) if fix else [(finding, "") for finding in found]

    found = with_link(redis, look)
    if as_json:
        show_json(
            [
                {"where": each.where, "what": each.what, "can_be_mended": each.mend is not None, "done": done}
                for each, done in found
            ]
        )
    for each, done in [] if as_json else found[:limit]:
        after = done or ("" if fix or each.mend is None else "--fix mends it")
        click.echo(f"{safe(each.where)}: {safe(each.what)}" + (f" [{after}]" if after else ""))
    if len(found) > limit and not as_json:
        click.echo(f"and {len(found) - limit} more: --limit {len(found)} shows them")
    if not found:
        if not as_json:
            click.echo("nothing is wrong")
    elif not fix or any(not done or done.startswith(NOT_MENDED) for _, done in found):
        raise click.exceptions.Exit(1)
