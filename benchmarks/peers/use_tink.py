"""Streaming AEAD of Tink (AES-256-GCM with HKDF, segments of 1 MiB), into a memory file."""

from __future__ import annotations

import mmap
import os

import tink
from serve import MODEL, SEALED, serve
from tink import streaming_aead

MIB = 1 << 20
streaming_aead.register()
AEAD = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB).primitive(
    streaming_aead.StreamingAead
)


def seal() -> None:
    """Encrypt piece by piece."""
    with MODEL.open("rb") as plain, SEALED.open("wb") as out, AEAD.new_encrypting_stream(out, b"") as stream:
        while piece := plain.read(MIB):
            stream.write(piece)


def opened() -> list[object]:
    """Return a mapping of the memory file."""
    fd = os.memfd_create("peer")
    try:
        with SEALED.open("rb") as sealed, AEAD.new_decrypting_stream(sealed, b"") as stream:
            while piece := stream.read(MIB):
                os.write(fd, piece)
        return [mmap.mmap(fd, 0)]
    finally:
        os.close(fd)


serve(seal, opened)
