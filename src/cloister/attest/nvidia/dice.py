"""What DICE certificate extensions say about firmware (TCG DICE Attestation Architecture, "TCB Info").

NVIDIA uses one identifier, 2.23.133.5.4.1, for two structures, and an alias of it:

    CompositeDeviceID = SEQUENCE { INTEGER 1, SubjectPublicKeyInfo, FWID }            Hopper, LS10
    DiceTcbInfo       = SEQUENCE { [0] vendor ... [6] SEQUENCE OF FWID ... }          Blackwell, also under .5.4.1.1
    FWID              = SEQUENCE { hashAlg OBJECT IDENTIFIER, digest OCTET STRING }

Of several digests the first is of the firmware that holds the attestation key (attestation-sdk, ``nv_x509.cpp``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.attest.chain import Certificate

__all__ = ["fwid_of"]

_TCB_INFO = x509.ObjectIdentifier("2.23.133.5.4.1.1")
_TCB_INFO_OR_DEVICE_ID = x509.ObjectIdentifier("2.23.133.5.4.1")
_SEQUENCE, _OBJECT_IDENTIFIER, _OCTET_STRING, _INTEGER = 0x30, 0x06, 0x04, 0x02
_FWIDS = 0xA6  # [6] IMPLICIT, constructed
_MAX_EXTENSION_BYTES = 4096
_SHA384_BYTES = 48
_LONG_FORM = 0x80
_MAX_LENGTH_BYTES = 2


def fwid_of(certificate: Certificate) -> bytes | None:
    """Return the firmware digest in a leaf, None where it has no such extension. Raises ``Malformed``."""
    found = {item.oid: item.value for item in certificate.x509.extensions}
    for oid in (_TCB_INFO, _TCB_INFO_OR_DEVICE_ID):
        value = found.get(oid)
        if isinstance(value, x509.UnrecognizedExtension):
            return _first_fwid(value.value)
    return None


def _first_fwid(data: bytes) -> bytes:
    reader = Reader(data[:_MAX_EXTENSION_BYTES], what="dice extension")
    parts = _take_all(_take(reader, _SEQUENCE))
    reader.end()
    tags = [tag for tag, _ in parts]
    if tags == [_INTEGER, _SEQUENCE, _SEQUENCE]:
        return _digest(Reader(parts[2][1], what="dice fwid"))
    if _FWIDS not in tags:
        reader.fail("neither composite device id nor tcb info with firmware digests")
    fwids = Reader(parts[tags.index(_FWIDS)][1], what="dice fwids")
    return _digest(Reader(_take(fwids, _SEQUENCE), what="dice fwid"))


def _digest(reader: Reader) -> bytes:
    """Take one FWID's content; SHA-384 is the one hash NVIDIA uses here."""
    _take(reader, _OBJECT_IDENTIFIER)
    digest = _take(reader, _OCTET_STRING)
    reader.end()
    if len(digest) != _SHA384_BYTES:
        reader.fail(f"digest of {len(digest)} bytes, want {_SHA384_BYTES}")
    return digest


def _take_all(data: bytes) -> list[tuple[int, bytes]]:
    reader = Reader(data, what="dice extension")
    parts = []
    while reader.left:
        tag = reader.u8()
        parts.append((tag, reader.take(_take_length(reader))))
    return parts


def _take(reader: Reader, tag: int) -> bytes:
    got = reader.u8()
    if got != tag:
        reader.fail(f"tag {got:#04x}, want {tag:#04x}")
    return reader.take(_take_length(reader))


def _take_length(reader: Reader) -> int:
    """Take a definite length in its shortest form (X.690 sections 8.1.3 and 10.1)."""
    first = reader.u8()
    if first < _LONG_FORM:
        return first
    count = first - _LONG_FORM
    if not 0 < count <= _MAX_LENGTH_BYTES:
        reader.fail("length is indefinite or too long")
    length = reader.uint(count)
    if length < (_LONG_FORM if count == 1 else 0x100):
        reader.fail("length is not in its shortest form")
    return length
