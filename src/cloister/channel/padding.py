"""Padding of binary HTTP messages to few sizes: Padme, with a floor (docs/spec/channel.md section 5).

Padme (Nikitin et al., PoPETs 2019, section 4) costs at most 12 % and leaks O(log log size) bits of
the size. Zero bytes after a binary HTTP message are its padding (RFC 9292 section 3.8). Padding helps
against reading sizes and is not complete: timing and the number of messages stay visible.
"""

from __future__ import annotations

__all__ = ["PADDING_FLOOR_BYTES", "pad", "padded_size"]

PADDING_FLOOR_BYTES = 1024  # no padded message is smaller


def padded_size(size: int) -> int:
    """Return the bucket of a message of ``size`` bytes: the smallest one that holds it."""
    if size <= PADDING_FLOOR_BYTES:
        return PADDING_FLOOR_BYTES
    exponent = size.bit_length() - 1
    zero_bits = exponent - exponent.bit_length()
    mask = (1 << zero_bits) - 1
    return (size + mask) & ~mask


def pad(message: bytes) -> bytes:
    """Return a binary HTTP message padded to its bucket."""
    return message.ljust(padded_size(len(message)), b"\x00")
