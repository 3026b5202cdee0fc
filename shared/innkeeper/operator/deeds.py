"""Operators' commands that do something: ``send``, ``kick``, ``wake``, ``evict``, ``move-owner``, ``dead``."""

import asyncio
import re
from typing import Any

import click
import orjson

from innkeeper.address import Address
from innkeeper.close_codes import KICKED
from innkeeper.keys import room_keys
from innkeeper.operator import acts
from innkeeper.operator.buried import put_aside
from innkeeper.operator.detail import dead_row
from innkeeper.operator.running import ROOM, OperatorFailed, operator_options, with_innkeeper, with_link
from innkeeper.operator.tables import safe, show_facts, show_json, show_table
from innkeeper.outside import Innkeeper
from innkeeper.topology import Commands
from innkeeper.waking import wake as wake_rooms

_WAIT_S = 10.0
_FORCE = click.option("--force", is_flag=True, help="Also where no worker has ever served the room's kind.")


class _Entry(click.ParamType[str]):
    """An entry of a dead stream."""

    name = "entry"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"[0-9]{1,19}(-[0-9]{1,19})?", value):
            self.fail(
                f"{value!r} is no entry, such as 1718000000000-0: innkeeper dead list ROOM shows them", param, ctx
            )
        return str(value)


_ENTRY = _Entry()


def _tell(as_json: bool, text: str, **facts: Any) -> None:
    if as_json:
        show_json(facts)
    else:
        click.echo(safe(text))


@click.command()
@operator_options
@click.argument("room", type=ROOM)
@click.argument("message")
@_FORCE
def send(redis: str, as_json: bool, room: Address, message: str, force: bool) -> None:
    """Post MESSAGE to a room: its on_post gets it, from nobody. JSON where it is JSON, else text."""
    try:
        value = orjson.loads(message)
    except orjson.JSONDecodeError:
        value = message

    async def do(inn: Innkeeper) -> None:
        if not force:
            await acts.check_kind(inn.link, room)
        await inn.room(str(room)).post(value)

    with_innkeeper(redis, do)
    _tell(as_json, f"accepted by {room}", room=str(room), accepted=True)


@click.command()
@operator_options
@click.argument("room", type=ROOM)
@click.argument("connection")
@click.option("--code", type=click.IntRange(1000, 4999), default=KICKED.code, help="Close code: 1000, 3000-4999.")
@click.option("--reason", default="", help="At most 120 bytes; 'kicked' without it.")
def kick(  # noqa: PLR0917 - click passes them by name
    redis: str, as_json: bool, room: Address, connection: str, code: int, reason: str
) -> None:
    """Close a member's socket, in the room's own order; its on_leave follows."""
    if 1000 < code < 3000 or len(reason.encode()) > 120:  # noqa: PLR2004 - as of Connection.close
        raise click.UsageError("the code is 1000 or 3000-4999, the reason at most 120 bytes")

    async def do(inn: Innkeeper) -> bool:
        return await acts.kick(inn, room, connection, code=code, reason=reason, timeout_s=_WAIT_S)

    if not with_innkeeper(redis, do):
        raise OperatorFailed(f"{room} has no member {connection}: innkeeper room {room} lists them")
    _tell(as_json, f"{connection} is closed with {code}", connection=connection, code=code)


@click.command()
@operator_options
@click.argument("room", type=ROOM)
@_FORCE
def wake(redis: str, as_json: bool, room: Address, force: bool) -> None:
    """Have a room owned now: put it into its kind's wake queue. One that never was is made."""

    async def do(link: Commands) -> None:
        if not force:
            await acts.check_kind(link, room)
        await wake_rooms(link, [room])

    with_link(redis, do)
    _tell(as_json, f"{room} is woken", room=str(room))


def _hand_over(redis: str, as_json: bool, room: Address, target: str) -> None:
    async def do(link: Commands) -> tuple[str, str]:
        before = await acts.owner_of(link, room)
        if target:
            if before.split(":")[0] == target:
                return target, target
            await acts.check_target(link, room, target)
        try:
            now = await acts.hand_over(link, room, target=target, timeout_s=_WAIT_S)
        except TimeoutError as error:
            why = str(error) or f"not within {_WAIT_S:g} s"
            raise OperatorFailed(
                f"{before.split(':')[0]} has not given {room} back ({why}): a hook of it may not have returned, see "
                f"`innkeeper room {room}`. One that waits is cut at handler_s; one that blocks ends with its worker. "
                "The order stands: the room goes when the hook is over"
            ) from None
        for _ in range(100):
            if now or not before:
                break
            await asyncio.sleep(0.02)
            now = await acts.owner_of(link, room)
        return before.split(":")[0], now.split(":")[0]

    before, now = with_link(redis, do)
    if not before:
        raise OperatorFailed(f"{room} has no owner: it sleeps. innkeeper wake {room} gives it one")
    if target and now != target:
        raise OperatorFailed(f"{room} went from {before} to {now or 'nobody'}, not to {target}")
    if target and before == target:
        _tell(as_json, f"{room} is {target}'s already", room=str(room), before=before, now=now)
        return
    text = f"{room} is {now}'s now, it was {before}'s" if now else f"{before} has given {room} back; it sleeps"
    _tell(as_json, text, room=str(room), before=before, now=now)


