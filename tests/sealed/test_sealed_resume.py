"""A source that fails in the middle of a model is gone on with: what has passed is neither read nor decrypted again."""

from __future__ import annotations

import threading

import pytest
from sealed_kit import DEK, PLAIN, SEGMENT, MemorySource, memory_files, noise, seal

from cloister.errors import Rejected, Unavailable
from cloister.sealed import memfd
from cloister.sealed.open import open_model

FILES = {"a.bin": noise(PLAIN * 20 + 7), "b.bin": noise(PLAIN * 2, seed=2)}
MODEL = seal(FILES)
BLOB = MODEL.blob("a.bin")


class Breaking(MemorySource):
    """Goes away each time so many segments were read, and comes back."""

    def __init__(self, parts: dict[str, bytes], every: int) -> None:
        """Fail every so many reads of the bulk."""
        super().__init__(parts)
        self.every, self.count = every, 0
        self.served: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Return the bytes, or fail."""
        if name.endswith(".leaves"):
            return super().read(name, offset, size)
        with self._lock:
            self.count += 1
            if self.count % self.every == 0:
                msg = f"{name}: gone"
                raise Unavailable(msg)
            self.served.append((name, offset))
        return super().read(name, offset, size)


@pytest.mark.parametrize("straight", [False, True], ids=["written", "straight"])
@pytest.mark.parametrize("every", [2, 3, 7])
def test_what_has_passed_is_not_read_again(monkeypatch: pytest.MonkeyPatch, every: int, *, straight: bool) -> None:
    monkeypatch.setattr(memfd, "_HUGE_BYTES", 1)
    monkeypatch.setattr(memfd, "huge_pages", lambda: straight)
    source, asked, seen = Breaking(MODEL.source.parts, every), list[str](), list[int]()

    def again(error: Unavailable) -> bool:
        asked.append(error.message)
        return True

    def progress(done: int, _: int) -> None:
        seen.append(done)

    with open_model(source, MODEL.verified(), DEK, progress=progress, again=again) as opened:
        assert {path: bytes(opened.view(path)) for path in opened.files} == FILES
    assert asked
    assert all("gone" in message for message in asked)
    assert len(source.served) == len(set(source.served)) == 23, "a segment that had passed was read again"
    assert seen == sorted(seen)
    assert seen[-1] == sum(map(len, FILES.values()))


def test_without_a_yes_nothing_is_left() -> None:
    before, answers = memory_files(), [True, True, False]
    for again in (None, lambda _: answers.pop(0)):
        with pytest.raises(Unavailable, match="gone"):
            open_model(Breaking(MODEL.source.parts, 2), MODEL.verified(), DEK, again=again)
        assert memory_files() == before
    assert answers == []


def test_t21_a_source_that_comes_back_with_another_package_is_refused() -> None:
    source, before = Breaking(MODEL.source.parts, 6), memory_files()
    other = bytearray(source.parts[BLOB])
    for at in range(0, len(other), SEGMENT):
        other[at + 20] ^= 1

    def again(_: Unavailable) -> bool:
        source.parts[BLOB] = bytes(other)
        return True

    with pytest.raises(Rejected) as caught:
        open_model(source, MODEL.verified(), DEK, again=again)
    assert caught.value.code == "digest_mismatch"
    assert memory_files() == before


def test_t21_a_refusal_is_never_asked_about() -> None:
    damaged = bytearray(MODEL.source.parts[BLOB])
    damaged[60] ^= 1
    with pytest.raises(Rejected):
        open_model(
            MODEL.edit(BLOB, bytes(damaged)).source, MODEL.verified(), DEK, again=lambda _: pytest.fail("was asked")
        )
