"""A disk as it may be after the power went: what a recording (diskshim) had synced, and any part of what it had not.

The model is a strict one. A page of 4 KiB that was not synced is on the disk as it was at the last sync, or as any
write since left it, each page for itself (the kernel writes back in whatever order it likes); a sector of 512 B or of
4 KiB is whole, a page of smaller sectors may be torn between them. A file's size is any it had since its last sync;
what a grown file lacks reads as zeros. A name that was made, renamed or removed is so on the disk only after an
``fsync`` of its folder, before that by chance; a folder is renamed with all that is in it, or not. A sync that failed
leaves its pages to chance for ever: the kernel calls them clean.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from diskshim import Note

PAGE = 4096
SECTOR = 512
_T = TypeVar("_T")


@dataclass(slots=True)
class _File:
    """One file: what programs see, what the disk holds for certain, and what is between."""

    seen: bytearray = field(default_factory=bytearray)
    disk: dict[int, bytes] = field(default_factory=dict)
    dirty: dict[int, list[bytes]] = field(default_factory=dict)
    disk_size: int = 0
    sizes: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, data: bytes) -> _File:
        """Return a file that is on the disk whole."""
        found = cls(seen=bytearray(data), disk_size=len(data))
        found.disk = {number: found.page(number) for number in range(-(-len(data) // PAGE))}
        return found

    def page(self, number: int) -> bytes:
        """Return a page as programs see it, filled up with zeros."""
        return bytes(self.seen[number * PAGE : (number + 1) * PAGE]).ljust(PAGE, b"\x00")

    def write(self, at: int, data: bytes) -> None:
        """Write into the kernel's memory."""
        end = at + len(data)
        if end > len(self.seen):
            self.seen.extend(bytes(end - len(self.seen)))
            self.sizes.append(end)
        self.seen[at:end] = data
        for number in range(at // PAGE, -(-end // PAGE)):
            self.dirty.setdefault(number, []).append(self.page(number))

    def truncate(self, size: int) -> None:
        """Cut, or grow by zeros."""
        if size > len(self.seen):
            self.seen.extend(bytes(size - len(self.seen)))
        else:
            del self.seen[size:]
            for number in [number for number in self.dirty if number * PAGE >= size]:
                del self.dirty[number]
        self.sizes.append(size)

    def sync(self) -> None:
        """Write everything to the disk."""
        for number in self.dirty:
            self.disk[number] = self.page(number)
        self.dirty.clear()
        self.disk_size = len(self.seen)
        self.sizes.clear()
        self._forget_beyond()

    def fail_sync(self, rng: random.Random) -> None:
        """Lose by chance what was not on the disk, and call all of it clean."""
        for number, versions in self.dirty.items():
            self.disk[number] = rng.choice([self._on_disk(number), *versions])
        self.dirty.clear()
        self.disk_size = rng.choice([self.disk_size, *self.sizes])
        self.sizes.clear()

    def after_cut(self, chance: Chance) -> bytes:
        """Return what is found when the power is back."""
        size = chance.one_of([self.disk_size, *self.sizes])
        out = bytearray(-(-size // PAGE) * PAGE)
        for number in range(-(-size // PAGE)):
            versions = [self._on_disk(number), *self.dirty.get(number, ())]
            out[number * PAGE : (number + 1) * PAGE] = chance.page(versions)
        return bytes(out[:size])

    def _on_disk(self, number: int) -> bytes:
        return self.disk.get(number, bytes(PAGE))

    def _forget_beyond(self) -> None:
        for number in [number for number in self.disk if number * PAGE >= self.disk_size]:
            del self.disk[number]


@dataclass(slots=True, kw_only=True)
class Chance:
    """How one power cut chooses: ``keep`` is the probability that the disk got a later state, ``sector`` its grain."""

    rng: random.Random
    keep: float
    sector: int

    @classmethod
    def draw(cls, rng: random.Random) -> Chance:
        """Return a cut: a third of them lose everything not synced or nothing, the others a part."""
        return cls(rng=rng, keep=rng.choice([0.0, 1.0, 0.1, 0.5, 0.5, 0.9]), sector=rng.choice([SECTOR, PAGE]))

    def one_of(self, states: list[_T]) -> _T:
        """Return the oldest state, or a later one with probability ``keep``."""
        if len(states) == 1 or self.rng.random() >= self.keep:
            return states[0]
        return states[-1] if self.keep == 1.0 else self.rng.choice(states[1:])

    def yes(self) -> bool:
        """Tell whether a change of a folder reached the disk."""
        return self.rng.random() < self.keep

    def page(self, versions: list[bytes]) -> bytes:
        """Return one page, each of its sectors chosen for itself."""
        if len(versions) == 1:
            return versions[0]
        if self.sector == PAGE:
            return self.one_of(versions)
        parts = [self.one_of(versions)[at : at + SECTOR] for at in range(0, PAGE, SECTOR)]
        return b"".join(parts)


class Disk:
    """The watched folder while a recording is played; ``cut`` may be called after any note and changes nothing.

    ``forgets`` plays the mutants: a sync whose file it names counts as never made.
    """

    def __init__(
        self, start: dict[str, bytes], root: Path, *, rng: random.Random, forgets: Callable[[str], bool]
    ) -> None:
        self._root, self._rng, self._forgets = str(root), rng, forgets
        self._names = {name: _File.of(data) for name, data in start.items()}
        self._sure = dict(self._names)
        self._changes: list[dict[str, _File | None]] = []
        self._open: dict[int, tuple[str, _File | None]] = {}

    def play(self, note: Note) -> None:
        """Do what the process did."""
        match note.op:
            case "O":
                self._opened(note)
            case "C":
                self._open.pop(note.fd, None)
            case "W" | "T":
                _, file = self._open[note.fd]
                assert file is not None
                file.write(note.at, note.data) if note.op == "W" else file.truncate(note.at)
            case "S":
                self._synced(note)
            case "R":
                source, target = self._name(note.data[: note.at]), self._name(note.data[note.at :])
                self._rename(source, target)
            case "U":
                self._change({self._name(note.data): None})
            case _:
                assert note.op == "A"

    def cut(self, chance: Chance) -> dict[str, bytes]:
        """Return the files as they are when the power is back."""
        names = dict(self._sure)
        for change in self._changes:
            if chance.yes():
                _apply(change, names)
        return {name: file.after_cut(chance) for name, file in names.items()}

    def seen(self) -> dict[str, bytes]:
        """Return the files as programs see them: nothing lost."""
        return {name: bytes(file.seen) for name, file in self._names.items()}

    def _opened(self, note: Note) -> None:
        name = self._name(note.data)
        if note.at & os.O_DIRECTORY or not name or (name not in self._names and not note.at & os.O_CREAT):
            self._open[note.fd] = (name, None)
            return
        if name not in self._names:
            self._change({name: _File()})
        file = self._names[name]
        if note.at & os.O_TRUNC:
            file.truncate(0)
        self._open[note.fd] = (name, file)

    def _synced(self, note: Note) -> None:
        name, file = self._open[note.fd]
        if self._forgets(name):
            return
        if not note.ok:
            if file is not None:
                file.fail_sync(self._rng)
        elif file is None:
            self._sure = dict(self._names)
            self._changes.clear()
        else:
            file.sync()

    def _rename(self, source: str, target: str) -> None:
        if source in self._names:
            self._change({target: self._names[source], source: None})
            return
        inside = {name: file for name, file in self._names.items() if name.startswith(f"{source}/")}
        gone: dict[str, _File | None] = dict.fromkeys(inside)
        self._change(gone | {target + name.removeprefix(source): file for name, file in inside.items()})

    def _change(self, change: dict[str, _File | None]) -> None:
        self._changes.append(change)
        _apply(change, self._names)

    def _name(self, path: bytes) -> str:
        return os.fsdecode(path).removeprefix(self._root).lstrip("/")


def _apply(change: dict[str, _File | None], names: dict[str, _File]) -> None:
    for name, file in change.items():
        names.pop(name, None)
        if file is not None:
            names[name] = file
