"""Members for tests, one in Python and one in JavaScript behind the same few words."""

import asyncio
import json
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from harness.house import until
from harness.node import node_program
from harness.node_client import FOLDER, node_with_websocket
from innkeeper.client import Backoff, Closed, Down, Message, Moved, Opened, Problem, Resync, Room, Sent, connect
from innkeeper.errors import MessageFailed, MessageLost

_TYPES = {
    Opened: "open",
    Message: "message",
    Resync: "resync",
    Moved: "moved",
    Down: "down",
    Problem: "error",
    Closed: "close",
}


class Bot:
    """What both have in common: what they saw.

    Attributes:
        name: Its name in the room.
        got: The values of all messages, in order.
        seen: The types of all other events, in order, and their fields.
        accepted: Ids of its own messages that were, in that order.
        applied: The same.
        lost: Ids of those that got no answer, and whether they were applied.
        failed: Ids of those whose applied promise broke.
        said: How many it has sent.
    """

    def __init__(self, url: str, name: str, codec: Any = "json") -> None:
        self.url, self.name, self.codec = url, name, codec
        self.got: list[Any] = []
        self.seen: list[tuple[str, Any]] = []
        self.accepted: list[int] = []
        self.applied: list[int] = []
        self.lost: dict[int, str] = {}
        self.failed: list[int] = []
        self.said = 0

    def send(self, value: Any) -> int:
        """Send a value; return the id under which its fate is kept."""
        number, self.said = self.said, self.said + 1
        self._act("send", number, value)
        return number

    def say(self) -> int:
        """Send the next numbered message."""
        return self.send({"i": self.said})

    def reconnect(self) -> None:
        """Give the socket up and come back."""
        self._act("reconnect", 0, None)

    def close(self) -> None:
        """Leave."""
        self._act("close", 0, None)

    def _act(self, act: str, number: int, value: Any) -> None:
        raise NotImplementedError

    def count(self, kind: str) -> int:
        """Return how many events of a type it saw."""
        return sum(seen == kind for seen, _ in self.seen)

    async def sees(self, kind: str, count: int = 1, *, timeout_s: float = 30) -> None:
        """Wait until it has seen that many events of a type."""
        what = f"{self.name} sees {count} {kind}"
        await until(lambda: self.count(kind) >= count, what, timeout_s=timeout_s, seen=self.seen)

    @property
    def story(self) -> list[tuple[int, str, int]]:
        """A diary's numbered entries as this bot got them: (n, from, i)."""
        return [
            (value["n"], value["from"], value["i"]) for value in self.got if isinstance(value, dict) and "n" in value
        ]

    async def gets(self, check: Callable[[list[tuple[int, str, int]]], bool], what: str) -> None:
        """Wait until the entries it got pass a check."""
        await until(
            lambda: check(self.story),
            f"{self.name} gets {what}",
            timeout_s=30,
            seen=(self.count("resync"), len(self.story), self.got[-3:], self.seen[-6:]),
        )

    async def is_told(self, ids: list[int]) -> None:
        """Wait until every message with one of these ids was accepted and applied."""
        await until(
            lambda: set(ids) <= set(self.applied) and set(ids) <= set(self.accepted),
            f"{self.name}'s {len(ids)} messages are applied",
            timeout_s=30,
            seen=(self.accepted[-3:], self.applied[-3:], self.seen[-6:], self.lost),
        )


class PythonBot(Bot):
    """The Python client. Use it as an async context manager."""

    room: Room

    async def __aenter__(self) -> Self:
        self.room = connect(self.url, name=self.name, codec=self.codec, backoff=Backoff(first_s=0.05, most_s=0.5))
        await self.room.__aenter__()
        self._tasks = [asyncio.create_task(self._listen())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.room.close()
        await asyncio.gather(*self._tasks)

    async def _listen(self) -> None:
        async for event in self.room.events():
            if isinstance(event, Message):
                self.got.append(event.value)
            else:
                self.seen.append((_TYPES[type(event)], event))

    def _act(self, act: str, number: int, value: Any) -> None:
        if act == "send":
            sent = self.room.send(value)
            self._tasks += [
                asyncio.create_task(self._accepted(sent, number)), asyncio.create_task(self._applied(sent, number)),
            ]  # fmt: skip
        elif act == "close":
            self._tasks.append(asyncio.create_task(self.room.close()))
        else:
            self.room.reconnect()

    async def _accepted(self, sent: Sent, number: int) -> None:
        try:
            await sent
            self.accepted.append(number)
        except MessageLost as error:
            self.lost[number] = error.applied

    async def _applied(self, sent: Sent, number: int) -> None:
        try:
            await sent.applied
            self.applied.append(number)
        except (MessageFailed, MessageLost):
            self.failed.append(number)


class NodeBot(Bot):
    """The JavaScript client in a Node of its own, on Node's own WebSocket. Use it as an async context manager."""

    library = ""

    def _node(self) -> list[str]:
        return node_with_websocket()

    async def __aenter__(self) -> Self:
        script = str(FOLDER / "client_bot.js")
        self.process = await asyncio.create_subprocess_exec(
            *self._node(), script, f"{self.url}?name={self.name}", self.codec, self.library,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20,
        )  # fmt: skip
        self._task = asyncio.create_task(self._listen())
        await self.sees("open")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await self._task

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            event = json.loads(line)
            match event["type"]:
                case "message":
                    value = event["data"]
                    is_bytes = isinstance(value, dict) and "hex" in value
                    self.got.append(bytes.fromhex(value["hex"]) if is_bytes else value)
                case "accepted":
                    self.accepted.append(event["id"])
                case "applied":
                    self.applied.append(event["id"])
                case "lost":
                    self.lost[event["id"]] = event["applied"]
                case "failed":
                    self.failed.append(event["id"])
                case kind:
                    self.seen.append((kind, event))

    def _act(self, act: str, number: int, value: Any) -> None:
        assert self.process.stdin is not None
        if isinstance(value, bytes):
            value = {"hex": value.hex()}
        self.process.stdin.write(json.dumps({"act": act, "id": number, "value": value}).encode() + b"\n")


class WsBot(NodeBot):
    """The same on the package ``ws``, for Nodes without a WebSocket."""

    library = "ws"

    def _node(self) -> list[str]:
        return [node_program()]


_BOTS: dict[str, type[PythonBot | NodeBot]] = {"python": PythonBot, "js": NodeBot, "ws": WsBot}


def bot(language: str, url: str, name: str, codec: str = "json") -> PythonBot | NodeBot:
    """Return a bot: ``python``, ``js``, or ``ws`` for JavaScript on that package."""
    return _BOTS[language](url, name, codec)
