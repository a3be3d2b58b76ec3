"""What tests start ends with them: a pytest that is killed leaves no process behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# A child; a child's children, in a session of their own; one whose parent has left; a daemon that we say we hold.
TESTS = """
import subprocess, sys, time
import leash
leash.watch()
if "loose" in sys.argv:
    leash._keeper = None
pids = []
pids.append(subprocess.Popen(["sleep", "600"]).pid)
apart = {"stdout": subprocess.PIPE, "start_new_session": True}
shell = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], **apart)
pids += [shell.pid, int(shell.stdout.readline())]
gone = subprocess.Popen(["sh", "-c", "sleep 600 >&2 & echo $!; sleep 0.5"], **apart)
pids.append(int(gone.stdout.readline()))
gone.wait()
daemon = subprocess.Popen(["setsid", "-f", "sh", "-c", "echo $$; exec >&2; exec sleep 600"], stdout=subprocess.PIPE)
pids.append(int(daemon.stdout.readline()))
leash.hold(pids[-1])
print(*pids, flush=True)
if "stay" in sys.argv:
    time.sleep(60)
"""


def _start(*words: str) -> tuple[subprocess.Popen[str], list[int]]:
    """Start what stands for a run of tests; return it and the processes it has started."""
    run = subprocess.Popen(  # noqa: S603 - our own text
        [sys.executable, "-c", TESTS, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=HERE,
        text=True,
    )
    assert run.stdout is not None
    with run.stdout:  # what is left behind may hold it open
        return run, [int(word) for word in run.stdout.readline().split()]


def _alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(pid)
    return found


def _left(pids: list[int], within_s: float) -> list[int]:
    end = time.monotonic() + within_s
    while _alive(pids) and time.monotonic() < end:
        time.sleep(0.02)
    return _alive(pids)


@pytest.mark.skipif(sys.platform != "linux", reason="the keeper reads /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_a_run_that_is_killed_interrupted_or_over_leaves_nobody_behind(end: signal.Signals | None) -> None:
    run, pids = _start("stay" if end else "go")
    assert len(pids) == 5
    with subprocess.Popen(["sleep", "600"]) as bystander:  # noqa: S607 - like the others, and nobody's of that run
        if end is not None:
            assert _alive(pids) == pids
            run.send_signal(end)
        run.wait(timeout=20)
        assert _left(pids, within_s=10) == []
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="the keeper reads /proc")
def test_without_its_keeper_the_same_run_leaves_all_of_them() -> None:
    """The test above can fail."""
    run, pids = _start("stay", "loose")
    try:
        run.kill()
        run.wait(timeout=20)
        assert _left(pids, within_s=1) == pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
