"""Peers that are programs: age, and openssl, which has no integrity. One line says which are not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from figures.goals import at_most
from figures.rounds import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODE = "aes-256-ctr"


def flush(place: Path) -> None:
    """Make a file durable."""
    fd = os.open(place, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 - our words


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How a program seals to a disk and opens into a tmpfs."""

    name: str
    sealed: Path
    out: Path
    seal: list[str]
    open: list[str]
    authentic: bool = True

    def rows(self, size: int) -> Iterator[Row]:
        """Yield its two rows."""

        def sealing() -> int:
            _run(*self.seal)
            flush(self.sealed)
            return size

        def opening() -> int:
            _run(*self.open)
            return size

        sealing()
        goal, word = (at_most(1), "") if self.authentic else (None, " (no integrity)")
        done, again = (lambda: self.out.unlink(missing_ok=True)), (lambda: self.sealed.unlink(missing_ok=True))
        yield Row(name=f"{self.name}, open{word}", work=opening, after=done, versus="open", goal=goal)
        yield Row(name=f"{self.name}, seal{word}", work=sealing, before=again, versus="seal", goal=goal)


def program_rows(model: Path, folder: Path, memory: Path) -> Iterator[Row]:
    """Yield the rows of each program that is installed; ``memory`` is a folder of an ordinary tmpfs."""
    size = model.stat().st_size
    age, keygen, openssl = (shutil.which(name) for name in ("age", "age-keygen", "openssl"))
    if age is None or keygen is None:
        print("age: not installed here (Debian: apt-get install age); left out")
    else:
        yield from _age(age, keygen, model, folder, memory).rows(size)
    if openssl is None:
        print("openssl: not installed here; left out")
    else:
        yield from _openssl(openssl, model, folder, memory).rows(size)


def _age(age: str, keygen: str, model: Path, folder: Path, memory: Path) -> Program:
    key, sealed, out = folder / "age.key", folder / "model.age", memory / "model.age.out"
    _run(keygen, "-o", str(key))
    shown = subprocess.run([keygen, "-y", str(key)], check=True, capture_output=True, text=True)  # noqa: S603
    return Program(
        name="age", sealed=sealed, out=out,
        seal=[age, "-r", shown.stdout.strip(), "-o", str(sealed), str(model)],
        open=[age, "-d", "-i", str(key), "-o", str(out), str(sealed)],
    )  # fmt: skip


def _openssl(openssl: str, model: Path, folder: Path, memory: Path) -> Program:
    key, sealed, out = folder / "openssl.key", folder / "model.ctr", memory / "model.ctr.out"
    key.write_text(os.urandom(32).hex())
    words = [openssl, "enc", f"-{MODE}", "-pbkdf2", "-iter", "1", "-pass", f"file:{key}", "-nosalt"]
    return Program(
        name=f"openssl {MODE}", sealed=sealed, out=out, authentic=False,
        seal=[*words, "-in", str(model), "-out", str(sealed)],
        open=[*words, "-d", "-in", str(sealed), "-out", str(out)],
    )  # fmt: skip
