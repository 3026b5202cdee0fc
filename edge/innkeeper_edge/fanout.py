"""Fan-out: the outputs of a batch to the sockets of a room, framed once, one write per socket."""

import logging
from typing import TYPE_CHECKING

from innkeeper.meters import EdgeMeters
from innkeeper.wire import BINARY_TO_ALL, TEXT_TO_ALL, addressed, read_close
from innkeeper_edge.frames import encode_binary, encode_text
from innkeeper_edge.member import Member

if TYPE_CHECKING:
    from innkeeper_edge.calls import Call

log = logging.getLogger("innkeeper.edge")

Output = tuple[bytes, bytes]

_SHOWN = (b"text", b"binary", b"error")


class Fanout:
    """The raw sockets of one room at this edge: those joining, by connection id, and those live, by join.

    Attributes:
        calls: The requests that wait for their answers, by id.
        meters: What the edge counts.
    """

    def __init__(self, meters: EdgeMeters | None = None) -> None:
        self.meters = meters or EdgeMeters()
        self.calls: dict[bytes, Call] = {}
        self.members: dict[str, Member] = {}
        self.live: dict[int, Member] = {}

    def remove(self, member: Member) -> None:
        """Forget a socket."""
        self.members.pop(member.id, None)
        if self.live.get(member.join) is member:  # after a cut history another may have the number
            del self.live[member.join]

    def deliver(self, outputs: list[Output]) -> None:
        """Send a batch of outputs in order; each socket gets one write, whatever the batch holds."""
        frames = []
        for header, body in outputs:
            if header != TEXT_TO_ALL:
                self._deliver_mixed(outputs)
                return
            frames.append(encode_text(body))
        if frames:
            joined = b"".join(frames)
            self._count(len(frames), len(joined))
            for member in list(self.live.values()):
                member.write(joined)

    def _count(self, frames: int, size_bytes: int) -> None:
        sockets = len(self.live)
        self.meters.messages_out += frames * sockets
        self.meters.bytes_out += size_bytes * sockets

    def _deliver_mixed(self, outputs: list[Output]) -> None:
        """Deliver a batch with addressed outputs, joins or closes: runs of broadcasts stay joined between them."""
        run: list[bytes] = []
        touched: dict[str, Member] = {}
        for header, body in outputs:
            if header == TEXT_TO_ALL:
                run.append(encode_text(body))
            elif header == BINARY_TO_ALL:
                run.append(encode_binary(body))
            else:
                self._flush_run(run, touched)
                try:
                    self._deliver_one(header, body, touched)
                except Exception:  # one that nobody can read must not cost the room the others
                    log.exception("an output that this edge cannot read was skipped: %r", header)
        self._flush_run(run, touched)
        self._write(touched)

    def _flush_run(self, run: list[bytes], touched: dict[str, Member]) -> None:
        if run:
            frames = b"".join(run)
            self._count(len(run), len(frames))
            run.clear()
            for member in self.live.values():
                member.outgoing.append(frames)
                touched[member.id] = member

    def _deliver_one(self, header: bytes, body: bytes, touched: dict[str, Member]) -> None:
        verb, _, rest = header.partition(b" ")
        if verb in _SHOWN:
            receivers = addressed(rest, self.live)
            if receivers:
                frame = encode_binary(body) if verb == b"binary" else encode_text(body)
                self.meters.messages_out += len(receivers)
                self.meters.bytes_out += len(receivers) * len(frame)
                for member in receivers:
                    member.outgoing.append(frame)
                    touched[member.id] = member
        elif verb == b"join":
            number, _, connection = rest.partition(b" ")
            joined = self.members.get(connection.decode())
            if joined is not None and not joined.left:
                joined.join = int(number)
                self.live[joined.join] = joined
        elif verb in (b"close", b"refuse", b"move"):
            self._take_away(verb, rest, body, touched)
        elif verb == b"answer":
            call = self.calls.get(rest)
            if call is not None:  # else another edge's, or given up
                call.answered(body)
        elif verb != b"resync":  # that one is for sessions
            log.warning("an output this edge does not know: %s", header.decode(errors="replace"))

    def _take_away(self, verb: bytes, rest: bytes, body: bytes, touched: dict[str, Member]) -> None:
        """Close a socket, or take it to another room."""
        named = self.members.get(rest.decode()) if verb == b"refuse" else self.live.get(int(rest[1:]))
        if named is None:
            return
        self._write(touched)
        if verb == b"move":
            del self.live[named.join]
            named.move(body.decode())
        else:
            named.close(*read_close(body))

    def _write(self, touched: dict[str, Member]) -> None:
        for member in touched.values():
            member.write(b"".join(member.outgoing))
            member.outgoing.clear()
        touched.clear()
