"""Supervision of real processes: the roles are fakes that only keep the contract."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from harness.processes import alive, eventually, none_left, processes_with
from innkeeper.errors import PortTaken
from innkeeper.supervise import Backoff, BootFailed, Child, Keeper, Program, announce_ready, reserve_port

FAKE_ROLE = str(Path(__file__).parent.parent / "harness" / "fake_role.py")
FAST = Backoff(first_s=0.01, longest_s=0.05)
POOL = """
import logging, sys
from innkeeper.supervise import Backoff, run_processes
logging.basicConfig(level="INFO")
folder, count = sys.argv[1:]
sys.exit(run_processes(["worker", "--folder", folder], int(count), command=[sys.executable, %r],
                       backoff=Backoff(first_s=0.01)))
"""


class Stage:
    """The folder of a fake role and what its processes did there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"INNKEEPER_TEST={folder}"

    def program(self, **changes: Any) -> Program:
        """Return the fake role as a program."""
        arguments = [sys.executable, FAKE_ROLE, "worker", "--folder", str(self.folder)]
        environment = {"INNKEEPER_TEST": str(self.folder)}
        return Program(**{"name": "fake", "arguments": arguments, "environment": environment, **changes})

    def journal(self) -> list[tuple[str, int]]:
        """Return the events with their processes, in order."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(event, pid) for event, pid, _ in map(json.loads, lines)]

    def pids(self, event: str) -> list[int]:
        """Return the processes that had an event, in order."""
        return [pid for name, pid in self.journal() if name == event]

    async def until(self, event: str, count: int) -> list[int]:
        """Wait until an event was seen that often; return its processes."""
        await eventually(lambda: len(self.pids(event)) >= count, self.journal)
        return self.pids(event)

    async def pool(self, count: int) -> asyncio.subprocess.Process:
        """Start a parent of some fake roles, in a process of its own."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", POOL % FAKE_ROLE, str(self.folder), str(count)),
            env={**os.environ, "INNKEEPER_TEST": str(self.folder)},
            start_new_session=True,
        )


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Yield a stage; whatever a failing test leaves running on it is killed."""
    stage = Stage(tmp_path)
    with none_left(stage.mark):
        yield stage


async def test_child_is_ready_when_it_says_so(stage: Stage) -> None:
    """A started child has announced itself, with its facts."""
    child = await Child.start(stage.program())
    assert child.facts == {"ready": True, "port": 4711}
    assert await child.stop() == 0
    assert not alive(child.pid)


async def test_failed_boot_has_the_exit_code(stage: Stage) -> None:
    """A program that ends before it is ready is reported with its own exit code."""
    (stage.folder / "fail").write_text("4")
    with pytest.raises(BootFailed, match="fake ended before it was ready") as caught:
        await Child.start(stage.program())
    assert caught.value.exit_code == 4


async def test_missing_program_fails_to_boot() -> None:
    """A command that does not exist is a failed boot, not a traceback of ours."""
    with pytest.raises(BootFailed, match="cannot be started: No such file"):
        await Child.start(Program(name="ghost", arguments=["/nonexistent"]))


async def test_silent_child_is_ended(stage: Stage) -> None:
    """A child that is not ready in time is gone when the failure is reported."""
    (stage.folder / "mute").touch()
    with pytest.raises(BootFailed, match=r"fake was not ready after 1 s"):
        await Child.start(stage.program(ready_within_s=1.0))
    assert processes_with(stage.mark) == []


async def test_cancelled_start_leaves_nothing(stage: Stage) -> None:
    """Cancelling the wait for readiness ends the half-started child."""
    (stage.folder / "mute").touch()
    start = asyncio.create_task(Child.start(stage.program()))
    await stage.until("ready", 1)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert processes_with(stage.mark) == []


async def test_child_that_ignores_sigterm_is_killed(stage: Stage) -> None:
    """After the grace a child is killed, and the exit code says by which signal."""
    (stage.folder / "stubborn").touch()
    child = await Child.start(stage.program())
    assert await child.stop(grace_s=0.1) == 128 + signal.SIGKILL
    assert not alive(child.pid)


async def test_foreign_program_is_asked_until_ready(stage: Stage) -> None:
    """A program that does not announce itself is ready when the probe says yes, and does not see our contract."""
    log_path = stage.folder / "log"

    async def has_written() -> bool:
        return log_path.exists() and b"started" in log_path.read_bytes()

    code = "import os, time; print('started', 'INNKEEPER_READY_FD' in os.environ, flush=True); time.sleep(60)"
    program = stage.program(arguments=[sys.executable, "-c", code], probe=has_written, log_path=log_path)
    child = await Child.start(program)
    assert log_path.read_text() == "started False\n"
    assert await child.stop() == 128 + signal.SIGTERM


async def test_foreign_program_that_ends_fails_to_boot(stage: Stage) -> None:
    """A program that ends while it is asked whether it is ready is a failed boot."""

    async def never() -> bool:
        return False

    with pytest.raises(BootFailed, match="fake ended before it was ready") as caught:
        await Child.start(stage.program(arguments=[sys.executable, "-c", "raise SystemExit(7)"], probe=never))
    assert caught.value.exit_code == 7


async def test_crashed_child_is_started_again(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """A killed child is followed by a new one, and the log says so."""
    keeper = Keeper(stage.program(), backoff=FAST)
    first = await keeper.start()
    os.kill(first.pid, signal.SIGKILL)
    await stage.until("ready", 2)
    await eventually(lambda: keeper.restarts_count == 1, lambda: keeper.restarts_count)
    assert keeper.child.pid == stage.pids("ready")[-1] != first.pid
    assert "fake ended (exit code 137): starting it again in 0.0 s" in caplog.text
    await keeper.stop()
    assert processes_with(stage.mark) == []


async def test_failed_restarts_are_repeated(stage: Stage) -> None:
    """A child that cannot be started again is tried until it can."""
    keeper = Keeper(stage.program(), backoff=FAST)
    first = await keeper.start()
    (stage.folder / "fail").write_text("1")
    os.kill(first.pid, signal.SIGKILL)
    await stage.until("boot", 4)
    (stage.folder / "fail").unlink()
    await stage.until("ready", 2)
    await eventually(lambda: keeper.child.running, stage.journal)
    await keeper.stop()


async def test_successor_is_ready_before_the_old_child_ends(stage: Stage) -> None:
    """A replacement leaves no moment without a ready child."""
    keeper = Keeper(stage.program(), backoff=FAST)
    old = await keeper.start()
    new = await keeper.replace()
    assert [event for event in stage.journal() if event[0] != "boot"] == [
        ("ready", old.pid),
        ("ready", new.pid),
        ("term", old.pid),
    ]
    assert keeper.child is new
    os.kill(new.pid, signal.SIGKILL)  # the successor is watched as its predecessor was
    await stage.until("ready", 3)
    await keeper.stop()


async def test_failed_successor_leaves_the_old_child(stage: Stage) -> None:
    """A successor that fails to boot disturbs nothing."""
    keeper = Keeper(stage.program(), backoff=FAST)
    old = await keeper.start()
    (stage.folder / "fail").write_text("4")
    with pytest.raises(BootFailed):
        await keeper.replace()
    assert keeper.child is old
    assert old.running
    assert stage.pids("term") == []
    await keeper.stop()


async def test_stop_during_a_replacement_ends_both(stage: Stage) -> None:
    """Stopping while the old child is still leaving ends it and its successor."""
    (stage.folder / "stubborn").touch()
    keeper = Keeper(stage.program(), backoff=FAST, grace_s=0.5)
    await keeper.start()
    replacing = asyncio.create_task(keeper.replace())
    await eventually(lambda: len(stage.pids("ready")) == 2, stage.journal)
    replacing.cancel()
    await asyncio.gather(replacing, return_exceptions=True)
    await keeper.stop()
    assert processes_with(stage.mark) == []


def test_waits_double_up_to_a_limit() -> None:
    """The waits between starts double from 0.1 s to 5 s, and stay there for ever."""
    backoff = Backoff()
    assert [backoff.delay_s(count) for count in range(1, 8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert backoff.delay_s(100_000) == 5.0


async def test_child_that_lived_long_counts_as_sound(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """After a long enough life the waits begin anew."""
    keeper = Keeper(stage.program(), backoff=Backoff(first_s=0.2, longest_s=60.0, reset_after_s=0.0))
    await keeper.start()
    for count in (1, 2, 3):
        os.kill(keeper.child.pid, signal.SIGKILL)
        await stage.until("ready", count + 1)
        await eventually(lambda: keeper.child.pid == stage.pids("ready")[-1], stage.journal)
    assert caplog.text.count("starting it again in 0.2 s") == 3
    await keeper.stop()


async def test_pool_stops_all_children(stage: Stage) -> None:
    """SIGTERM to the parent ends every child by SIGTERM, and its exit code is 0."""
    pool = await stage.pool(3)
    children = await stage.until("ready", 3)
    pool.send_signal(signal.SIGTERM)
    assert await pool.wait() == 0
    assert sorted(stage.pids("term")) == sorted(children)
    assert processes_with(stage.mark) == []


async def test_terminal_interrupt_reaches_only_the_parent(stage: Stage) -> None:
    """Ctrl-C, sent to the parent's whole group, is not seen by the children, who get SIGTERM."""
    pool = await stage.pool(2)
    await stage.until("ready", 2)
    os.killpg(pool.pid, signal.SIGINT)
    assert await pool.wait() == 0
    assert stage.pids("int") == []
    assert len(stage.pids("term")) == 2


