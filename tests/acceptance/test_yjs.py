"""y-websocket, unmodified, against the Yjs example: clients converge, whatever dies, and the text outlives it all."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from harness.house import House, until
from harness.node import NODE

pytestmark = pytest.mark.long

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "yjs.py")


class Editor:
    """A Yjs client in a Node process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asking = asyncio.Lock()

    @classmethod
    async def open(cls, node: str, house: House, room: str, edge: int = 0) -> "Editor":
        """Start one and wait until it has synchronised."""
        server = f"ws://127.0.0.1:{house.edges[edge].facts['port']}/parties/yjs"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            node, "yjs_editor.js", server, room, cwd=NODE, stdin=pipe, stdout=pipe
        )
        editor = cls(process)
        await editor._line()
        return editor

    async def insert(self, text: str) -> None:
        """Insert at the end of its text."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"insert {text}\n".encode())
        await self._process.stdin.drain()

    async def show(self) -> dict[str, Any]:
        """Return its text and how many users it knows of."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"show\n")
        while (line := await self._line()) == "synced":
            continue
        shown: dict[str, Any] = json.loads(line)
        return shown

    async def _line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            return (await self._process.stdout.readline()).decode().strip()

    async def end(self) -> None:
        """End its process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(10):
            await self._process.wait()


async def converged(editors: list[Editor], fits: Callable[[str], bool]) -> str:
    """Wait until all editors show one text that fits; return it."""
    shown: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(20):
            while True:
                shown = [await editor.show() for editor in editors]
                if len({entry["text"] for entry in shown}) == 1 and fits(shown[0]["text"]):
                    return str(shown[0]["text"])
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not converged: {shown}") from None


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Two edges and two workers of the Yjs example, on a server that keeps its data."""
    async with House(tmp_path, edges=2, workers=2, target=EXAMPLE, persist=True) as running:
        yield running


async def test_two_editors_converge_through_a_killed_worker(house: House, node: str) -> None:
    """Concurrent inserts at two edges merge; a killed worker loses none; a newcomer gets the whole; cursors go."""
    ann, bob = await Editor.open(node, house, "doc", edge=0), await Editor.open(node, house, "doc", edge=1)
    words = [f"{who}{n} " for n in range(40) for who in ("ann", "bob")]
    for n, word in enumerate(words):
        await (ann if word.startswith("ann") else bob).insert(word)
        if n == len(words) // 2:
            owner = (await house.redis.hget("inn:{yjs/doc}:meta", "worker")).decode()
            next(w for w in house.workers if owner in w.log).signal(signal.SIGKILL)
    text = await converged([ann, bob], lambda shown: all(word.strip() in shown for word in words))
    assert sorted(text.split()) == sorted(word.strip() for word in words)  # each once
    carl = await Editor.open(node, house, "doc", edge=0)
    assert await converged([carl, ann], bool) == text
    assert (await carl.show())["users"] == 3
    await bob.end()
    await until(lambda: _users(carl, 2), "Bob's cursor is gone")
    await ann.end()
    await carl.end()


async def _users(editor: Editor, count: int) -> bool:
    return bool((await editor.show())["users"] == count)


async def test_a_text_outlives_a_restart_of_everything(house: House, node: str) -> None:
    """Workers, edges and the server end and start again: the document is there."""
    ann = await Editor.open(node, house, "doc")
    await ann.insert("kept")
    await converged([ann], lambda shown: shown == "kept")
    await until(lambda: house.redis.hlen("inn:{yjs/doc}:state"), "the text is stored")
    await ann.end()
    for role in (*house.workers, *house.edges):
        role.end()
    house.valkey.kill()
    house.valkey.start()
    house.workers.clear()
    house.edges.clear()
    await house.add_worker()
    await house.add_edge()
    bob = await Editor.open(node, house, "doc")
    assert await converged([bob], bool) == "kept"
    await bob.end()
