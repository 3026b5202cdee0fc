"""Collaborative text: a Yjs document in each room, for y-websocket at ``ws://HOST/parties/yjs`` and the room's name.

Needs pycrdt, Yjs for Python (``pip install pycrdt``). The server takes part as any Yjs client does: it merges what
comes, keeps it in the room's state, and gives newcomers what they lack. The page loads y-websocket from the folder
``yjs``, where ``npm install`` puts it (``make dev EXAMPLE=yjs`` does so).
"""

from base64 import b64decode, b64encode

from pycrdt import Decoder, Doc, Encoder, Text, YMessageType, YSyncMessageType, create_sync_message, handle_sync_message

from innkeeper import Connection, Event, Room

NO_UPDATE = b"\x00\x00"
COMPACT_AFTER = 200


class Yjs(Room):
    """One document; rooms are ``yjs/<any name>``."""

    codec = "raw"
    message_bytes = 1_048_576
    state_bytes = 8_388_608

    doc: Doc[Text]

    def on_start(self) -> None:
        """Make the document of the updates kept: the oldest of them may be a whole document."""
        self.doc = Doc()
        for key in sorted(self.state):
            self.doc.apply_update(b64decode(self.state[key]))

    def on_connect(self, conn: Connection) -> None:
        """Ask a newcomer for what the server lacks, and show it the others' cursors."""
        conn.send(create_sync_message(self.doc))
        for member in self.connections:
            if member is not conn and member.state:
                conn.send(b64decode(member.state["awareness"]))

    def on_message(self, conn: Connection, message: str | bytes) -> None:
        """Take part in the sync protocol; what others have to know goes on to them as it came."""
        if isinstance(message, str):
            return
        if message[0] == YMessageType.AWARENESS:
            clients = {client: clock for client, clock, _ in read_awareness(message)}
            conn.state = {"clients": list(clients.items()), "awareness": b64encode(message).decode()}
            self.broadcast(message)  # to its sender, too: y-websocket leaves a socket that is silent for 30 s
        elif message[0] == YMessageType.SYNC:
            reply = handle_sync_message(message[1:], self.doc)
            if reply is not None:
                conn.send(reply)
            elif (update := Decoder(message[2:]).read_message() or NO_UPDATE) != NO_UPDATE:
                self.keep(update)
                self.broadcast(bytes([YMessageType.SYNC, YSyncMessageType.SYNC_UPDATE]) + message[2:], exclude=conn)

    def on_leave(self, conn: Connection) -> None:
        """Take its cursor away at the others."""
        if conn.state:
            gone = [(client, clock + 1, "null") for client, clock in conn.state["clients"]]
            self.broadcast(awareness_message(gone))

    def on_error(self, error: Exception, event: Event) -> None:  # noqa: ARG002 - the hook's signature
        """Make the document anew: what the failed event merged into it was not kept."""
        self.on_start()

    def keep(self, update: bytes) -> None:
        """Keep an update; many of them are merged into one, the whole document."""
        number = int(max(self.state, default="0")) + 1
        if len(self.state) >= COMPACT_AFTER:
            self.state.clear()
            update = self.doc.get_update()
        self.state[f"{number:012d}"] = b64encode(update).decode()


def read_awareness(message: bytes) -> list[tuple[int, int, str]]:
    """Return client, clock and state (JSON) of all that an awareness message tells."""
    outer = Decoder(message[1:]).read_message() or b""
    decoder = Decoder(outer)
    count = decoder.read_var_uint()
    return [(decoder.read_var_uint(), decoder.read_var_uint(), decoder.read_var_string()) for _ in range(count)]


def awareness_message(entries: list[tuple[int, int, str]]) -> bytes:
    """Return the awareness message that tells these clients, clocks and states (JSON)."""
    inner = Encoder()
    inner.write_var_uint(len(entries))
    for client, clock, state in entries:
        inner.write_var_uint(client)
        inner.write_var_uint(clock)
        inner.write_var_string(state)
    body = inner.to_bytes()
    length = Encoder()
    length.write_var_uint(len(body))
    return bytes([YMessageType.AWARENESS]) + length.to_bytes() + body
