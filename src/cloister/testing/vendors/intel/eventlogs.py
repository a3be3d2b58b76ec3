"""Boot logs as a TD's firmware writes them into the CCEL table (UEFI 2.10 section 38.4)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ccel"]

_NO_ACTION = 3
_IPL = 13
_SHA384 = 0x0C


def _le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def ccel(events: Sequence[tuple[int, bytes]], *, size: int = 0, padding: bytes = b"\xff") -> bytes:
    """Return a log of what was measured into each register (1 to 4 for RTMR0 to RTMR3), padded to ``size`` bytes."""
    specification = (
        b"Spec ID Event03\x00" + bytes(4) + b"\x00\x02\x00\x02" + _le(1, 4) + _le(_SHA384, 2) + _le(48, 2) + b"\x00"
    )
    log = _le(1, 4) + _le(_NO_ACTION, 4) + bytes(20) + _le(len(specification), 4) + specification
    for register, data in events:
        measured = hashlib.sha384(data).digest()
        log += _le(register, 4) + _le(_IPL, 4) + _le(1, 4) + _le(_SHA384, 2) + measured + _le(len(data), 4) + data
    return log.ljust(size, padding)
