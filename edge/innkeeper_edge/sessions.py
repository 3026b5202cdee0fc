"""The sockets of one room at this edge that speak ``innkeeper.v1``: numbered outputs, replays, and what was applied."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from innkeeper.close_codes import REPLACED, RESYNC, SESSION_OVER
from innkeeper.errors import RedisReplied, RedisUnavailable
from innkeeper.functions import Pushed
from innkeeper.wire import BINARY_TO_ALL, TEXT_TO_ALL, StreamId, addressed, format_id, read_close
from innkeeper_edge import subprotocol
from innkeeper_edge.session_member import SessionMember, Stage
from innkeeper_edge.subprotocol import Parting, Replay

if TYPE_CHECKING:
    from innkeeper.channel import Command
    from innkeeper_edge.fanout import Output
    from innkeeper_edge.feed import Feed
    from innkeeper_edge.ingress import Queued

log = logging.getLogger("innkeeper.edge")

_AT_EVERY = 256  # a client is told where it stands when so many outputs were not for it: so its last id stays known
_LOOK_EVERY = 64
_CLOSED = b"closed"
_MOST_QUIET = 1_024
_PART_S = 2.0  # how long a socket that the room closes waits to hear what became of what it had said


class Sessions:
    """All sockets of sessions in one room, by connection and, once they receive, by join.

    Attributes:
        sockets: By connection id; there may be several while a newer one takes a session over.
        live: Those past their join mark, by join.
    """

    def __init__(self, feed: "Feed") -> None:
        self.sockets: dict[str, list[SessionMember]] = {}
        self.live: dict[int, SessionMember] = {}
        self._feed = feed
        self._cursor = 0
        self._pending: deque[tuple[int, SessionMember, int]] = deque()  # accepted messages: iseq, sender, number
        self._unlooked_count = 0
        self._parting: dict[int, tuple[SessionMember, Parting]] = {}  # by join: whom the room closes or moves
        self._quiet: set[StreamId] = set()  # known outputs after which there were only marks: who saw one saw all

    def __iter__(self) -> Iterator[SessionMember]:
        return iter([member for members in self.sockets.values() for member in members])

    def add(self, member: SessionMember) -> None:
        """Take a socket that is on its way into the room."""
        self.sockets.setdefault(member.id, []).append(member)

    def remove(self, member: SessionMember) -> None:
        """Forget a socket."""
        members = self.sockets.get(member.id, [])
        if member in members:
            members.remove(member)
        if not members:
            self.sockets.pop(member.id, None)
        self._hide(member)

    def _hide(self, member: SessionMember) -> None:
        if self.live.get(member.join) is member:
            del self.live[member.join]
        parting = self._parting.get(member.join)
        if parting is not None and parting[0] is member:
            del self._parting[member.join]

    # --- what became of messages ----------------------------------------------------------------------------------
    def answered(self, batch: "list[Queued]", pushed: Pushed) -> None:
        """Take the letters of a push: tell what was accepted, close what was refused for good."""
        iseq = pushed.first_iseq
        speakers: dict[SessionMember, None] = {}
        for (event, member), letter in zip(batch, pushed.letters, strict=True):
            if isinstance(member, SessionMember):
                if member.answered(event, letter):
                    self._pending.append((iseq, member, event.number))
                if event.number and letter in "ad":
                    speakers[member] = None
            if letter == "a":
                iseq += 1
        applied = self._applied(self._cursor)
        for member in speakers:
            if member in applied:
                member.say(ack=member.accepted, applied=member.applied)
            else:
                member.say(ack=member.accepted)
        self._let_go()

    def advance(self, cursor: int) -> None:
        """Take the room's cursor, after all outputs up to there: tell what is applied, then part with sockets.

        The commit that closes a socket is that of its messages, too: its client shall hear of both.
        """
        self._cursor = max(self._cursor, cursor)
        for member in self._applied(self._cursor):
            member.say(applied=member.applied)
        self._let_go()

    def _let_go(self, *, at_once: bool = False) -> None:
        """Part with sockets as the room says; those with messages on their way into the inbox are closed later."""
        for join, (member, parting) in list(self._parting.items()):
            if at_once or isinstance(parting, str) or not member.waiting_count:
                del self._parting[join]
                member.part(parting)

    def _part(self, member: SessionMember, parting: Parting) -> None:
        """Show no more to a socket that the room closes or moves; :meth:`advance` does it."""
        if member.stage is not Stage.LIVE:
            member.part(parting)
            return
        self._hide(member)
        self._parting[member.join] = member, parting
        if not isinstance(parting, str):
            member.take_leave()
            if member.waiting_count:
                self._feed.edge.loop.call_later(_PART_S, member.part, parting)

    def _applied(self, cursor: int) -> dict[SessionMember, None]:
        pending, found = self._pending, dict[SessionMember, None]()
        while pending and pending[0][0] <= cursor:
            _, member, number = pending.popleft()
            if number > member.applied:
                member.applied = number
                member.applied_settled()
                found[member] = None
        return found

    def forget(self, member: SessionMember) -> None:
        """Tell a socket no more of what becomes of its messages: it goes to another room."""
        self._pending = deque(entry for entry in self._pending if entry[1] is not member)

    # --- outputs --------------------------------------------------------------------------------------------------
    def deliver(self, previous: StreamId, mark: int, outputs: "list[Output]") -> None:
        """Show outputs of one mark, which follow the one at ``previous``; each socket gets one write."""
        if not self.sockets:
            self._end_quiet()
            return
        touched: dict[SessionMember, None] = {}
        run: list[bytes] = []
        position = previous
        for header, body in outputs:
            if header == TEXT_TO_ALL:
                run.append(subprotocol.text_frame(position[0] + 1, body))
            elif header == BINARY_TO_ALL:
                run.append(subprotocol.binary_frame(position[0] + 1, body))
            else:
                self._show_run(run, position, touched)
                try:
                    self._deliver_one(header, body, (position[0] + 1, mark), position, touched)
                except Exception:  # as in the fan-out
                    log.exception("an output that this edge cannot read was skipped: %r", header)
            position = (position[0] + 1, mark)
        self._show_run(run, position, touched)
        self._unlooked_count += len(outputs)
        if self._unlooked_count >= _LOOK_EVERY:
            self._unlooked_count = 0
            self._tell_places(position, touched)
        for member in touched:
            member.flush()

    def _show_run(self, run: list[bytes], position: StreamId, touched: dict[SessionMember, None]) -> None:
        if run:
            self._end_quiet()
            frames = b"".join(run)
            meters, sockets = self._feed.edge.meters, len(self.live)
            meters.messages_out += len(run) * sockets
            meters.bytes_out += len(frames) * sockets
            run.clear()
            for member in self.live.values():
                member.show(position, frames)
                touched[member] = None

    def _tell_places(self, position: StreamId, touched: dict[SessionMember, None]) -> None:
        for member in self.live.values():
            if member.stage is Stage.LIVE and position[0] - member.told > _AT_EVERY:
                member.outgoing.append(member.placed(position))
                touched[member] = None

    def _deliver_one(
        self, header: bytes, body: bytes, position: StreamId, previous: StreamId, touched: dict[SessionMember, None]
    ) -> None:
        verb, _, rest = header.partition(b" ")
        if verb in (b"join", b"resync") and rest.count(b" ") > 1:
            self._marked(verb, rest.split(b" "), position, previous, touched)
            return
        self._end_quiet()
        if verb == b"refuse" and b" " in rest:
            name, generation = rest.split(b" ")
            for member in list(self.sockets.get(name.decode(), ())):
                if member.generation <= int(generation):
                    member.pushed = False  # the room has closed the session
                    member.close(*read_close(body))
        elif verb in (b"close", b"move"):
            named = self.live.get(int(rest[1:]))
            if named is not None:
                self._part(named, subprotocol.read_parting(verb, body))
        else:
            receivers = addressed(rest, self.live) if verb in (b"text", b"binary", b"error") else []
            if verb == b"error" and rest[:1] == b"+" and (parting := self._parting.get(int(rest[1:]))) is not None:
                receivers.append(parting[0])  # it is about a message that counts as applied without it
            frame = subprotocol.frame_of(verb, position, body) if receivers else None
            if frame is not None:
                self._feed.edge.meters.messages_out += len(receivers)
                self._feed.edge.meters.bytes_out += len(receivers) * len(frame)
                for member in receivers:
                    member.show(position, frame)
                    touched[member] = None

    # --- joins, resumes, resyncs ----------------------------------------------------------------------------------
    def _marked(
        self,
        verb: bytes,
        words: list[bytes],
        position: StreamId,
        previous: StreamId,
        touched: dict[SessionMember, None],
    ) -> None:
        """Take a mark of a session: its newest socket goes on from here, older ones are closed."""
        join, name, generation = int(words[0]), words[1].decode(), int(words[2])
        for member in list(self.sockets.get(name, ())):
            if member.generation < generation:
                self._hide(member)
                member.end(REPLACED)
            elif member.generation == generation and not member.left and not member.closing:
                if verb == b"join" and member.stage is Stage.JOINING:
                    self._let_in(member, join)
                    if words[3:]:
                        self._note_quiet(previous)
                        self._catch_up(member, "resumed", position)
                        self._note_quiet(position)
                    else:
                        member.go_live("hello", Replay(position, [], None), 0)
                        touched[member] = None
                    return
                if verb == b"resync" and member.stage is Stage.CUT:
                    self._let_in(member, join)
                    self._catch_up(member, "resync", position)
                    return

    def _let_in(self, member: SessionMember, join: int) -> None:
        member.join = join
        self.live[join] = member

    def _note_quiet(self, position: StreamId) -> None:
        if len(self._quiet) >= _MOST_QUIET:
            self._end_quiet()
        if position[0]:
            self._quiet.add(position)

    def _end_quiet(self) -> None:
        if self._quiet:
            self._quiet = set()  # another one: whoever reads the outlog for the old one finds nothing for this

    def _catch_up(self, member: SessionMember, word: str, position: StreamId) -> None:
        visit = member.enter(Stage.CATCHING_UP)
        if member.last is None and word == "resumed":
            word = "hello"
        self._feed.edge.spawn(self._catch_up_from(member, visit, word, position, self._quiet))

    async def _catch_up_from(
        self, member: SessionMember, visit: int, word: str, position: StreamId, quiet: set[StreamId]
    ) -> None:
        """Read what a socket has missed up to its mark, and what of its messages was accepted; then it is live."""
        missed: Replay | None = Replay(position, [], None)
        is_needed = word != "resync"
        if is_needed and member.last is not None and member.last < position and member.last in quiet:
            missed, is_needed = Replay(member.last, [], None), False
        reading = await self._read_missed(member, visit, position, with_outlog=is_needed)
        if reading is None:
            return
        (iseq, stored), entries = reading
        if stored is None or _CLOSED in stored:
            member.end(SESSION_OVER)
            return
        if is_needed:
            try:
                missed = subprotocol.replay(
                    entries, last=member.last, mark=position, join=member.join, connection=member.id
                )
                quiet.update(subprotocol.quiet_end(entries))
            except Exception:
                log.exception("room %s: what a session missed cannot be read", self._feed.address)
                missed = None
        if missed is None:
            log.info("room %s: what a session missed is not in the outlog, it resyncs", self._feed.address)
            self._ask_resync(member)
            return
        accepted = int(stored.split(b" ", 1)[0])
        if int(iseq) <= self._cursor:
            member.applied = max(member.applied, accepted)  # told with the answer: a close may follow it
        member.go_live(word, missed, accepted)
        member.flush()
        self._pending.append((int(iseq), member, accepted))
        self.advance(0)

    async def _read_missed(
        self, member: SessionMember, visit: int, position: StreamId, *, with_outlog: bool
    ) -> tuple[Any, Any] | None:
        """Read '#', the session's row and the outlog, in one round trip; None where that is not wanted any more."""
        keys, link = self._feed.keys, self._feed.link
        start = format_id(member.last) if member.last is not None else b"-"
        commands: list[Command] = [("HMGET", keys.sessions, "#", f"s:{member.session}")]
        if with_outlog:
            commands.append(("XRANGE", keys.outlog, start, format_id(position)))
        while member.visit == visit and not member.closing:
            try:
                replies = await link.send(commands)
            except RedisUnavailable as error:
                log.warning("room %s: what a session missed was not read: %s", self._feed.address, error)
            else:
                if member.visit != visit or member.closing:
                    break
                failed = [reply for reply in replies if isinstance(reply, RedisReplied)]
                if not failed:
                    return replies[0], replies[-1] if with_outlog else []
                log.warning("room %s: what a session missed was not read: %s", self._feed.address, failed[0])
            await asyncio.sleep(0.1)
        return None

    # --- history was cut ------------------------------------------------------------------------------------------
    def cut(self) -> None:
        """Hold back all sockets until their resync marks; one that waits for its join comes again."""
        self._let_go(at_once=True)
        self._pending.clear()
        self._cursor = 0
        self._end_quiet()
        self.live.clear()
        for member in self:
            if member.stage is Stage.JOINING:
                member.close_with(RESYNC)
            else:
                member.cut()

    def ask_resyncs(self) -> None:
        """Ask the room for the marks and snapshots of all sockets that were held back."""
        for member in self:
            if member.stage is Stage.CUT and not member.closing:
                self._push_resync(member)

    def _ask_resync(self, member: SessionMember) -> None:
        self._hide(member)
        member.enter(Stage.CUT)
        self._push_resync(member)

    def _push_resync(self, member: SessionMember) -> None:
        self._feed.edge.ingress.add(self._feed, member.event("resync"), member)
