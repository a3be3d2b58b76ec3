"""Opened models live in sealed memory only, are wiped on close, and sealing needs little memory."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sealed_kit import PLAIN, memory_files, noise, seal
from test_sealed_directory import seal as seal_folder

from cloister.errors import Unavailable, UsageError
from cloister.sealed.memfd import MemoryFile
from cloister.sealed.pages import Lane, Lanes, Pages

FILES = {"a.bin": noise(PLAIN * 2 + 9), "empty": b""}


def test_an_opened_file_cannot_be_changed_by_anybody() -> None:
    with seal(FILES).open() as opened:
        path = opened.fd_path("a.bin")
        assert Path(path).read_bytes() == FILES["a.bin"]
        assert opened.view("a.bin").readonly
        for change in (
            lambda fd: os.pwrite(fd, b"x", 0),
            lambda fd: os.ftruncate(fd, 0),
            lambda fd: os.ftruncate(fd, 1 << 20),
            lambda fd: mmap.mmap(fd, 10, access=mmap.ACCESS_WRITE),
            lambda fd: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
        ):
            fd = int(path.rpartition("/")[2])
            with pytest.raises(OSError) as caught:  # noqa: PT011 - PermissionError or EBUSY by kernel
                change(fd)
            assert caught.value.errno in (errno.EPERM, errno.EACCES, errno.EBUSY)
        assert bytes(opened.view("a.bin")) == FILES["a.bin"]


def test_opened_files_are_left_out_of_core_dumps() -> None:
    with seal(FILES).open() as opened:
        view = opened.view("a.bin")
        assert view[0] == FILES["a.bin"][0]
        found = 0
        for block in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()):
            if "memfd:cloister" in block:
                assert re.search(r"VmFlags:.*\bdd\b", block), block
                found += 1
        assert found == 2  # the reader's mapping and the eraser's
        view.release()


def test_close_zeroes_even_what_somebody_still_holds() -> None:
    opened = seal(FILES).open()
    view = opened.view("a.bin")
    other = os.dup(int(opened.fd_path("a.bin").rpartition("/")[2]))
    assert bytes(view) == FILES["a.bin"]
    opened.close()
    opened.close()
    assert not any(view)
    assert os.pread(other, 1 << 20, 0) == bytes(len(FILES["a.bin"]))
    os.close(other)
    view.release()
    for use in (lambda: opened.view("a.bin"), lambda: opened.fd_path("a.bin"), lambda: opened.view("empty")):
        with pytest.raises(UsageError, match="closed"):
            use()


PAGE = 4096
SPARSE = 64 << 20


def sparse() -> tuple[MemoryFile, int]:
    """Return a sealed file of which three pages were written, and a descriptor that outlives it."""
    memory = MemoryFile(SPARSE + 5, huge=False)
    for at in (0, 20 * PAGE + 7, SPARSE + 1):
        memory.write(at, memoryview(b"data"))
    memory.seal()
    return memory, os.dup(memory.fd)


def test_close_takes_no_memory_to_zero_what_was_never_written() -> None:
    memory, fd = sparse()
    try:
        before = os.fstat(fd).st_blocks
        memory.close()
        assert os.fstat(fd).st_blocks == before < SPARSE // 512 // 4
        assert os.pread(fd, 30 * PAGE, 0) == bytes(30 * PAGE)
        assert os.pread(fd, 100, SPARSE) == bytes(5)
    finally:
        os.close(fd)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_where_the_kernel_does_not_say_what_was_written_everything_is_zeroed(
    monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    memory, fd = sparse()
    seek, calls = os.lseek, iter(range(1, 9))

    def fail(fd: int, at: int, how: int) -> int:
        if next(calls) == failing:
            raise OSError(errno.EINVAL, "Invalid argument")
        return seek(fd, at, how)

    try:
        monkeypatch.setattr(os, "lseek", fail)
        memory.close()
        monkeypatch.undo()
        assert not any(os.pread(fd, SPARSE, 0))
        assert os.pread(fd, 100, SPARSE) == bytes(5)
    finally:
        os.close(fd)


def test_a_file_that_was_never_written_is_closed_without_a_page() -> None:
    memory = MemoryFile(SPARSE, huge=False)
    memory.seal()
    fd = os.dup(memory.fd)
    try:
        memory.close()
        assert os.fstat(fd).st_blocks == 0
    finally:
        os.close(fd)


def test_names_of_model_and_files_show_nowhere_in_proc() -> None:
    before = memory_files()
    with seal({"CANARY-name.bin": b"x"}).open():
        assert memory_files() > before
        assert "CANARY" not in Path("/proc/self/maps").read_text()


def test_unknown_files_are_our_callers_fault() -> None:
    with seal(FILES).open() as opened:
        for use in (opened.view, opened.fd_path, lambda path: opened.read(path, 0, 1)):
            with pytest.raises(UsageError, match="no file"):
                use("../a.bin")


def test_a_memory_file_is_read_only_after_sealing_and_refuses_absurd_sizes() -> None:
    before = memory_files()
    with MemoryFile(10) as memory:
        memory.write(0, memoryview(b"0123456789"))
        with pytest.raises(UsageError):
            memory.view()
        memory.seal()
        with pytest.raises(Unavailable):
            memory.write(0, memoryview(b"x"))
        with pytest.raises(Unavailable):
            memory.seal()
        assert bytes(memory.view()) == b"0123456789"
    for size in (1 << 62, 1 << 63):
        with pytest.raises(Unavailable):
            MemoryFile(size)
    assert memory_files() == before


def test_pages_are_aligned_zeroed_and_left_out_of_core_dumps() -> None:
    pages = Pages(5000)
    part = pages.view[:10]
    part[:] = b"plaintext!"
    pages.close()
    pages.close()
    assert bytes(part) == bytes(10)  # a part still held shows zeros
    part.release()


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_lanes_do_every_segment_once(count: int) -> None:
    done: list[int] = []
    reports: list[int] = []
    with Lanes(4096) as lanes:
        for _ in range(2):  # lanes are used again for the next file
            lanes.run(count, lambda index, _: done.append(index), reports.append)
    assert sorted(done) == sorted([*range(count), *range(count)])
    assert reports.count(count) >= 2


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_an_error_in_either_lane_stops_both(bad: int) -> None:
    done: list[int] = []

    def work(index: int, lane: Lane) -> None:
        lane.text[0] = 1
        if index == bad:
            msg = "boom"
            raise RuntimeError(msg)
        done.append(index)

    with Lanes(4096) as lanes:
        with pytest.raises(RuntimeError, match="boom"):
            lanes.run(100_000, work, lambda _: None)
        assert len(done) < 100_000
        lanes.run(3, lambda index, _: done.append(index), lambda _: None)


_CHILD = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from sealed_kit import DEK, PUBLISHER
from cloister.sealed.directory import DirectorySource, read_package
from cloister.sealed.open import RandomAccess, open_model, verify_manifest
root = Path("sealed")
parts = read_package(root)
verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
opened = open_model(DirectorySource(root), verified, DEK)
access = RandomAccess(DirectorySource(root), verified, DEK, "model.bin")
access._segment(1)  # its plaintext now lies in the reader's own pages
print("opened", flush=True)
sys.stdin.readline()
opened.close()
access.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def _needles(pid: int, needle: bytes) -> int:
    """Count ``needle`` in all memory of another process."""
    count = 0
    try:
        memory = Path(f"/proc/{pid}/mem").open("rb", buffering=0)  # noqa: SIM115 - closed below
    except PermissionError:
        pytest.skip("this system lets nobody read the memory of a child process")
    with memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, _, end = line.split()[0].partition("-")
            try:
                memory.seek(int(start, 16))
                count += memory.read(int(end, 16) - int(start, 16)).count(needle)
            except (OSError, OverflowError):
                continue  # the kernel's own pages
    return count


def test_t26_no_plaintext_is_left_in_the_process_after_close(tmp_path: Path) -> None:
    needle = b"CANARY-of-the-weights"
    (tmp_path / "model.bin").write_bytes(needle * 500)
    seal_folder(tmp_path / "model.bin", tmp_path / "sealed")
    child = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", _CHILD.format(path=sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "opened\n"
        assert _needles(child.pid, needle) >= 500, "the search sees nothing"
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "closed\n"
        assert _needles(child.pid, needle) == 0
        child.stdin.write("\n")
        child.stdin.flush()


_GROWTH = """
import resource, sys
from pathlib import Path
sys.path[:0] = {path!r}
from test_sealed_directory import seal
from cloister.sealed.directory import DirectorySource, read_package
from cloister.sealed.open import RandomAccess, verify_manifest
from sealed_kit import DEK, PUBLISHER
size = 96 << 20
with open("model.bin", "wb") as file:
    file.truncate(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seal(Path("model.bin"), Path("sealed"), segment_bytes=1 << 20)
parts = read_package(Path("sealed"))
verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
with RandomAccess(DirectorySource(Path("sealed")), verified, DEK, "model.bin") as access:
    for offset in range(0, size - 100, 5 << 20):
        assert access.read(offset, 100) == bytes(100)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""


def test_sealing_and_random_access_take_a_few_mebibytes_at_any_size(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", _GROWTH.format(path=sys.path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert int(done.stdout) < 16 << 20
