"""A room that keeps a chronicle of all it applied and shows every step, for the history checker; and how to read it."""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from harness.history import Output, Step, Stored, next_digest
from innkeeper import Connection, Room

_PIECE = 32


class Chronicle(Room):
    """Stores and shows each join, message and leave with its place and digest. Members' names must be unique.

    A message is ``{"i": number}``; with ``"wait": seconds`` the handler waits before it notes it. What is shown also
    names the process that ran the step (``w``), so that a client sees when a room changed its owner; that is no part
    of the history.
    """

    state_bytes = 16_777_216

    def on_connect(self, conn: Connection) -> None:
        """Note a join."""
        conn.state = 0
        self._note(Step("join", conn.user.name))

    async def on_message(self, conn: Connection, message: Any) -> None:
        """Note a message, also in the row of its sender."""
        if wait_s := message.get("wait"):
            await asyncio.sleep(wait_s)
        conn.state = message["i"]
        self._note(Step("say", conn.user.name, message["i"]))

    def on_leave(self, conn: Connection) -> None:
        """Note a leave."""
        self._note(Step("leave", conn.user.name))

    def _note(self, step: Step) -> None:
        state = self.state
        place = state["n"] = state.get("n", 0) + 1
        digest = state["h"] = next_digest(state.get("h", ""), step)
        # In pieces, because a key that an event touched is written whole.
        state.setdefault(f"log:{(place - 1) // _PIECE}", []).append(f"{step.kind} {step.sender} {step.number}")
        self.broadcast({"n": place, "k": step.kind, "s": step.sender, "i": step.number, "h": digest, "w": os.getpid()})


def read_output(payload: bytes | str) -> Output:
    """Return what a frame shows."""
    shown = json.loads(payload)
    return Output(shown["n"], Step(shown["k"], shown["s"], shown["i"]), shown["h"])


def read_stored(
    state: Mapping[bytes, bytes],
    members: Mapping[bytes, bytes],
    counts: Sequence[bytes | None],
    dead: Sequence[Mapping[bytes, bytes]],
    outlog: Sequence[Mapping[bytes, bytes]],
) -> Stored:
    """Return what Redis holds of a Chronicle room.

    Args:
        state: The hash ``state``.
        members: The hash ``members``.
        counts: ``HMGET sessions # @``.
        dead: The fields of the entries of ``dead``.
        outlog: The fields of the entries of ``outlog``, oldest first.
    """
    pieces = sorted((int(key[4:]), json.loads(data)) for key, data in state.items() if key.startswith(b"log:"))
    words = [text.split(" ") for _, piece in pieces for text in piece]
    rows = [json.loads(row) for row in members.values()]
    return Stored(
        steps=[Step(kind, sender, int(number)) for kind, sender, number in words],
        count=json.loads(state.get(b"n", b"0")),
        digest=json.loads(state.get(b"h", b'""')),
        members=[(row["user"][1], row["state"]) for row in rows],
        backlog=int(counts[0] or 0) - int(counts[1] or 0),
        dead=[b" ".join(entry.get(name, b"") for name in (b"type", b"id", b"error")).decode() for entry in dead],
        outlog=[read_output(entry[b"d"]) for entry in outlog if entry[b"h"].startswith(b"text *")],
    )
