"""WebSocket conformance of a real edge with a real room: several hundred cases in the manner of the Autobahn suite."""

import asyncio
from pathlib import Path

from harness.conformance import Case, cases
from harness.house import House
from harness.rawsocket import CLOSE, PONG, Frame, RawSocket, close_frame, connect, request_head

AT_ONCE = 24


async def _run(port: int, number: int, case: Case) -> str:
    """Run one case in a room of its own; return what is wrong, empty: nothing."""
    async with connect(port) as socket:
        await socket.send(request_head(f"/parties/rawecho/case{number}"))
        if (await socket.answer()).status != 101:
            return "no 101"
        for piece in case.pieces:
            await socket.send(piece)
            if len(case.pieces) > 1:
                await asyncio.sleep(0)
        return await _judge(socket, case)


async def _judge(socket: RawSocket, case: Case) -> str:
    echoes: list[Frame] = []
    pongs: list[bytes] = []
    asked = False
    while True:
        if case.code is None and not asked and len(echoes) >= len(case.echoes) and len(pongs) >= len(case.pongs):
            asked = True
            await socket.send(close_frame(1000))
        got = await socket.frame()
        if got.opcode == CLOSE:
            break
        if got.opcode == PONG:
            pongs.append(got.payload)
        else:
            echoes.append(got)
    expected = 1000 if case.code is None else case.code
    if got.close_code != expected:
        return f"closed with {got.close_code}, not {expected}"
    if case.code is None and (echoes, pongs) != (list(case.echoes), list(case.pongs)):
        return f"got {str((echoes, pongs))[:200]}"
    return ""


async def test_every_case_is_as_the_rfc_says(tmp_path: Path) -> None:
    """At least 500 cases, none with another answer, and not one exception in the logs."""
    table = cases()
    assert len(table) >= 500
    wrong: dict[str, str] = {}
    async with House(tmp_path, edges=1, workers=1) as house:
        port = house.edges[0].facts["port"]
        turns = asyncio.Semaphore(AT_ONCE)

        async def take(number: int, case: Case) -> None:
            async with turns:
                try:
                    problem = await _run(port, number, case)
                except (OSError, EOFError, TimeoutError, AssertionError) as error:
                    problem = repr(error)
                if problem:
                    wrong[case.name] = problem

        await asyncio.gather(*(take(number, case) for number, case in enumerate(table)))
        logs = house.edges[0].log + house.workers[0].log
    print(f"{len(table)} cases of conformance, {len(wrong)} wrong")
    assert not wrong, dict(list(wrong.items())[:20])
    assert "Traceback" not in logs
