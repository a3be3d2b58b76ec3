"""What a PCK certificate says about its platform (Intel SGX PCK Certificate and CRL Profile, section 1.3.5).

Not done here: who vouches for the certificate (``chain``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography.x509 import UnrecognizedExtension
from cryptography.x509.oid import ObjectIdentifier

from cloister.attest.intel.der import BOOLEAN, ENUMERATED, OCTETS, SEQUENCE, take, take_integer, take_pairs
from cloister.errors import Malformed
from cloister.wire import Reader

if TYPE_CHECKING:
    from cloister.attest.chain import Certificate
    from cloister.attest.rats import ClaimValue

__all__ = ["SGX_EXTENSION", "TCB_COMPONENTS", "Pck"]

SGX_EXTENSION = ObjectIdentifier("1.2.840.113741.1.13.1")
TCB_COMPONENTS = 16
_OID = bytes.fromhex("2a864886f84d010d01")  # 1.2.840.113741.1.13.1, contents of its DER
_SGX_TYPES = 3  # standard, scalable, scalable with integrity
_WHAT = "pck certificate: sgx extension"
_FLAGS = {1: "pck.dynamic", 2: "pck.cached_keys", 3: "pck.smt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pck:
    """The platform behind one PCK certificate. ``flags`` are there on platforms of several packages only."""

    certificate: Certificate
    ppid: bytes
    components: tuple[int, ...]
    pcesvn: int
    cpusvn: bytes
    pceid: bytes
    fmspc: bytes
    sgx_type: int
    flags: dict[str, bool]

    @classmethod
    def parse(cls, certificate: Certificate) -> Self:
        """Read the extension to its end. Raises ``Malformed``, also where there is none."""
        found = [item.value for item in certificate.x509.extensions if item.oid == SGX_EXTENSION]
        if not found or not isinstance(found[0], UnrecognizedExtension):
            msg = f"{_WHAT}: missing"
            raise Malformed(msg)
        outer = Reader(found[0].value, what=_WHAT)
        fields = take_pairs(take(outer, SEQUENCE), what=_WHAT)
        outer.end()
        tcb = take_pairs(_contents(fields, (2,), SEQUENCE), what=_WHAT)
        sgx_type = _contents(fields, (5,), ENUMERATED)
        if len(sgx_type) != 1 or sgx_type[0] >= _SGX_TYPES:
            msg = f"{_WHAT}: sgx type {sgx_type.hex()[:16]}"
            raise Malformed(msg)
        return cls(
            certificate=certificate,
            ppid=_octets(fields, (1,), 16),
            components=tuple(_integer(tcb, (2, index + 1), cap=0xFF) for index in range(TCB_COMPONENTS)),
            pcesvn=_integer(tcb, (2, 17), cap=0xFFFF),
            cpusvn=_octets(tcb, (2, 18), 16),
            pceid=_octets(fields, (3,), 2),
            fmspc=_octets(fields, (4,), 6),
            sgx_type=sgx_type[0],
            flags=_flags(fields),
        )

    def claims(self) -> dict[str, ClaimValue]:
        """Return what the certificate says, flat."""
        return {
            "fmspc": self.fmspc.hex(),
            "pceid": self.pceid.hex(),
            "pck.cpusvn": bytes(self.components).hex(),
            "pck.pcesvn": self.pcesvn,
            "pck.sgx_type": self.sgx_type,
            "ppid": self.ppid.hex(),
            **self.flags,
        }


def _flags(fields: dict[bytes, Reader]) -> dict[str, bool]:
    if _OID + bytes((7,)) not in fields:
        return {}
    given = take_pairs(_contents(fields, (7,), SEQUENCE), what=_WHAT)
    return {
        name: any(_contents(given, (7, arc), BOOLEAN))
        for arc, name in _FLAGS.items()
        if _OID + bytes((7, arc)) in given
    }


def _contents(fields: dict[bytes, Reader], arcs: tuple[int, ...], tag: int) -> bytes:
    value = _value(fields, arcs)
    contents = take(value, tag)
    value.end()
    return contents


def _octets(fields: dict[bytes, Reader], arcs: tuple[int, ...], size: int) -> bytes:
    contents = _contents(fields, arcs, OCTETS)
    if len(contents) != size:
        msg = f"{_WHAT}: field {arcs[-1]} of {len(contents)} bytes, want {size}"
        raise Malformed(msg)
    return contents


def _integer(fields: dict[bytes, Reader], arcs: tuple[int, ...], *, cap: int) -> int:
    value = _value(fields, arcs)
    number = take_integer(value, cap=cap)
    value.end()
    return number


def _value(fields: dict[bytes, Reader], arcs: tuple[int, ...]) -> Reader:
    value = fields.get(_OID + bytes(arcs))
    if value is None:
        msg = f"{_WHAT}: no field {'.'.join(map(str, arcs))}"
        raise Malformed(msg)
    return value
