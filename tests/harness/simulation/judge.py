"""Whether the promises held: what was accepted, applied, stored and seen must be one history.

The history checker decides from what clients saw and what Redis holds. A simulation knows more, and so it asks more:
every accepted event was applied as a replay does it, every socket got exactly the outputs that were committed for it,
and nothing is left over when all have gone.
"""

import math
from collections.abc import Iterator
from typing import Any

import orjson

from harness.chronicle import read_output, read_stored
from harness.history import Kind, Socket, check
from harness.simulation.cast import ROOMS, Cast
from harness.simulation.record import Record, RoomRecord
from harness.simulation.replay import Replay
from harness.simulation.server import SimulatedRedis
from harness.simulation.sockets import Client
from innkeeper.address import Address, parse_address
from innkeeper.close_codes import UNAVAILABLE
from innkeeper.keys import (
    COUNTERS,
    DEATHS,
    EDGES,
    KINDS,
    LOAD,
    WORKERS,
    dead_index,
    room_index,
    room_keys,
    timer_index,
    wake_queue,
)
from innkeeper.load import FRESH_MS, read_loads

_SHOWN_WITHIN_S = 3.0  # two looks of the edge's sweep, and some
_REFUSED_AGAIN_S = 1.0  # an edge tries a full room again within half a second
_INDEXES = (wake_queue(""), room_index(""), timer_index(""), dead_index(""))
_NO_LEAVE = {"leave-raises", "leave-hangs"}


