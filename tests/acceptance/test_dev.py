"""``innkeeper dev`` as a user meets it: real processes, real sockets, real signals."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from harness.processes import eventually, none_left, processes_with
from innkeeper.supervise import BootFailed, Child, Program

EXAMPLE = Path(__file__).parents[2] / "examples" / "chat.py"


class Dev:
    """One folder with rooms, and the ``innkeeper dev`` that runs there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rooms = folder / "chat.py"
        self.mark = f"INNKEEPER_TEST={folder}"
        self.log_path = folder / "output"
        self._child: Child | None = None
        shutil.copy(EXAMPLE, self.rooms)

    @property
    def child(self) -> Child:
        """The parent process."""
        assert self._child is not None
        return self._child

    async def start(self, *options: str) -> None:
        """Start and wait until it is ready."""
        data_dir = str(self.folder / "house")
        arguments = [sys.executable, "-m", "innkeeper", "dev", str(self.rooms), "--data-dir", data_dir]
        if "--port" not in options:
            options = (*options, "--port", "0")
        self._child = await Child.start(
            Program(
                name="dev",
                arguments=[*arguments, *options],
                environment={"INNKEEPER_TEST": str(self.folder)},
                log_path=self.log_path,
            )
        )

    def output(self) -> str:
        """Return what was printed so far, by all processes."""
        return self.log_path.read_text()

    async def until(self, text: str) -> None:
        """Wait until a text was printed."""
        await eventually(lambda: text in self.output(), self.output)

    def pids(self, role: str) -> list[int]:
        """Return the processes of one role."""
        return [pid for pid in processes_with(self.mark) if f" {role} " in command_line(pid)]

    async def kill(self, role: str) -> None:
        """Kill the one process of a role and wait until another runs in its place."""
        (old,) = self.pids(role)
        os.kill(old, signal.SIGKILL)
        await self.replaced(role, old)

    async def replaced(self, role: str, old: int) -> None:
        """Wait until a process of a role is gone and one other runs in its place."""
        await eventually(lambda: len(pids := self.pids(role)) == 1 and old not in pids, self.output)

    async def all_gone(self) -> None:
        """Wait until no process is left."""

        def left() -> list[str]:
            return [command_line(pid) for pid in processes_with(self.mark)]

        await eventually(lambda: not left(), left)

    def enter(self, name: str, room: str = "lobby") -> connect:
        """Return a connection to a room, to be used with ``async with``."""
        port = self.child.facts["port"]
        return connect(f"ws://127.0.0.1:{port}/parties/chat/{room}?name={name}", proxy=None)


def command_line(pid: int) -> str:
    """Return the command line of a process, or nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


async def heard(socket: ClientConnection, **wanted: Any) -> dict[str, Any]:
    """Return the next frame with the wanted values; frames before it are dropped."""
    seen = []
    try:
        async with asyncio.timeout(20):
            while True:
                frame: dict[str, Any] = json.loads(await socket.recv())
                seen.append(frame)
                if wanted.items() <= frame.items():
                    return frame
    except TimeoutError:
        pytest.fail(f"waited for {wanted}, seen: {seen}")


async def say(socket: ClientConnection, text: str) -> None:
    """Send a message of the example's protocol."""
    await socket.send(json.dumps({"text": text}))


@pytest.fixture
async def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dev]:
    """Yield a folder with the example's rooms; whatever a failing test leaves running there is killed."""
    for name in [name for name in os.environ if name.startswith("INNKEEPER_")]:
        monkeypatch.delenv(name)  # settings of whoever runs the tests
    dev = Dev(tmp_path)
    with none_left(dev.mark):
        yield dev
        if dev._child is not None:
            await dev._child.stop()


async def test_two_people_talk(dev: Dev) -> None:
    """The printed address leads to a page and to rooms in which people hear each other."""
    await dev.start()
    port = dev.child.facts["port"]
    assert f"Innkeeper is ready: http://127.0.0.1:{port}/\n" in dev.output()
    assert f"redis-cli -p {dev.child.facts['redis_port']}" in dev.output()
    async with dev.enter("ada") as ada, dev.enter("bob") as bob:
        await heard(ada, type="members", names=["ada", "bob"])
        await say(ada, "hello")
        await heard(bob, type="message", text="hello", **{"from": "ada"})
        await say(bob, "hi")
        await heard(ada, type="message", text="hi", **{"from": "bob"})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    page = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert page.startswith(b"HTTP/1.1 200 OK")
    assert b"<title>Innkeeper</title>" in page


