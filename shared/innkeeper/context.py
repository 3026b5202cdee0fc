"""What a room's methods work on: its state, its members, and what the running event has asked for so far."""

import hashlib
import random
from typing import TYPE_CHECKING, Any

from innkeeper import codec as codecs
from innkeeper import wire
from innkeeper.allowance import Allowance
from innkeeper.errors import OutputInvalid, TurnClosed
from innkeeper.timetable import Timetable
from innkeeper.turn import TURN_OUT_BYTES

if TYPE_CHECKING:
    from innkeeper.address import Address
    from innkeeper.connection import Connection
    from innkeeper.state import State
    from innkeeper.typed_state import TypedState

_ID_DIGITS = 32


class RoomContext:
    """The framework's side of one room object.

    Attributes:
        members: All members by connection id, in the order they joined.
        outputs: What the running event sends: headers and bodies (:mod:`innkeeper.wire`).
        outbox: What it owes to the outside: kind, target, data.
        timers: The room's timers, and what the running event makes of them.
        touched: Members whose rows it may have changed.
        is_destroyed: Whether it asked for the room's end.
        was_destroyed: Whether a hook of it that is settled did.
        sealed: Why the room object may not be used any more; empty while it may.
        outside: The hook that runs without an event, empty where there is one.
        moment: The id of the running event (``iseq-server µs``), or of the claim before the first.
    """

    def __init__(
        self, address: "Address", codec_name: str, state: "State | TypedState", *, moment: bytes = b"0-0"
    ) -> None:
        self.address = address
        self.codec = codec_name
        self.state = state
        self.members: dict[str, Connection] = {}
        self.outputs: list[tuple[bytes, bytes]] = []
        self.outbox: list[tuple[str, str, bytes]] = []
        self._shown, self._owed = Allowance("the outputs"), Allowance("posts and jobs")
        self.touched: set[Connection] = set()
        self.timers = Timetable(self)
        self.is_destroyed = self.was_destroyed = False
        self.sealed = ""
        self.outside = ""
        self.moment = moment
        self._counted_for = self._seeded_by = b""
        self._id_count = 0
        self._random: random.Random | None = None  # 2.5 kB, and few rooms want it

    def check_open(self) -> None:
        """Raise TurnClosed where the running hook's turn was cut."""
        if self.sealed:
            raise TurnClosed(f"room {self.address}: {self.sealed}")

    # --- what a turn may know of time and chance ------------------------------------------------------------------
    @property
    def now_s(self) -> float:
        """The server's time when the running event was accepted, Unix seconds."""
        return wire.parse_id(self.moment)[1] / 1_000_000

    @property
    def random(self) -> random.Random:
        """Chance that a second run of the same event finds again: seeded with the room's address and the event's id."""
        if self._random is None or self._seeded_by != self.moment:
            self._seeded_by = self.moment
            # Repeatable on purpose, and documented as no secret.
            self._random = random.Random(f"{self.address} {self.moment.decode()}")  # noqa: S311
        return self._random

    def new_id(self) -> str:
        """Return 32 hex digits that a second run of the same event makes again, whatever became of :attr:`random`."""
        if self._counted_for != self.moment:
            self._counted_for, self._id_count = self.moment, 0
        self._id_count += 1
        seed = f"{self.address} {self.moment.decode()} {self._id_count}"
        return hashlib.sha256(seed.encode()).hexdigest()[:_ID_DIGITS]

    # --- what it may ask for --------------------------------------------------------------------------------------
    def add(self, output: tuple[bytes, bytes]) -> None:
        """Take an output of the running event."""
        self.check_open()
        self._show(*output)

    def owe(self, kind: str, target: str, data: bytes) -> None:
        """Take an effect outside the room: it is delivered once, after the commit."""
        self.check_open()
        self._owed.take(self.moment, len(target) + len(data))
        self.outbox.append((kind, target, data))

    def send(self, value: Any, address: bytes, *, is_addressed: bool = True) -> None:
        """Encode a value and take it as an output to an address; not addressed to anybody, it is only looked at."""
        binary, payload = self._encode(value)
        if is_addressed:
            self._show(wire.output_header(binary=binary, address=address), payload)

    def send_to_all(self, value: Any) -> None:
        """Encode a value and take it as an output to everybody."""
        binary, payload = self._encode(value)
        self._show(wire.BINARY_TO_ALL if binary else wire.TEXT_TO_ALL, payload)

    def _show(self, header: bytes, payload: bytes) -> None:
        self._shown.take(self.moment, len(header) + len(payload))
        self.outputs.append((header, payload))

    def take_outputs(self) -> list[tuple[bytes, bytes]]:
        """Return what the hook that has ended has sent, and begin anew."""
        outputs, self.outputs = self.outputs, []
        self._shown.settle()
        return outputs

    def take_outbox(self) -> list[tuple[str, str, bytes]]:
        """Return what the hook that has ended owes to the outside, and begin anew."""
        outbox, self.outbox = self.outbox, []
        self._owed.settle()
        return outbox

    def forget(self) -> None:
        """Forget what the hook that has failed has sent and what it owed."""
        self.outputs, self.outbox = [], []
        self._shown.undo()
        self._owed.undo()

    def _encode(self, value: Any) -> tuple[bool, bytes]:
        self.check_open()
        binary, payload = codecs.encode(self.codec, value)
        if len(payload) > TURN_OUT_BYTES:
            raise OutputInvalid(f"an output of {len(payload)} bytes: at most {TURN_OUT_BYTES}")
        return binary, payload