class Judge:
    """Compares the record, the clients and the keys of a run that has come to rest."""

    def __init__(self, cast: Cast, record: Record, redis: SimulatedRedis) -> None:
        self.cast = cast
        self.record = record
        self.redis = redis
        self.calm_since_s = math.inf  # since when no fault stands in the way

    def _hash(self, key: str) -> dict[bytes, bytes]:
        flat = self.redis.ask("HGETALL", key)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _by_member(self) -> dict[str, Client]:
        return {client.member_id: client for client in self.cast.clients if client.member_id}

    # --- rest -----------------------------------------------------------------------------------------------------
    def unrest(self) -> Iterator[str]:
        """Say what is still to happen before all is quiet."""
        for kind in ROOMS:
            if self.redis.ask("ZCARD", wake_queue(kind)):
                yield f"rooms of {kind} are to be woken"
        yield from self._processes()
        yield from self.backlogs()
        clients = self._by_member()
        for room in self.record.rooms:
            members = self.redis.ask("HKEYS", room_keys(parse_address(room)).members)
            members = [clients[member.decode()] for member in members]
            if timers := self.redis.ask("HKEYS", room_keys(parse_address(room)).timers):
                yield f"{room} has timers: {timers}"
            if ghosts := [client.name for client in members if client.close_code is not None]:
                yield f"{room} has members that are gone: {ghosts}"
        for client in self.cast.clients:
            if client.close_code is None and (why := self._awaits(client)):
                yield f"{client.name} {why}"

    def _processes(self) -> Iterator[str]:
        edges = {role.incarnation for role in self.cast.edges if role.is_up}
        workers = {role.incarnation for role in self.cast.workers if role.is_up}
        for key, here in ((EDGES, edges), (WORKERS, workers)):
            registered = {name.decode() for name in self.redis.ask("ZRANGE", key, 0, -1)}
            if registered != here:
                yield f"{key} names {sorted(registered)}, there are {sorted(here)}"
        for role in self.cast.edges:
            if role.is_up and role.edge is not None and role.edge.ingress._inlets:
                yield f"{role.name} has events to push"

    def backlogs(self) -> Iterator[str]:
        """Say which rooms have events that nobody has applied yet."""
        for room in self.record.rooms:
            counts = self.redis.ask("HMGET", room_keys(parse_address(room)).sessions, "#", "@")
            if counts[0] is not None and counts[0] != counts[1]:
                yield f"{room} has events waiting: {counts}"

    def _awaits(self, client: Client) -> str:
        if client.is_leaving:
            return "waits for its close"
        if not client.frames:
            return "waits for its join"
        record = self.record.rooms[str(client.room)]
        accepted = sum(e.kind == "text" and e.connection == client.member_id for e in record.events)
        if accepted < len(client.sent):
            return f"has {len(client.sent) - accepted} messages not accepted"
        expected = len(expected_frames(record, client.member_id))
        return f"has {len(client.frames)} of {expected} frames" if len(client.frames) < expected else ""

    # --- the verdict ----------------------------------------------------------------------------------------------
    def violations(self) -> Iterator[str]:
        """Say what did not hold."""
        yield from self.record.violations
        clients = self._by_member()
        for room, record in list(self.record.rooms.items()):
            for what in self._room(parse_address(room), record, clients):
                yield f"{room}: {what}"
        for role in self.cast.edges:
            if role.edge is not None and role.edge.resync_count:
                yield f"{role.name} resynced {role.edge.resync_count} times, and no history was cut"

    def _room(self, address: Address, record: RoomRecord, clients: dict[str, Client]) -> Iterator[str]:
        keys = room_keys(address)
        meta, state, members = self._hash(keys.meta), self._hash(keys.state), self._hash(keys.members)
        dead = [_pairs(entry[1]) for entry in self.redis.ask("XRANGE", keys.dead, "-", "+")]
        outlog = [_pairs(entry[1]) for entry in self.redis.ask("XRANGE", keys.outlog, "-", "+")]
        outlog = [entry for entry in outlog if b'{"n"' in entry[b"d"]]
        stored = read_stored(state, members, self.redis.ask("HMGET", keys.sessions, "#", "@"), (), outlog)
        names = {member: client.name for member, client in clients.items()}
        replay = Replay(record.events, names, dead, self.cast.network.bitten["workers killed"])
        if b"contradictions" in meta:
            yield "a claim found a contradiction"
        if int(meta.get(b"cursor", b"0")) != len(record.events):
            yield f"cursor {meta.get(b'cursor')!r}, {len(record.events)} events were accepted"
        if int(state.get(b"created", b"1")) != 1:
            yield f"on_create ran {state[b'created']!r} times"
        yield from replay.violations
        if replay.timers:
            yield f"timers have not run: {dict(replay.timers)}"
        if list(stored.steps) != replay.steps:
            at = _first_difference(list(stored.steps), replay.steps)
            yield f"the state differs from the replay from step {at + 1} on"
        if {name.decode() for name in members} != set(replay.members):
            yield f"members {sorted(members)}, the replay says {sorted(replay.members)}"
        present = [client for client in clients.values() if client.room == address]
        yield from self._history(address, present, replay, stored)
        for client in present:
            yield from _accepted_in_order(client, record)
            yield from _received(client, record)
            yield from self._let_in(client, record)

    def _let_in(self, client: Client, record: RoomRecord) -> Iterator[str]:
        """Without faults, whose join was committed is told so, and not closed for waiting too long.

        Unless the room is full: then its members are closed that have had something to say for ten seconds.
        """
        let_in_at_s = record.let_in_at_s.get(client.member_id)
        was_full = record.refused_at_s > client.closed_at_s - _REFUSED_AGAIN_S
        if client.close_code == UNAVAILABLE.code and let_in_at_s is not None and not was_full:
            since_s = max(let_in_at_s, self.calm_since_s)
            if client.closed_at_s > since_s + _SHOWN_WITHIN_S:
                yield f"{client.name} was closed for waiting, {client.closed_at_s - since_s:.1f} s after its join"

    @staticmethod
    def _history(address: Address, clients: list[Client], replay: Replay, stored: Any) -> Iterator[str]:
        sockets = []
        for client in clients:
            shown = [read_output(frame) for frame in client.frames if frame.startswith(b'{"n"')]
            sure = sum("i" in message for message in client.sent)
            accepted = replay.accepted.get(client.name, 0)
            is_open = client.close_code is None
            is_lossy = client.name in replay.convicted_senders
            sockets.append(Socket(client.name, sure, shown, is_open=is_open, accepted=accepted, lossy=is_lossy))
        silent = {client.name for client in clients if _NO_LEAVE & set(client.name.split("+"))}
        for violation in check(str(address), sockets, stored):
            # Whose on_leave failed has left without a step of its own: the replay has looked at that.
            if not (violation.kind is Kind.WRONG_LEAVE and violation.text.split(" ")[0] in silent):
                yield f"{violation.kind}: {violation.text}"

    def _loads(self, haunted: set[str]) -> Iterator[str]:
        """Say whose load still stands there; a row that came late says nothing, and goes after a minute."""
        now_ms = int(self.redis.ask("TIME")[0]) * 1000
        flat = self.redis.ask("HGETALL", LOAD)
        for worker, load in read_loads(dict(zip(flat[::2], flat[1::2], strict=True))).items():
            if worker not in haunted and now_ms - load.at_ms < FRESH_MS:
                yield f"the row {worker} of {LOAD} is still there"

    def leftovers(self) -> Iterator[str]:
        """Say what is still there after all processes have ended in good order."""
        # What a dead process's command makes, long after its death, nobody looks for: a set of few bytes.
        roles = (*self.cast.edges, *self.cast.workers)
        haunted = {role.incarnation for role in roles if role in self.cast.network.haunting}
        # Nor does anybody look for what one did that had just learnt of its death, and was killed at once.
        killed = {role.name for role in roles if not role.is_alive}
        haunted |= {incarnation for incarnation, name in self.record.buried.items() if name in killed}
        for key in self.redis.ask("KEYS", "inn:*"):
            name = key.decode()
            if name.rsplit(":", 1)[-1] in haunted:
                continue
            if name.startswith("inn:{"):
                if name.endswith((":lock", ":members")):
                    yield f"{name} is still there"
            elif name == LOAD:
                yield from self._loads(haunted)
            # Rooms handed over wait; deaths are remembered for a minute, counters for ever.
            elif name not in {KINDS, DEATHS, COUNTERS} and not name.startswith(_INDEXES):
                yield f"{name} is still there"
        gone = {wire.end for wire in self.cast.network.wires if not wire.process.is_alive}  # killed silently
        for channel, subscribers in self.redis.fake.ssubscribers.items():
            if names := [end.name for end in subscribers if end not in gone]:
                yield f"{channel.decode()} still has the subscribers {names}"