async def test_the_inspector_is_there(dev: Dev) -> None:
    """Its address is printed with the password, which stays the same; it shows the rooms, and can be left out."""
    await dev.start()
    async with dev.enter("ada") as ada, aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        await heard(ada, type="members")
        base, password = _inspector(dev)
        async with http.post(f"{base}/api/login", json={"password": password}) as answer:
            assert answer.status == 200
        async with http.get(f"{base}/api/room?room=chat/lobby") as answer:
            assert (await answer.json())["row"]["members"] == 1
    assert (dev.folder / "house" / "inspector-password").stat().st_mode & 0o777 == 0o600
    await dev.child.stop()
    await dev.start("--inspector-port", "0")
    assert _inspector(dev)[1] == password
    await dev.child.stop()
    printed = dev.output().count("Inspector: ")
    await dev.start("--no-inspector")
    assert dev.output().count("Inspector: ") == printed
    assert dev.pids("inspector") == []


def _inspector(dev: Dev) -> tuple[str, str]:
    """Return the address that was printed last, and the password."""
    line = [line for line in dev.output().splitlines() if line.startswith("Inspector: ")][-1]
    base, _, password = line.removeprefix("Inspector: ").partition("/#password=")
    return base, password


async def test_killed_worker_is_not_noticed(dev: Dev) -> None:
    """After SIGKILL of the worker another takes over: sockets stay, nothing sent meanwhile is lost or doubled."""
    await dev.start()
    async with dev.enter("ada") as ada, dev.enter("bob") as bob:
        await heard(bob, type="members", names=["ada", "bob"])
        await say(ada, "before")
        await heard(bob, text="before")
        (worker,) = dev.pids("worker")
        os.kill(worker, signal.SIGKILL)
        for number in range(5):
            await say(ada, f"meanwhile {number}")
        for number in range(5):
            assert (await heard(bob, type="message"))["text"] == f"meanwhile {number}"
        await dev.until("worker ended (exit code 137): starting it again in 0.1 s")
        await say(bob, "after")
        await heard(ada, text="after")


async def test_saving_reloads_the_rooms(dev: Dev) -> None:
    """Saving the rooms' file changes what they do, on the sockets that are open."""
    await dev.start()
    async with dev.enter("ada") as ada:
        for change in ("one", "two"):
            code = EXAMPLE.read_text().replace('str(message["text"])', f'str(message["text"]) + " {change}"')
            (old,) = dev.pids("worker")
            dev.rooms.write_text(code)
            await dev.replaced("worker", old)
            await say(ada, "hello")
            await heard(ada, type="message", text=f"hello {change}")
        await eventually(lambda: dev.output().count("Reloaded (chat.py).") == 2, dev.output)


async def test_mistake_keeps_the_old_code(dev: Dev) -> None:
    """A file with a syntax error is shown as such and changes nothing; mended, it is reloaded."""
    await dev.start()
    async with dev.enter("ada") as ada:
        dev.rooms.write_text("class Chat(:\n")
        await dev.until("Not reloaded (chat.py): the old code goes on.")
        assert "SyntaxError" in dev.output()
        await say(ada, "hello")
        await heard(ada, text="hello")
        dev.rooms.write_text(EXAMPLE.read_text())
        await dev.until("Reloaded (chat.py).")
        await say(ada, "again")
        await heard(ada, text="again")


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_asked_to_stop_it_leaves_nothing(dev: Dev, signal_number: signal.Signals) -> None:
    """SIGTERM, Ctrl-C and a closed terminal end every process; the exit code is 0 and open sockets may come back."""
    await dev.start()
    async with dev.enter("ada") as ada:
        await heard(ada, type="members")
        os.killpg(dev.child.pid, signal_number)
        assert await dev.child.wait() == 0
        await ada.wait_closed()
        assert ada.close_code == 1012
    assert processes_with(dev.mark) == []


async def test_killed_it_leaves_nothing(dev: Dev) -> None:
    """After SIGKILL of the parent every process ends by itself, and the next start works on the same rooms."""
    await dev.start()
    async with dev.enter("ada") as ada:
        await say(ada, "kept")
        await heard(ada, text="kept")
        dev.child._process.kill()
    await dev.start()
    async with dev.enter("bob") as bob:
        history = await heard(bob, type="history")
        assert [message["text"] for message in history["messages"]] == ["kept"]
    dev.child._process.kill()
    await dev.child.wait()
    await dev.all_gone()


async def test_rooms_survive_a_restart_of_everything(dev: Dev) -> None:
    """What was said is there after everything was stopped and started."""
    for said in ([], ["first"], ["first", "second"]):
        await dev.start()
        async with dev.enter("ada") as ada:
            history = await heard(ada, type="history")
            assert [message["text"] for message in history["messages"]] == said
            await say(ada, ["first", "second", "third"][len(said)])
            await heard(ada, type="message")
        assert await dev.child.stop() == 0


