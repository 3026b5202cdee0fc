"""Operators' commands beside the rooms: ``tail`` follows one, ``redis`` passes a command through."""

import asyncio
import sys
from collections.abc import Callable

import click

from innkeeper.address import Address
from innkeeper.errors import RedisReplied
from innkeeper.keys import RoomKeys, room_keys
from innkeeper.operator.running import ROOM, operator_options, with_link
from innkeeper.operator.tables import safe, show_json
from innkeeper.options import redis_option
from innkeeper.topology import Commands
from innkeeper.wire import parse_id

_POLL_S = 0.05
_AT_ONCE = 500

_Line = Callable[[str, str, str, bytes], None]


@click.command()
@operator_options
@click.argument("room", type=ROOM)
@click.option("--for", "for_s", type=click.FloatRange(min=0, min_open=True), help="Seconds; without it until Ctrl-C.")
def tail(redis: str, as_json: bool, room: Address, for_s: float | None) -> None:
    """Follow a room in both directions: < what comes in, > what it sends, whole.

    Events that the room handles at once are counted; those that wait are shown.
    """
    at = room_keys(room)

    def line(way: str, event_id: str, what: str, data: bytes) -> None:
        text = data.decode(errors="replace")
        if as_json:
            show_json({"way": way, "id": event_id, "what": what, "data": text})
        else:
            click.echo(safe(f"{'<' if way == 'in' else '>'} {event_id} {what} {text}"))
        sys.stdout.flush()

    async def follow(link: Commands) -> None:
        try:
            async with asyncio.timeout(for_s):
                await asyncio.gather(_inbox(link, at, line), _outlog(link, at, line))
        except TimeoutError:
            return

    with_link(redis, follow)


async def _inbox(link: Commands, at: RoomKeys, line: _Line) -> None:
    """Tell of events; polled, because a subscriber of the bell would pass for an owner."""
    known = int(await link.call("HGET", at.sessions, "#") or 0)
    while True:
        accepted, waiting = await link.send(
            (("HGET", at.sessions, "#"), ("XRANGE", at.inbox, f"{known + 1}-0", "+", "COUNT", _AT_ONCE))
        )
        here = {parse_id(entry)[0]: (entry.decode(), fields) for entry, fields in waiting}
        newest = max([int(accepted or 0), *here])
        handled = [iseq for iseq in range(known + 1, newest + 1) if iseq not in here]
        if handled:
            line("in", f"{handled[0]}…{handled[-1]}", f"{len(handled)} event(s), handled before they were seen", b"")
        for _, (entry_id, fields) in sorted(here.items()):
            found = dict(zip(fields[::2], fields[1::2], strict=True))
            line("in", entry_id, f"{found[b't'].decode()} {found[b'c'].decode()}", found.get(b"d", b""))
        known = max(known, newest)
        await asyncio.sleep(_POLL_S)


async def _outlog(link: Commands, at: RoomKeys, line: _Line) -> None:
    newest = await link.call("XREVRANGE", at.outlog, "+", "-", "COUNT", 1)
    last = newest[0][0].decode() if newest else "0-0"
    while True:
        for entry, fields in await link.call("XRANGE", at.outlog, f"({last}", "+", "COUNT", _AT_ONCE):
            found = dict(zip(fields[::2], fields[1::2], strict=True))
            last = entry.decode()
            line("out", last, found[b"h"].decode(), found.get(b"d", b""))
        await asyncio.sleep(_POLL_S)


@click.command("redis", context_settings={"ignore_unknown_options": True})
@redis_option()
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def redis_command(redis: str, words: tuple[str, ...]) -> None:
    """Pass a command through, for machines without redis-cli: innkeeper redis HGETALL 'inn:{chat/lobby}:meta'."""

    async def do(link: Commands) -> object:
        return (await link.send([words]))[0]

    reply = with_link(redis, do)
    _print(reply)
    if isinstance(reply, RedisReplied):
        raise click.exceptions.Exit(1)


def _print(reply: object, indent: str = "") -> None:
    if isinstance(reply, list):
        for n, part in enumerate(reply, 1):
            if isinstance(part, list):
                click.echo(f"{indent}{n})")
                _print(part, f"{indent}  ")
            else:
                _print(part, f"{indent}{n}) ")
    elif isinstance(reply, bytes):
        click.echo(indent + safe(reply.decode(errors="backslashreplace")))
    elif isinstance(reply, RedisReplied):
        click.echo(f"{indent}(error) {safe(reply)}")
    else:
        click.echo(f"{indent}{'(nil)' if reply is None else safe(reply)}")
