"""Google's extension 1.3.6.1.4.1.11129.2.1.21: which instance a vTPM belongs to (DER, X.690).

    SEQUENCE { zone UTF8String, project number INTEGER, project UTF8String, instance INTEGER,
               instance name UTF8String, [0] EXPLICIT SEQUENCE { [n] EXPLICIT INTEGER or BOOLEAN, ... } OPTIONAL }

Of the security properties at the end, [0] is their version and [1] says that this is a production machine
(google/go-tpm-tools, server/instance_info.go). The others are read over: Google documents none of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography.x509.oid import ObjectIdentifier

from cloister.errors import Malformed
from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.attest.chain import Certificate

__all__ = ["INSTANCE_DER", "INSTANCE_EXTENSION", "GceInstance", "instance_of"]

INSTANCE_EXTENSION = ObjectIdentifier("1.3.6.1.4.1.11129.2.1.21")
INSTANCE_DER = bytes.fromhex("060a2b06010401d679020115")
"""The same as it stands in a certificate."""

MAX_EXTENSION_BYTES = 512  # bytes of the extension
_MAX_TEXT_BYTES = 63  # RFC 1035 labels: zones and names; a project may have a domain before it
_MAX_PROJECT_BYTES = 128
_TEXT = re.compile(rb"[a-z0-9.:-]+")
_BOOLEAN, _INTEGER, _UTF8, _SEQUENCE, _CONTEXT = 0x01, 0x02, 0x0C, 0x30, 0xA0
_LENGTH_OF_ONE = 0x81  # a length in one byte that does not fit into seven bits
_SHORT = 0x80
_INTEGER_BYTES = 9  # unsigned 64 bits, a zero before them where the first is set
_PRODUCTION = 1
_MAX_PROPERTIES = 16
_TRUE, _FALSE = b"\xff", b"\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class GceInstance:
    """One virtual machine as Google names it; numbers use all of 64 bits. ``production`` is Google's own word."""

    zone: str
    project_number: int
    project: str
    instance: int
    instance_name: str
    production: bool

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse the extension to its end. Raises ``Malformed``."""
        if len(data) > MAX_EXTENSION_BYTES:
            msg = f"gce instance: {len(data)} bytes, want at most {MAX_EXTENSION_BYTES}"
            raise Malformed(msg)
        outer = Reader(data, what="gce instance")
        reader = Reader(_take(outer, _SEQUENCE), what="gce instance")
        outer.end()
        zone = _take_text(reader, cap=_MAX_TEXT_BYTES)
        project_number = _take_integer(reader)
        project = _take_text(reader, cap=_MAX_PROJECT_BYTES)
        instance = _take_integer(reader)
        name = _take_text(reader, cap=_MAX_TEXT_BYTES)
        production = _take_production(reader) if reader.left else False
        reader.end()
        return cls(
            zone=zone,
            project_number=project_number,
            project=project,
            instance=instance,
            instance_name=name,
            production=production,
        )


def _take(reader: Reader, tag: int) -> bytes:
    """Return the contents of the next element, which has this tag and the shortest length."""
    reader.expect(bytes((tag,)))
    size = reader.u8()
    if size == _LENGTH_OF_ONE:
        size = reader.u8()
        if size < _SHORT:
            reader.fail("length in a longer form than it needs")
    elif size == _LENGTH_OF_ONE + 1:
        size = reader.u16()
        if size <= 0xFF:  # noqa: PLR2004 - what one byte holds
            reader.fail("length in a longer form than it needs")
    elif size >= _SHORT:
        reader.fail(f"length of form {size:#04x}")
    return reader.take(size)


def _take_text(reader: Reader, *, cap: int) -> str:
    data = _take(reader, _UTF8)
    if len(data) > cap or not _TEXT.fullmatch(data):
        reader.fail("name out of form")
    return data.decode("ascii")


def _take_integer(reader: Reader) -> int:
    """Return an INTEGER of 0 to 2**64 - 1 in its one spelling (X.690 section 8.3.2)."""
    data = _take(reader, _INTEGER)
    value = int.from_bytes(data, "big", signed=True)
    if not 0 < len(data) <= _INTEGER_BYTES or value < 0 or len(data) != value.bit_length() // 8 + 1:
        reader.fail("integer negative, too long, or not in its shortest form")
    return value


def _take_production(reader: Reader) -> bool:
    """Return property [1] of the security properties; read over the others, each once and in order."""
    wrapped = Reader(_take(reader, _CONTEXT), what="gce instance: security properties")
    inner = Reader(_take(wrapped, _SEQUENCE), what="gce instance: security properties")
    wrapped.end()
    production, last = False, -1
    while inner.left:
        number = inner.u8() - _CONTEXT
        if not last < number < _MAX_PROPERTIES:
            inner.fail("property twice or out of order")
        last = number
        value = Reader(inner.prefixed(1, cap=_SHORT - 1), what="gce instance: security property")
        if number == _PRODUCTION:
            flag = _take(value, _BOOLEAN)
            if flag not in (_TRUE, _FALSE):
                value.fail("boolean that is neither true nor false")
            production = flag == _TRUE
            value.end()
    return production


def instance_of(certificate: Certificate) -> GceInstance | None:
    """Return the instance a certificate names, None where it has no such extension. Raises ``Malformed``."""
    for extension in certificate.x509.extensions:
        if extension.oid == INSTANCE_EXTENSION:
            return GceInstance.parse(extension.value.public_bytes())
    return None
