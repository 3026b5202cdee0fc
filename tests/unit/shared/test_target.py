"""TARGETs: what a worker can be told to serve, and what it says otherwise."""

import sys
from pathlib import Path

import pytest

from innkeeper.errors import TargetInvalid
from innkeeper.target import load_rooms

ROOMS = """
from innkeeper import Room
class Chat(Room): pass
class Poll(Room): kind = "votes"
NOT_A_ROOM = 1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of the test's own; imports of the test are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    return tmp_path


def write(folder: Path, name: str, text: str = ROOMS) -> str:
    """Write a file; return its path."""
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return str(path)


def test_a_file(folder: Path) -> None:
    """A file serves the Room classes it defines, not those it imports."""
    write(folder, "base_rooms.py", "from innkeeper import Room\nclass Base(Room): pass\n")
    path = write(folder, "rooms_a.py", f"from base_rooms import Base\n{ROOMS}")
    rooms = load_rooms((path,))
    assert {kind: room.__name__ for kind, room in rooms.items()} == {"chat": "Chat", "votes": "Poll"}


def test_a_file_by_a_relative_path(folder: Path) -> None:
    """A path is taken from the working directory; the file may import its neighbours."""
    write(folder, "sub/neighbour_n.py", "WORD = 'x'\n")
    write(folder, "sub/rooms_b.py", f"from neighbour_n import WORD\n{ROOMS}")
    assert set(load_rooms(("sub/rooms_b.py",))) == {"chat", "votes"}


def test_a_module(folder: Path) -> None:
    """A dotted name is imported, from the working directory too."""
    write(folder, "pkg_c/__init__.py", "")
    write(folder, "pkg_c/rooms.py")
    assert set(load_rooms(("pkg_c.rooms",))) == {"chat", "votes"}


def test_a_class_of_a_module_or_file(folder: Path) -> None:
    """With a colon only that class is served; a class may be imported from elsewhere then."""
    path = write(folder, "rooms_d.py")
    write(folder, "again_d.py", "from rooms_d import Poll\n")
    assert set(load_rooms((f"{path}:Chat",))) == {"chat"}
    assert set(load_rooms(("again_d:Poll",))) == {"votes"}


def test_a_file_named_like_a_module(folder: Path) -> None:
    """A file may be called like something imported already."""
    path = write(folder, "json.py")
    assert set(load_rooms((path,))) == {"chat", "votes"}
    assert "dumps" in dir(sys.modules["json"])


def test_several_targets(folder: Path) -> None:
    """Targets add up, and naming one class twice is no conflict."""
    write(folder, "rooms_e.py")
    write(folder, "more_e.py", "from innkeeper import Room\nclass More(Room): pass\n")
    assert set(load_rooms(("rooms_e", "rooms_e:Chat", "more_e"))) == {"chat", "votes", "more"}


def test_two_classes_of_one_kind(folder: Path) -> None:
    """Who serves a kind must be clear: the text names both."""
    write(folder, "rooms_f.py")
    write(folder, "other_f.py")
    with pytest.raises(TargetInvalid, match=r"other_f: kind 'chat' is taken by rooms_f\.Chat"):
        load_rooms(("rooms_f", "other_f"))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nosuchmodule_g", "no module named 'nosuchmodule_g'"),
        ("nosuch_g/file.py", "nosuch_g/file.py: no such file"),
        (".", "cannot be loaded"),
        ("", "cannot be loaded"),
        ("rooms_g:Nobody", "no Room class 'Nobody' in rooms_g"),
        ("rooms_g:NOT_A_ROOM", "no Room class 'NOT_A_ROOM'"),
        ("rooms_g:", "no Room class ''"),
        ("empty_g", "empty_g: no Room class in it"),
        ("broken_g.py", "SyntaxError"),
        ("broken_g", "SyntaxError"),
        ("raising_g.py", "ZeroDivisionError"),
        ("needing_g.py", "no module named 'nosuchmodule_g'"),
        ("badkind_g", "must match"),
    ],
)
def test_what_cannot_be_loaded(folder: Path, target: str, text: str) -> None:
    """Whatever is wrong with a TARGET, the error names it and the reason, with the line where it helps."""
    write(folder, "rooms_g.py")
    write(folder, "empty_g.py", "from innkeeper import Room\n")
    write(folder, "broken_g.py", "class Chat(Room:\n")
    write(folder, "raising_g.py", "def f():\n    return 1 / 0\nf()\n")
    write(folder, "needing_g.py", "import nosuchmodule_g\n")
    write(folder, "badkind_g.py", "from innkeeper import Room\nclass Chat(Room): kind = 'No Good'\n")
    with pytest.raises(TargetInvalid) as caught:
        load_rooms((target,))
    assert text in str(caught.value)
    assert target.partition(":")[0] in str(caught.value)
