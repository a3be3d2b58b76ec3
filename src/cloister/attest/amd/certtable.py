"""The certificate table of an extended report: ``auxblob`` of configfs-tsm (AMD 56421 revision 2.03 section 4.1.8.1).

    table = n * (GUID(16) | offset u32 | length u32) | 24 zero bytes | certificates

Little-endian; GUIDs as RFC 9562 writes their bytes; offsets from the front of the table. Hypervisors add entries of
their own and pad to whole pages: unknown entries and what lies between are left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from cloister.wire import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_TABLE_BYTES", "dump_table", "parse_table"]

MAX_TABLE_BYTES = 64 * 1024  # bytes of one table; Linux hands out at most 16 KiB
_MAX_ENTRIES = 32
_GUID_BYTES = 16
_ENTRY_BYTES = 24
_GUIDS: Mapping[str, bytes] = {
    "vcek": UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes,
    "vlek": UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes,
    "ask": UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes,  # the ASVK too
    "ark": UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes,
    "crl": UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea").bytes,
}
_ROLES = {guid: role for role, guid in _GUIDS.items()}


def parse_table(data: bytes) -> dict[str, bytes]:
    """Return the entries that have a role here: ``vcek``, ``vlek``, ``ask``, ``ark``, ``crl``; none for no bytes.

    Raises ``Malformed`` for a table without its end, an entry outside it, or a role twice.
    """
    found: dict[str, bytes] = {}
    reader = Reader(data, what="snp certificate table")
    if not data:
        return found
    entries = []
    while any(guid := reader.take(_GUID_BYTES)):
        entries.append((guid, reader.uint(4, little=True), reader.uint(4, little=True)))
        if len(entries) > _MAX_ENTRIES:
            reader.fail(f"over {_MAX_ENTRIES} entries")
    if any(reader.take(_ENTRY_BYTES - _GUID_BYTES)):
        reader.fail("entry without a guid")
    for guid, offset, length in entries:
        if offset < reader.position or offset + length > len(data):
            reader.fail(f"entry of {length} bytes at {offset}, want it between {reader.position} and {len(data)}")
        role = _ROLES.get(guid)
        if role in found:
            reader.fail(f"two entries {role}")
        if role is not None:
            found[role] = data[offset : offset + length]
    return found


def dump_table(entries: Mapping[str, bytes]) -> bytes:
    """Return the table with these entries, by role."""
    offset = (len(entries) + 1) * _ENTRY_BYTES
    header, body = b"", b""
    for role, data in entries.items():
        header += _GUIDS[role] + (offset + len(body)).to_bytes(4, "little") + len(data).to_bytes(4, "little")
        body += data
    return header + bytes(_ENTRY_BYTES) + body
