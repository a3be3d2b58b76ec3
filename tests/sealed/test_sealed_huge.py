"""Huge pages are asked for where the kernel gives them; decrypting straight into them releases no more than before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from sealed_kit import PLAIN, SEGMENT, memory_files, noise, seal

from cloister.errors import Rejected
from cloister.sealed import huge, memfd
from cloister.sealed.huge import huge_pages
from cloister.sealed.memfd import MemoryFile
from cloister.sealed.pages import lane_count

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"a.bin": noise(PLAIN * 9 + 5), "b.bin": noise(PLAIN * 3, seed=2), "empty": b""}


def kernel(folder: Path, general: str, size: str | None, overcommit: str = "0") -> bool:
    """Ask a kernel with these settings."""
    words = "always inherit within_size advise never deny force"
    (folder / "shmem_enabled").write_text(words.replace(general, f"[{general}]") + "\n")
    if size is not None:
        (folder / "hugepages-2048kB").mkdir(exist_ok=True)
        (folder / "hugepages-2048kB" / "shmem_enabled").write_text(words.replace(size, f"[{size}]") + "\n")
    (folder / "overcommit").write_text(overcommit + "\n")
    return huge_pages(folder, folder / "overcommit")


@pytest.mark.parametrize(
    ("general", "size", "given"),
    [
        ("never", None, False),
        ("advise", None, True),
        ("within_size", None, True),
        ("always", "inherit", True),
        ("never", "inherit", False),
        ("never", "advise", True),
        ("always", "never", False),
        ("deny", "always", False),
        ("force", "never", True),
    ],
)
def test_huge_pages_are_known_from_what_the_kernel_says(
    tmp_path: Path, general: str, size: str | None, *, given: bool
) -> None:
    assert kernel(tmp_path, general, size) is given


def test_no_huge_pages_where_memory_is_counted_strictly_or_the_kernel_says_nothing(tmp_path: Path) -> None:
    assert not kernel(tmp_path, "always", "always", overcommit="2")
    assert not huge_pages(tmp_path / "none", tmp_path / "none")


def test_what_models_are_opened_into_is_said_in_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, word in ((True, "huge"), (False, "ordinary")):
        monkeypatch.setattr(huge, "huge_pages", lambda given=given: given)
        assert huge.memory_pages() == word


def test_memory_given_out_is_the_file_and_only_before_it_is_sealed() -> None:
    with MemoryFile(10_000, huge=True) as memory:
        room = memory.room(5000, 5)
        assert room is not None
        with room:
            room[:] = b"inner"
        memory.write(0, memoryview(b"outer"))
        memory.seal()
        assert memory.room(0, 1) is None
        with memory.view() as view:
            assert bytes(view[:5]) + bytes(view[5000:5005]) == b"outerinner"
    with MemoryFile(10_000, huge=False) as memory:
        assert memory.room(0, 1) is None
    with MemoryFile(0, huge=True) as memory:
        assert memory.room(0, 0) is None


def test_a_part_still_held_shows_zeros_after_close() -> None:
    memory = MemoryFile(10_000, huge=True)
    room = memory.room(0, 6)
    assert room is not None
    room[:] = b"secret"
    memory.close()
    assert bytes(room) == bytes(6)
    room.release()


@pytest.fixture(name="_straight")
def _straight_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memfd, "_HUGE_BYTES", 1)
    monkeypatch.setattr(memfd, "huge_pages", lambda: True)


@pytest.mark.usefixtures("_straight")
def test_a_model_decrypted_straight_into_its_memory_is_the_same_model() -> None:
    before = memory_files()
    with seal(FILES).open() as opened:
        assert {path: bytes(opened.view(path)) for path in opened.files} == FILES
        fd = int(opened.fd_path("a.bin").rpartition("/")[2])
        with pytest.raises(OSError, match="not permitted"):
            os.pwrite(fd, b"x", 0)
    assert memory_files() == before


@pytest.mark.usefixtures("_straight")
@pytest.mark.parametrize("segment", [0, 4, 9])
def test_t21_nothing_is_left_of_a_model_that_fails_at_any_segment(segment: int) -> None:
    model, before = seal(FILES), memory_files()
    damaged = bytearray(model.source.parts[model.blob("a.bin")])
    damaged[segment * SEGMENT + 20] ^= 1
    with pytest.raises(Rejected) as caught:
        model.edit(model.blob("a.bin"), bytes(damaged)).open()
    assert caught.value.code == "digest_mismatch"
    assert memory_files() == before


def test_there_is_a_lane_for_each_processor_but_none_without_a_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    for processors, segments, lanes in ((1, 100, 2), (1, 1, 1), (2, 100, 2), (8, 100, 8), (8, 3, 3), (128, 1000, 16)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, many=processors: set(range(many)))
        assert lane_count(segments) == lanes