async def test_pool_rolls_on_sighup(stage: Stage) -> None:
    """SIGHUP replaces the children one by one, each successor ready before its predecessor is asked to end."""
    pool = await stage.pool(2)
    old = await stage.until("ready", 2)
    pool.send_signal(signal.SIGHUP)
    await stage.until("term", 2)
    assert [event for event, _ in stage.journal() if event != "boot"] == [
        *("ready", "ready"),
        *("ready", "term"),
        *("ready", "term"),
    ]
    assert sorted(stage.pids("term")) == sorted(old)
    pool.send_signal(signal.SIGTERM)
    assert await pool.wait() == 0


async def test_pool_ends_with_the_exit_code_of_a_failed_boot(stage: Stage) -> None:
    """If the first child cannot boot, no second is tried and its exit code is the parent's."""
    (stage.folder / "fail").write_text("4")
    pool = await stage.pool(3)
    assert await pool.wait() == 4
    assert len(stage.pids("boot")) == 1


async def test_killed_parent_takes_its_children_along(stage: Stage) -> None:
    """After SIGKILL of the parent no child is left, not even one that ignores SIGTERM."""
    pool = await stage.pool(2)
    await stage.until("ready", 2)
    (stage.folder / "stubborn").touch()
    pool.send_signal(signal.SIGHUP)
    await stage.until("term", 2)
    pool.kill()
    await pool.wait()
    await eventually(lambda: not processes_with(stage.mark), lambda: processes_with(stage.mark))


