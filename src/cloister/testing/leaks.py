"""How a secret could stand in a file, a log or a message: what tests search for."""

from __future__ import annotations

import base64
import functools

__all__ = ["spellings"]


def _inside_base64(secret: bytes, offset: int) -> bytes:
    """Return what base64 makes of a secret that starts ``offset`` bytes into a group of three, without its edges."""
    text = base64.b64encode(bytes(offset) + secret)
    start = -(-offset * 8 // 6)  # characters that hold bits of what stands before
    end = (offset + len(secret)) * 8 // 6  # and of what stands after
    return text[start:end]


@functools.cache
def spellings(secret: bytes) -> frozenset[bytes]:
    """Return a secret as it could stand somewhere: raw, hex, base64 at any place of a text, as Python prints it."""
    plain = {_inside_base64(secret, offset) for offset in range(3)}
    urlsafe = {text.translate(bytes.maketrans(b"+/", b"-_")) for text in plain}
    printed = {repr(secret)[2:-1].encode(), repr(list(secret))[1:-1].encode(), str(secret, "latin-1").encode()}
    printed |= {str(int.from_bytes(secret, "big")).encode(), str(int.from_bytes(secret, "little")).encode()}
    return frozenset({secret, secret.hex().encode(), secret.hex().upper().encode()} | plain | urlsafe | printed)
