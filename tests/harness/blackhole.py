"""A TCP proxy that can stop passing bytes on without closing anything, as a dead line does."""

import asyncio
import contextlib


class Blackhole:
    """Listens on a free loopback port and passes on to another one until :meth:`swallow` is called."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.swallowed_bytes = 0
        self._target_port = target_port
        self._is_open = True
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to listen; ``port`` says where."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def swallow(self) -> None:
        """From now on every byte that comes is swallowed, in both directions."""
        self._is_open = False

    async def close(self) -> None:
        """End all connections."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            with contextlib.suppress(asyncio.CancelledError):  # asyncio.streams logs a cancelled handler as failed
                await asyncio.gather(self._pass(reader, up_writer), self._pass(up_reader, writer))
        finally:
            for end in (writer, up_writer):
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if self._is_open:
                    writer.write(data)
                else:
                    self.swallowed_bytes += len(data)
        if not self._is_open:
            await asyncio.Event().wait()  # a dead line does not tell that the other end has closed