def _accepted_in_order(client: Client, record: RoomRecord) -> Iterator[str]:
    numbers = [
        orjson.loads(event.data)["m"]
        for event in record.events
        if event.kind == "text" and event.connection == client.member_id
    ]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"{client.name}'s messages were accepted as {numbers}"
    if client.is_open and len(numbers) != len(client.sent):
        yield f"{client.name} sent {len(client.sent)} messages, {len(numbers)} were accepted"


def _received(client: Client, record: RoomRecord) -> Iterator[str]:
    expected = expected_frames(record, client.member_id)
    got = client.frames
    if got != expected[: len(got)]:
        at = _first_difference(got, expected)
        seen = got[at][:90] if at < len(got) else None
        wanted = expected[at][:90] if at < len(expected) else None
        yield f"{client.name} received as frame {at} {seen!r}, the history has {wanted!r}"
    elif client.close_code is None and len(got) < len(expected):
        yield f"{client.name} received {len(got)} of {len(expected)} frames"


def expected_frames(record: RoomRecord, connection: str) -> list[bytes]:
    """Return every frame that a connection must receive: what is addressed to it from its join output on."""
    ending = b" " + connection.encode()
    me, frames = b"", []
    for header, body in record.outputs:
        verb, _, address = header.partition(b" ")
        if not me:
            if verb == b"join" and address.endswith(ending):
                me = address.partition(b" ")[0]
            continue
        if verb not in (b"text", b"binary", b"close"):
            continue
        named = address[1:].split(b",")
        if address == b"*" or (address[:1] == b"-" and me not in named) or (address[:1] == b"+" and me in named):
            if verb == b"close":
                break
            frames.append(body)
    return frames


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _first_difference(one: list[Any], other: list[Any]) -> int:
    for n, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return n
    return min(len(one), len(other))
