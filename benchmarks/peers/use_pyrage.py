"""pyrage, age in Rust for Python (X25519, ChaCha20-Poly1305), into a memory file."""

from __future__ import annotations

import mmap
import os

import pyrage
from serve import MODEL, SEALED, serve

IDENTITY = pyrage.x25519.Identity.generate()


def seal() -> None:
    """Encrypt the file."""
    pyrage.encrypt_file(str(MODEL), str(SEALED), [IDENTITY.to_public()])


def opened() -> list[object]:
    """Return a mapping of the memory file."""
    fd = os.memfd_create("peer")
    with os.fdopen(fd, "r+b", buffering=0) as out, SEALED.open("rb") as sealed:
        pyrage.decrypt_io(sealed, out, [IDENTITY])
        return [mmap.mmap(out.fileno(), 0)]


serve(seal, opened)
