"""Evidence of the devices beside a CPU's: GPUs and switches, as one byte string (docs/spec/evidence.md section 4).

    devices = empty | "CLOISTER-DEVICES" 00 | version 01 | count u8 | count * (u8 length, tee | u32 length, payload)

The CPU's report binds these exact bytes, so their order is part of what is bound.

Not done here: verifying any of it (``verifier``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.attest.rats import Evidence, TeeKind
from cloister.errors import UsageError
from cloister.wire import Reader, lp

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_DEVICES", "MAX_DEVICES_BYTES", "dump_devices", "parse_devices"]

MAX_DEVICES = 24  # sixteen GPUs and eight switches: the largest chassis sold
MAX_DEVICES_BYTES = 512 * 1024  # bytes of all devices' evidence
_MAX_DEVICE_BYTES = 64 * 1024  # bytes of one: a report of 4 KiB and a chain of 8 KiB are usual
_MAX_TEE_BYTES = 32
_MAGIC = b"CLOISTER-DEVICES\x00"
_VERSION = 1


def dump_devices(devices: Sequence[Evidence]) -> bytes:
    """Return the byte string, empty for no device. Raises ``UsageError`` for too many."""
    if not devices:
        return b""
    if len(devices) > MAX_DEVICES:
        msg = f"devices: {len(devices)}, want at most {MAX_DEVICES}"
        raise UsageError(msg)
    entries = (bytes((len(item.tee),)) + item.tee.encode("ascii") + lp(item.payload) for item in devices)
    return _MAGIC + bytes((_VERSION, len(devices))) + b"".join(entries)


def parse_devices(data: bytes) -> tuple[Evidence, ...]:
    """Parse the byte string to its end; none for the empty one. Raises ``Malformed``."""
    if not data:
        return ()
    reader = Reader(data, what="devices")
    if len(data) > MAX_DEVICES_BYTES:
        reader.fail(f"{len(data)} bytes, want at most {MAX_DEVICES_BYTES}")
    reader.expect(_MAGIC)
    version = reader.u8()
    if version != _VERSION:
        reader.fail(f"version {version}, want {_VERSION}")
    count = reader.u8()
    if not 0 < count <= MAX_DEVICES:
        reader.fail(f"{count} devices, want 1 to {MAX_DEVICES}")
    found = tuple(_take_device(reader) for _ in range(count))
    reader.end()
    return found


def _take_device(reader: Reader) -> Evidence:
    name = reader.prefixed(1, cap=_MAX_TEE_BYTES)
    if not name or not name.isascii() or not name.decode("ascii").isprintable():
        reader.fail("name of a tee out of form")
    return Evidence(tee=TeeKind(name.decode("ascii")), payload=reader.prefixed(4, cap=_MAX_DEVICE_BYTES))
