"""Evidence of several parts as one byte string (docs/spec/evidence-parts.md).

    parts = "CLOISTER-PARTS" 00 | version 01 | count u8 | count * (u8 length, role | u32 length, bytes)

Roles are short ASCII words (``quote``, ``report``, ``ccel``), each once, in ascending order, so that a set of
parts has one spelling. Each TEE's scheme says which roles it takes and how long each may be.

Not done here: what a part means (the TEE's own folder).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloister.errors import UsageError
from cloister.wire import Reader, lp

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["dump_parts", "is_parts", "parse_parts"]

_MAGIC = b"CLOISTER-PARTS\x00"
_VERSION = 1
_MAX_PARTS = 32
_MAX_ROLE_BYTES = 32
_ROLE = re.compile(rb"[a-z][a-z0-9_.-]{0,31}")


def dump_parts(parts: Mapping[str, bytes]) -> bytes:
    """Return the parts as one byte string. Raises ``UsageError`` for a role out of form, none, or too many."""
    if not 0 < len(parts) <= _MAX_PARTS:
        msg = f"evidence parts: {len(parts)}, want 1 to {_MAX_PARTS}"
        raise UsageError(msg)
    entries = []
    for role, data in sorted(parts.items()):
        name = role.encode()
        if not _ROLE.fullmatch(name):
            msg = f"evidence parts: {role[:64]!r} is no role"
            raise UsageError(msg)
        entries.append(bytes((len(name),)) + name + lp(data))
    return _MAGIC + bytes((_VERSION, len(entries))) + b"".join(entries)


def is_parts(data: bytes) -> bool:
    """Tell by the first bytes whether ``data`` is meant to be parts; nothing about whether they parse."""
    return data.startswith(_MAGIC)


def parse_parts(data: bytes, *, what: str, caps: Mapping[str, int], required: Collection[str] = ()) -> dict[str, bytes]:
    """Parse the byte string to its end. ``caps`` names every role that may be there and its most bytes.

    Raises ``Malformed``, also for an unknown, repeated or missing role.
    """
    reader = Reader(data, what=what)
    reader.expect(_MAGIC)
    version = reader.u8()
    if version != _VERSION:
        reader.fail(f"version {version} of parts, want {_VERSION}")
    count = reader.u8()
    if not 0 < count <= _MAX_PARTS:
        reader.fail(f"{count} parts, want 1 to {_MAX_PARTS}")
    parts: dict[str, bytes] = {}
    last = b""
    for _ in range(count):
        name = reader.prefixed(1, cap=_MAX_ROLE_BYTES)
        if not _ROLE.fullmatch(name) or name <= last:
            reader.fail("role out of form or out of order")
        role = name.decode("ascii")
        if role not in caps:
            reader.fail(f"unknown role {role}")
        parts[role] = reader.prefixed(4, cap=caps[role])
        last = name
    reader.end()
    for role in required:
        if role not in parts:
            reader.fail(f"no part {role}")
    return parts
