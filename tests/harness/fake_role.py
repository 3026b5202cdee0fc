"""A role that only keeps the contract; its folder says how it behaves and takes a journal of what it did.

Run as ``fake_role.py ROLE --folder FOLDER ...``. Files in the folder: ``fail`` (exit code; ends before it is ready),
``mute`` (never says that it is ready), ``stubborn`` (ignores SIGTERM).
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from innkeeper.supervise.role import announce_ready, follow_parent


def main() -> NoReturn:
    """Do what the folder says, then wait for SIGTERM."""
    folder = Path(sys.argv[sys.argv.index("--folder") + 1])
    follow_parent(grace_s=1.0)
    write(folder, "boot")
    if (folder / "fail").exists():
        sys.exit(int((folder / "fail").read_text()))
    stopped = signal.SIG_IGN if (folder / "stubborn").exists() else lambda *_: stop(folder)
    signal.signal(signal.SIGTERM, stopped)
    signal.signal(signal.SIGINT, lambda *_: write(folder, "int"))
    write(folder, "ready")
    if not (folder / "mute").exists():
        announce_ready(port=4711)
    while True:
        signal.pause()


def stop(folder: Path) -> NoReturn:
    """End as a role does that was asked to."""
    write(folder, "term")
    sys.exit(0)


def write(folder: Path, event: str) -> None:
    """Append one line to the journal; short appends of several processes do not mix."""
    line = json.dumps([event, os.getpid(), sys.argv[1:]]) + "\n"
    with (folder / "journal").open("a") as journal:
        journal.write(line)


if __name__ == "__main__":
    main()
