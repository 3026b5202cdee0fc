"""Operators' commands beside the rooms: ``tail`` follows one, ``redis`` passes a command through."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable

import click

from innkeeper.address import Address
from innkeeper.errors import RedisReplied
from innkeeper.keys import RoomKeys, room_keys
from innkeeper.operator.running import ROOM, Interrupted, operator_options, with_link, with_two_links
from innkeeper.operator.tables import safe, show_json
from innkeeper.options import redis_option
from innkeeper.topology import Commands
from innkeeper.wire import parse_id

_POLL_S = 0.05
_BLOCK_MS = 1_000
_HIGHEST = 2**64 - 1
_AT_ONCE = 500

_Line = Callable[[str, str, str, bytes], None]


@click.command()
@operator_options
@click.argument("room", type=ROOM)
@click.option("--for", "for_s", type=click.FloatRange(min=0, min_open=True), help="Seconds; without it until Ctrl-C.")
def tail(redis: str, as_json: bool, room: Address, for_s: float | None) -> None:
    """Follow a room in both directions: < what comes in, > what it sends.

    An event that is handled within the moment between two reads is counted only.
    """
    at = room_keys(room)

    def line(way: str, event_id: str, what: str, data: bytes) -> None:
        text = data.decode(errors="replace")
        if as_json:
            show_json({"way": way, "id": event_id, "what": what, "data": text})
        else:
            click.echo(safe(f"{'<' if way == 'in' else '>'} {event_id} {what} {text}"))
        sys.stdout.flush()

    async def follow(link: Commands, blocking: Commands) -> None:
        try:
            async with asyncio.timeout(for_s):
                await asyncio.gather(_inbox(link, blocking, at, line), _outlog(link, at, line))
        except TimeoutError:
            return

    with contextlib.suppress(Interrupted):  # how one stops to follow
        with_two_links(redis, follow)


async def _inbox(link: Commands, blocking: Commands, at: RoomKeys, line: _Line) -> None:
    """Tell of events. Whoever blocks on a stream is answered before its owner can read, handle and delete the event."""
    known = int(await link.call("HGET", at.sessions, "#") or 0)
    while True:
        # The id's second half is a time: nothing stands at the highest one, so this is all from known + 1 on.
        after = f"{known}-{_HIGHEST}"
        reply = await blocking.call("XREAD", "COUNT", _AT_ONCE, "BLOCK", _BLOCK_MS, "STREAMS", at.inbox, after)
        accepted = await link.call("HGET", at.sessions, "#")
        waiting = reply[0][1] if reply else []
        here = {parse_id(entry)[0]: (entry.decode(), fields) for entry, fields in waiting}
        newest = max(here) if here else int(accepted or 0)
        handled = [iseq for iseq in range(known + 1, newest + 1) if iseq not in here]
        if handled:
            line("in", f"{handled[0]}…{handled[-1]}", f"{len(handled)} event(s), handled before they were seen", b"")
        for _, (entry_id, fields) in sorted(here.items()):
            found = dict(zip(fields[::2], fields[1::2], strict=True))
            line("in", entry_id, f"{found[b't'].decode()} {found[b'c'].decode()}", found.get(b"d", b""))
        known = max(known, newest)


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
@click.option("--json", "as_json", is_flag=True, help="The reply as JSON, bytes as text.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
def redis_command(redis: str, as_json: bool, words: tuple[str, ...]) -> None:
    """Pass a command through, for machines without redis-cli: innkeeper redis HGETALL 'inn:{chat/lobby}:meta'."""

    async def do(link: Commands) -> object:
        return (await link.send([tuple(word if word.isascii() else os.fsencode(word) for word in words)]))[0]

    reply = with_link(redis, do)
    if as_json:
        show_json(_plain(reply))
    else:
        _print(reply)
    if isinstance(reply, RedisReplied):
        raise click.exceptions.Exit(1)


def _plain(reply: object) -> object:
    if isinstance(reply, list):
        return [_plain(part) for part in reply]
    if isinstance(reply, RedisReplied):
        return {"error": str(reply)}
    return reply.decode(errors="backslashreplace") if isinstance(reply, bytes) else reply


def _print(reply: object, indent: str = "") -> None:
    if isinstance(reply, list):
        for n, part in enumerate(reply, 1):
            if isinstance(part, list):
                click.echo(f"{indent}{n})")
                _print(part, f"{indent}  ")
            else:
                _print(part, f"{indent}{n}) ")
    elif isinstance(reply, bytes) and not indent and b"\r\n" in reply:  # INFO and its like: lines for people
        for text in reply.decode(errors="backslashreplace").splitlines():
            click.echo(safe(text))
    elif isinstance(reply, bytes):
        click.echo(indent + safe(reply.decode(errors="backslashreplace")))
    elif isinstance(reply, RedisReplied):
        click.echo(f"{indent}(error) {safe(reply)}")
    else:
        click.echo(f"{indent}{'(nil)' if reply is None else safe(reply)}")