async def test_killed_valkey_comes_back_with_its_rooms(dev: Dev) -> None:
    """After SIGKILL of the server another serves the same rooms on the same port."""
    await dev.start()
    async with dev.enter("ada") as ada:
        await say(ada, "kept")
        await heard(ada, text="kept")
        await dev.kill("--appendonly")
        await say(ada, "after")
        await heard(ada, text="after")
    async with dev.enter("bob") as bob:
        history = await heard(bob, type="history")
        assert [message["text"] for message in history["messages"]] == ["kept", "after"]


async def test_dev_asks_for_tokens_where_it_is_told_to(dev: Dev, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --auth jwt its edge lets in nobody without a token."""
    secret = "s" * 32
    monkeypatch.setenv("INNKEEPER_JWT_SECRET", secret)
    monkeypatch.setenv("INNKEEPER_JWT_AUDIENCE", "here")
    await dev.start("--auth", "jwt")
    with pytest.raises(InvalidStatus, match="401"):
        async with dev.enter("ada"):
            pass
    claims = {"sub": "1", "name": "ada", "aud": "here", "exp": time.time() + 60, "rooms": ["chat/*"]}
    async with dev.enter(f"x&token={jwt.encode(claims, secret)}") as ada:
        assert (await heard(ada, type="members"))["names"] == ["ada"]


async def test_killed_edge_comes_back_on_its_port(dev: Dev) -> None:
    """After SIGKILL of the edge another listens where the first did."""
    await dev.start()
    async with dev.enter("ada") as ada:
        await heard(ada, type="members")
        await dev.kill("edge")
        await ada.wait_closed()

    async def can_enter() -> bool:
        try:
            async with dev.enter("ada") as ada:
                await say(ada, "back")
                await heard(ada, text="back")
        except (OSError, InvalidStatus):  # not listening yet, or not connected to Redis yet
            return False
        return True

    async with asyncio.timeout(20):
        while not await can_enter():  # noqa: ASYNC110 - there is no event for a port that begins to listen
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "message"), [("class Chat(:\n", "SyntaxError"), ("x = 1\n", "no Room class in it"), (None, "chat.py")]
)
async def test_target_that_cannot_be_loaded(dev: Dev, code: str | None, message: str) -> None:
    """A target that cannot be loaded at first start is shown, everything is stopped, and the exit code is 4."""
    if code is None:
        dev.rooms.unlink()
    else:
        dev.rooms.write_text(code)
    with pytest.raises(BootFailed) as caught:
        await dev.start()
    assert caught.value.exit_code == 4
    assert message in dev.output()
    assert processes_with(dev.mark) == []


async def test_taken_port(dev: Dev) -> None:
    """A port that somebody listens on is named, nothing is started, and the exit code is 5."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BootFailed) as caught:
            await dev.start("--port", str(port))
    assert caught.value.exit_code == 5
    message = f"cannot listen on 127.0.0.1 port {port}: the port is taken; choose another with --port (0 picks one)"
    assert dev.output() == f"innkeeper: {message}\n"


async def test_data_folder_serves_one_house(dev: Dev) -> None:
    """A second house on the same folder is refused and does not disturb the first."""
    await dev.start()
    first = dev.child
    with pytest.raises(BootFailed):
        await dev.start()
    assert f"is in use by another innkeeper dev (process {first.pid})" in dev.output()
    assert first.running
    await first.stop()


async def test_missing_server_program(dev: Dev) -> None:
    """A server program that does not exist is named, and the exit code is 3."""
    with pytest.raises(BootFailed) as caught:
        await dev.start("--redis-server", "/nonexistent/valkey-server")
    assert caught.value.exit_code == 3
    assert dev.output() == "innkeeper: --redis-server /nonexistent/valkey-server: no such program\n"


async def test_existing_server_is_used(dev: Dev, tmp_path: Path) -> None:
    """With --redis no server is started, and the one given is left running."""
    await dev.start()
    url = f"redis://127.0.0.1:{dev.child.facts['redis_port']}/0"
    folder = tmp_path / "second"
    folder.mkdir()
    second = Dev(folder)
    with none_left(second.mark):
        await second.start("--redis", url)
        assert f"Redis: {url}\n" in second.output()
        assert second.pids("--appendonly") == []
        async with dev.enter("ada") as ada, second.enter("bob") as bob:
            await heard(ada, names=["ada", "bob"])
            await say(bob, "from the other house")
            await heard(ada, text="from the other house")
        assert await second.child.stop() == 0
    assert len(dev.pids("--appendonly")) == 1
