"""An event log made by hand, the PCRs it arrives at, and the pieces to make others."""

from __future__ import annotations

import hashlib
import struct

SEPARATOR, NO_ACTION, VARIABLE, IPL = 4, 3, 0x80000001, 0x0D
GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")


def header(banks: tuple[tuple[int, int], ...] = ((4, 20), (0x0B, 32)), vendor: bytes = b"") -> bytes:
    inner = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(banks))
    inner += b"".join(struct.pack("<HH", *bank) for bank in banks) + bytes((len(vendor),)) + vendor
    return struct.pack("<II20sI", 0, NO_ACTION, bytes(20), len(inner)) + inner


def event(pcr: int, kind: int, data: bytes, *, over: bytes | None = None) -> bytes:
    measured = data if over is None else over
    digests = struct.pack("<H", 4) + hashlib.sha1(measured, usedforsecurity=False).digest()
    digests += struct.pack("<H", 0x0B) + hashlib.sha256(measured).digest()
    return struct.pack("<III", pcr, kind, 2) + digests + struct.pack("<I", len(data)) + data


def variable(name: str, value: bytes, guid: bytes = GLOBAL) -> bytes:
    return guid + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value


def extended(*measured: bytes, start: bytes = bytes(32)) -> bytes:
    value = start
    for data in measured:
        value = hashlib.sha256(value + hashlib.sha256(data).digest()).digest()
    return value


LOG = (
    header()
    + event(0, 8, b"firmware")
    + event(7, VARIABLE, variable("SecureBoot", b"\x01"))
    + event(7, SEPARATOR, bytes(4))
)
LOG += event(0, SEPARATOR, bytes(4)) + event(4, 0x80000003, b"path", over=b"boot loader")
PCRS = {
    0: extended(b"firmware", bytes(4)),
    4: extended(b"boot loader"),
    7: extended(variable("SecureBoot", b"\x01"), bytes(4)),
    23: bytes(32),
}
