"""A client that writes any bytes it likes: for what no well-behaved library would send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
DEADLINE_S = 5.0
MASK = b"\x0b\xad\xf0\x0d"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Frame(NamedTuple):
    """One frame as it came from the server."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """The code of a close frame; 1005 where it has none."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005


class Answer(NamedTuple):
    """An HTTP response: header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length_bytes: int | None = None,
    claimed_bytes: int | None = None,
) -> bytes:
    """Encode a client frame, also a forbidden one.

    Args:
        opcode: 0 to 15.
        payload: What follows the header.
        fin: Whether the message ends here.
        rsv: The three reserved bits, 0 to 7.
        masked: Whether the mask bit, the mask and masking are there.
        length_bytes: 0, 2 or 8: width of the extended length, shortest by default.
        claimed_bytes: Length to write instead of the payload's.
    """
    size = len(payload) if claimed_bytes is None else claimed_bytes
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65_536 else 8
    flag = {0: size, 2: 126, 8: 127}[length_bytes]
    head = bytes((fin << 7 | rsv << 4 | opcode, masked << 7 | flag)) + size.to_bytes(length_bytes or 8, "big")
    head = head if length_bytes else head[:2]
    return head + MASK + bytes(b ^ MASK[i & 3] for i, b in enumerate(payload)) if masked else head + payload


def close_frame(code: int, reason: bytes = b"") -> bytes:
    """Encode a client's close frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason)


def request_head(
    target: str = "/parties/chat/lobby",
    headers: dict[str, str | list[str] | None] | None = None,
    *,
    method: str = "GET",
    version: str = " HTTP/1.1",
) -> bytes:
    """Encode an opening handshake.

    Args:
        target: The raw request target; latin-1, so any byte can be written.
        headers: Changes to a good handshake: another value, several lines of it, or None to leave it out.
        method: The method.
        version: With its leading blank; empty for HTTP/0.9.
    """
    lines: dict[str, str | list[str] | None] = {
        "Host": "rooms.test",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    lines |= headers or {}
    text = f"{method} {target}{version}\r\n"
    for name, value in lines.items():
        for each in [value] if isinstance(value, str) else value or []:
            text += f"{name}: {each}\r\n"
    return (text + "\r\n").encode("latin-1")


class RawSocket:
    """A TCP connection that speaks only what it is told; every read has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Write bytes in as few segments as the system makes of them."""
        self._writer.write(data)
        await self._writer.drain()

    async def dribble(self, data: bytes) -> None:
        """Write bytes one by one, each in a segment of its own as far as one can ask for that."""
        for at in range(len(data)):
            await self.send(data[at : at + 1])
            await asyncio.sleep(0)

    async def answer(self) -> Answer:
        """Read one HTTP response."""
        async with asyncio.timeout(DEADLINE_S):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(status_line.split()[1]), headers, body)

    async def frame(self) -> Frame:
        """Read one server frame, and hold it to the rules for servers."""
        async with asyncio.timeout(DEADLINE_S):
            first, second = await self._reader.readexactly(2)
            assert first & 0xF0 == 0x80, f"a fragment or a reserved bit: {first:#04x}"
            assert second < 0x80, "a masked frame from the server"
            size = second
            if second >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if second == 126 else 8), "big")
            return Frame(first & 0x0F, await self._reader.readexactly(size))

    async def close_code(self) -> int:
        """Read frames up to the close frame and return its code."""
        while True:
            got = await self.frame()
            if got.opcode == CLOSE:
                return got.close_code

    async def rest(self) -> bytes:
        """Read to the end of the connection; a reset counts as one."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""


@asynccontextmanager
async def connect(port: int, *, join: bool = False) -> AsyncIterator[RawSocket]:
    """Yield a connection to a port of this machine.

    Args:
        port: Where the server listens on 127.0.0.1.
        join: Whether to do a good handshake first.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    socket = RawSocket(reader, writer)
    try:
        if join:
            await socket.send(request_head())
            assert (await socket.answer()).status == 101
        yield socket
    finally:
        writer.transport.abort()
