"""Handshakes that come at once are let through one by one, in order; who comes alone does not wait."""

import asyncio

import pytest

from innkeeper.memory import Thrift
from innkeeper_edge import gate as gates
from innkeeper_edge.gate import Gate


def _passes_at_once(gate: Gate) -> bool:
    turn = gate.turn()
    try:
        turn.send(None)
    except StopIteration as answer:
        return bool(answer.value)
    turn.close()
    return False


async def test_who_comes_alone_does_not_wait() -> None:
    """Whoever comes right behind waits until a moment has passed."""
    gate = Gate(Thrift())
    assert [_passes_at_once(gate) for _ in range(6)] == [True] + [False] * 5
    await asyncio.sleep(0.05)
    assert _passes_at_once(gate)


async def test_many_take_turns() -> None:
    """A hundred at once take a hundred turns, in the order in which they came."""
    gate, passed = Gate(Thrift()), list[int]()
    loop = asyncio.get_running_loop()

    async def one(number: int) -> None:
        assert await gate.turn()
        passed.append(number)

    began_s = loop.time()
    await asyncio.gather(*(one(number) for number in range(100)))
    assert passed == list(range(100))
    assert loop.time() - began_s >= 99 * 0.0015


async def test_who_gives_up_is_passed_over() -> None:
    """Its place goes to the next."""
    gate, passed = Gate(Thrift()), list[int]()

    async def one(number: int) -> None:
        await gate.turn()
        passed.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[2:12]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert passed == [*range(2), *range(12, 20)]


async def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, so that their clients come again later; those that wait have their turns."""
    monkeypatch.setattr(gates, "_MOST_WAITING", 10)
    gate = Gate(Thrift())
    answers = await asyncio.gather(*(gate.turn() for _ in range(20)))
    assert answers == [True] * 11 + [False] * 9