@click.command()
@operator_options
@click.argument("room", type=ROOM)
def evict(redis: str, as_json: bool, room: Address) -> None:
    """Have the owner give a room back, and start it anew from its state: sockets and state stay."""
    _hand_over(redis, as_json, room, "")


def _check_worker(context: click.Context, argument: click.Parameter, worker: str) -> str:
    del context, argument
    if not worker.startswith("w-"):
        raise click.BadParameter(f"{worker!r} is no worker's incarnation, such as w-456d0131fe")
    return worker


@click.command("move-owner")
@operator_options
@click.argument("room", type=ROOM)
@click.argument("worker", callback=_check_worker)
def move_owner(redis: str, as_json: bool, room: Address, worker: str) -> None:
    """Move a room to WORKER (its incarnation, w-…): sockets and state stay."""
    _hand_over(redis, as_json, room, worker)


@click.group()
def dead() -> None:
    """Look after events that were put aside."""


@dead.command("list")
@operator_options
@click.argument("room", type=ROOM, required=False)
@click.option("--limit", type=click.IntRange(1), default=50)
def dead_list(redis: str, as_json: bool, room: Address | None, limit: int) -> None:
    """List the events of ROOM that were put aside, the newest first; without ROOM the rooms that have any."""
    if room is None:
        _list_rooms(redis, as_json)
        return
    at = room_keys(room)
    found = with_link(redis, lambda link: link.call("XREVRANGE", at.dead, "+", "-", "COUNT", limit))
    lines = [dead_row(entry, fields) for entry, fields in found]
    if as_json:
        show_json(lines)
    elif lines:
        columns = ("entry", "type", "connection", "error", "data")
        show_table(columns, [tuple(line.get(name, "")[:120] for name in columns) for line in lines])
    else:
        click.echo(f"{room} has put nothing aside")


def _list_rooms(redis: str, as_json: bool) -> None:
    counts = {room: count for room, count in with_link(redis, put_aside).items() if count}
    if as_json:
        show_json([{"room": room, "events": count} for room, count in counts.items()])
    elif counts:
        show_table(("room", "events"), [*counts.items()])
    else:
        click.echo("no room has put anything aside")


@dead.command("show")
@operator_options
@click.argument("room", type=ROOM)
@click.argument("entry", type=_ENTRY)
def dead_show(redis: str, as_json: bool, room: Address, entry: str) -> None:
    """Show one of them whole, with its traceback."""
    found = with_link(redis, lambda link: link.call("XRANGE", room_keys(room).dead, entry, entry))
    if not found:
        raise OperatorFailed(f"{room} has no dead event {entry}")
    line = dead_row(*found[0])
    if as_json:
        show_json(line)
        return
    trace = line.pop("traceback", "")
    show_facts(line)
    for text in trace.splitlines():
        click.echo(f"  {safe(text)}")


@dead.command("retry")
@operator_options
@click.argument("room", type=ROOM)
@click.argument("entry", type=_ENTRY)
def dead_retry(redis: str, as_json: bool, room: Address, entry: str) -> None:
    """Give one of them another try, as a new event at the end of the room's inbox: exactly once, whatever fails."""
    done = with_link(redis, lambda link: acts.retry_dead(link, room, entry))
    if not done.iseq:
        why = (
            "is not there (any more)" if done.why_not == "gone" else f"is of type {done.why_not}, which is not retried"
        )
        raise OperatorFailed(f"{room}: dead event {entry} {why}")
    _tell(as_json, f"{room}: tried again as event {done.iseq}", room=str(room), iseq=done.iseq)


@dead.command("drop")
@operator_options
@click.argument("room", type=ROOM)
@click.argument("entries", nargs=-1, required=True, type=_ENTRY)
def dead_drop(redis: str, as_json: bool, room: Address, entries: tuple[str, ...]) -> None:
    """Delete them for good."""
    count = with_link(redis, lambda link: acts.drop_dead(link, room, list(entries)))
    _tell(as_json, f"{room}: {count} deleted", room=str(room), deleted=count)
    if count < len(entries):
        raise OperatorFailed(f"{len(entries) - count} of them were not there")
