"""No process outlives the tests that started it, not even where the tests are killed.

Each process of pytest (the workers too) has a keeper beside it: this file, run as a script, in a session of its own.
Every ``subprocess.Popen`` tells the keeper which process it has started. Once pytest is gone, in whatever way, the
keeper kills what is left: the processes it was told of, all in their process groups and sessions, and what they
started in turn. Whoever starts a process in another way, or one that leaves its family as a daemon does, says so with
``hold``. Linux only: elsewhere nothing is watched. Folders are left behind.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_SWEEPS = 50  # looks for what a dying process has just started, at most
_PAUSE_S = 0.02
_keeper: int | None = None  # where the keeper listens


class _Leashed(subprocess.Popen[Any]):
    """A child that the keeper knows of."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        hold(self.pid)


def watch() -> None:
    """Start this process's keeper and tell it of every child from now on; a second call does nothing."""
    global _keeper
    if _keeper is not None or not Path("/proc/self/stat").exists():
        return
    reading, _keeper = os.pipe()  # neither is inherited by children
    words = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    # In a session of its own no Ctrl-C reaches it. Nobody waits for it: it ends after us.
    os.posix_spawn(words[0], words, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0)], setsid=True)
    os.close(reading)
    subprocess.Popen = _Leashed  # type: ignore[misc]


def hold(pid: int) -> None:
    """Tell the keeper of a process; nothing where there is no keeper."""
    if _keeper is not None:
        with contextlib.suppress(BrokenPipeError):  # somebody ended the keeper
            os.write(_keeper, b"%d\n" % pid)


# the keeper


def _all() -> dict[int, tuple[int, int, int, int]]:
    """Return parent, process group, session and start of every process there is."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            words = path.read_text(errors="replace").rpartition(")")[2].split()
            if words[0] not in "ZX":
                found[int(path.parent.name)] = (int(words[1]), int(words[2]), int(words[3]), int(words[19]))
    return found


def _began(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    return None


def _family(held: dict[int, int]) -> set[int]:
    """Return what is left of the processes held (each with its start: numbers are used again) and of their kin."""
    everybody = _all()
    mine = os.getpid()
    left = {
        pid
        for pid, (_, group, session, began) in everybody.items()
        if held.get(pid) == began or _leads(held, everybody, group) or _leads(held, everybody, session)
    }
    while more := {pid for pid, (parent, *_) in everybody.items() if parent in left} - left:
        left |= more
    return left - {mine}


def _leads(held: dict[int, int], everybody: dict[int, tuple[int, int, int, int]], number: int) -> bool:
    """Tell whether a process that we held leads this group or session, or led it.

    Its number is not used again while others are in the group; where it is somebody else's, the start differs.
    """
    return number in held and (number not in everybody or everybody[number][3] == held[number])


def _until_gone(parent: int) -> dict[int, int]:
    """Take in whom to hold until ``parent`` has ended, or closed its end; return them."""
    held: dict[int, int] = {}
    watched: list[int] = [0]
    if hasattr(os, "pidfd_open"):  # the pipe alone would be held open by a copy of our parent
        with contextlib.suppress(OSError):
            watched.append(os.pidfd_open(parent))
    rest = b""
    while True:
        ready = select.select(watched, [], [])[0]
        data = os.read(0, 65536) if 0 in ready else b""
        *lines, rest = (rest + data).split(b"\n")
        for pid in map(int, lines):
            began = _began(pid)
            if began is not None:
                held[pid] = began
        if not data:
            return held


def main() -> int:
    """Keep watch over the process named on the command line."""
    held = _until_gone(int(sys.argv[1]))
    for _ in range(_SWEEPS):
        left = _family(held)
        if not left:
            return 0
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)
    return 1


if __name__ == "__main__":
    sys.exit(main())