def test_reserved_port_is_shared_with_listeners_only() -> None:
    """Connections to a reserved port reach the process that listens on it, never the one that holds it."""
    with reserve_port("127.0.0.1", 0) as held:
        address = held.getsockname()
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            listener.listen()
            for _ in range(20):
                with socket.create_connection(address, timeout=5), listener.accept()[0]:
                    pass


def test_shared_port_of_somebody_else_is_refused() -> None:
    """A port that somebody listens on is refused, even one that is shared, with the way out in the message."""
    with reserve_port("127.0.0.1", 0) as held:
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1 port {port}: the port is taken; choose another with --port"):
            reserve_port("127.0.0.1", port)


def test_foreign_host_is_refused() -> None:
    """An address of another machine is refused as a port is that cannot be had."""
    with pytest.raises(PortTaken, match=r"cannot listen on 192\.0\.2\.1 port 0"):
        reserve_port("192.0.2.1", 0)


def test_announcement_without_a_listener_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role started by hand announces to nobody, and one whose parent gave up does not fail for it."""
    announce_ready(port=1)
    reading_fd, writing_fd = os.pipe()
    os.close(reading_fd)
    monkeypatch.setenv("INNKEEPER_READY_FD", str(writing_fd))
    announce_ready(port=1)
    assert "INNKEEPER_READY_FD" not in os.environ
