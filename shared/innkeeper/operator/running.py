"""How an operator's command runs: its options, its connection, and its errors in words."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click

from innkeeper.address import Address, InvalidAddress, parse_address
from innkeeper.boot import check_redis
from innkeeper.errors import InnkeeperError, RedisReplied, RedisUnavailable
from innkeeper.lease import DEFAULT_TIMES
from innkeeper.options import redis_option, without_password
from innkeeper.outside import Innkeeper
from innkeeper.topology import Commands, open_link

Answer = TypeVar("Answer")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_LINK_S = 5.0


class OperatorFailed(InnkeeperError):
    """A command could not do what it was asked for; the text says why."""


class Interrupted(click.exceptions.Exit):
    """Ctrl-C came before the answer: nobody knows what became of it, and nothing is claimed."""

    def __init__(self) -> None:
        super().__init__(130)


class RoomAddress(click.ParamType[Address]):
    """A room, ``kind/name``."""

    name = "room"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Return the address, or fail in the address's own words."""
        if isinstance(value, Address):
            return value
        try:
            return parse_address(value)
        except InvalidAddress as error:
            self.fail(str(error), param, ctx)


ROOM = RoomAddress()


def operator_options(command: Decorated) -> Decorated:
    """Add what all of them take: ``--redis`` and ``--json``."""
    command = click.option("--json", "as_json", is_flag=True, help="JSON instead of tables.")(command)
    return redis_option()(command)


def with_link(redis_url: str, work: Callable[[Commands], Awaitable[Answer]]) -> Answer:
    """Run some work over a link of its own.

    Raises:
        RedisUnusable: Nobody answers there.
        OperatorFailed: Redis refused a command, such as one that its user may not use.
    """
    return _with_links(redis_url, ("operator",), lambda links: work(links[0]))


def with_two_links(redis_url: str, work: Callable[[Commands, Commands], Awaitable[Answer]]) -> Answer:
    """Run some work that also blocks, for less than five seconds, on the second link; errors as above."""
    return _with_links(redis_url, ("operator", "operator, blocking"), lambda links: work(links[0], links[1]))


def _with_links(
    redis_url: str, names: Sequence[str], work: Callable[[Sequence[Commands]], Awaitable[Answer]]
) -> Answer:
    async def run() -> Answer:
        timeout_s = DEFAULT_TIMES.redis_timeout_ms / 1000
        where = await check_redis(redis_url, timeout_s=timeout_s, shown=without_password(redis_url), quiet=True)
        links = [open_link(where, timeout_s=_LINK_S, name=name) for name in names]
        try:
            return await work(links)
        finally:
            for link in links:
                await link.close()

    answer: Answer = _in_words(run())
    return answer


def with_innkeeper(redis_url: str, work: Callable[[Innkeeper], Awaitable[Answer]]) -> Answer:
    """Run some work as a program beside the rooms; errors as of :func:`with_link`."""

    async def run() -> Answer:
        async with Innkeeper.connect(redis_url) as inn:
            return await work(inn)

    answer: Answer = _in_words(run())
    return answer


def _in_words(running: Any) -> Any:
    try:
        return asyncio.run(running)
    except RedisReplied as error:
        raise OperatorFailed(f"Redis refused: {error}") from None
    except (RedisUnavailable, TimeoutError) as error:
        raise OperatorFailed(str(error) or "no answer in time") from None
    except KeyboardInterrupt:
        raise Interrupted from None
