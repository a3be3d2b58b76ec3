"""The certificate of the key that signs reports: a chip's VCEK or a cloud's VLEK (AMD 57230, AMD 58369).

AMD's extensions say for which processor, at which TCB, and for which chip or which cloud the key is.

Not done here: who signed it (``authority``), whether it fits a report (``fit``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography import x509

from cloister.attest.amd.products import HWID_BYTES, TURIN_HWID_BYTES, Product, product_of_name
from cloister.attest.amd.report import SigningKey
from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from cloister.attest.chain import Certificate

__all__ = ["EXTENSIONS", "LEVELS", "Vek"]

_ARC = "1.3.6.1.4.1.3704.1"
EXTENSIONS: Mapping[str, str] = {
    "struct_version": f"{_ARC}.1",
    "product_name": f"{_ARC}.2",
    "hwid": f"{_ARC}.4",
    "csp": f"{_ARC}.5",
}
LEVELS: Mapping[str, str] = {
    "bl": f"{_ARC}.3.1",
    "tee": f"{_ARC}.3.2",
    "snp": f"{_ARC}.3.3",
    "spl4": f"{_ARC}.3.4",
    "spl5": f"{_ARC}.3.5",
    "spl6": f"{_ARC}.3.6",
    "spl7": f"{_ARC}.3.7",
    "ucode": f"{_ARC}.3.8",
    "fmc": f"{_ARC}.3.9",
}
_OLD_ORDER = ("bl", "tee", "spl4", "spl5", "spl6", "spl7", "snp", "ucode")
_TURIN_ORDER = ("fmc", "bl", "tee", "snp", "spl5", "spl6", "spl7", "ucode")
_OCTETS, _IA5 = 0x04, 0x16  # DER tags
_INTEGERS: Mapping[bytes, range] = {b"\x02\x01": range(0x80), b"\x02\x02\x00": range(0x80, 0x100)}
_MAX_TEXT_BYTES = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Vek:
    """A VCEK or VLEK certificate, unverified. ``hwid`` is empty for a VLEK, ``csp`` for a VCEK."""

    certificate: Certificate
    kind: SigningKey
    product_name: str
    product: Product
    tcb: bytes
    hwid: bytes
    csp: str

    @classmethod
    def parse(cls, certificate: Certificate) -> Self:
        """Read AMD's extensions. Raises ``Malformed`` for one that is missing, out of form, or of no known line."""
        found = {
            item.oid.dotted_string: item.value.value
            for item in certificate.x509.extensions
            if isinstance(item.value, x509.UnrecognizedExtension)
        }
        name = _text(found, "product_name")
        product = product_of_name(name)
        if product is None:
            _fail(f"product {name!r}, want one of {', '.join(item.value for item in Product)}")
        _integer(found, EXTENSIONS["struct_version"])
        hwid, csp = EXTENSIONS["hwid"] in found, EXTENSIONS["csp"] in found
        if hwid == csp:
            _fail("want a hardware id or a cloud, one of them")
        return cls(
            certificate=certificate,
            kind=SigningKey.VCEK if hwid else SigningKey.VLEK,
            product_name=name,
            product=product,
            tcb=_tcb(found, product),
            hwid=_octets(found[EXTENSIONS["hwid"]], product) if hwid else b"",
            csp=_text(found, "csp") if csp else "",
        )

    @property
    def chip_id(self) -> bytes:
        """The hardware id as a report spells it: 64 bytes, zeros at the end. All zero for a VLEK."""
        return self.hwid.ljust(HWID_BYTES, b"\x00")


def _fail(detail: str) -> NoReturn:
    msg = f"amd endorsement certificate: {detail}"
    raise Malformed(msg)


def _tcb(found: Mapping[str, bytes], product: Product) -> bytes:
    """Return the levels as the report's TCB_VERSION has them; reserved ones may be missing and are 0 then."""
    order = _TURIN_ORDER if product is Product.TURIN else _OLD_ORDER
    levels = []
    for name in order:
        oid = LEVELS[name]
        levels.append(_integer(found, oid) if oid in found or not name.startswith("spl") else 0)
    return bytes(levels)


def _integer(found: Mapping[str, bytes], oid: str) -> int:
    """Return a DER INTEGER of one byte's range, in its one spelling."""
    data = found.get(oid, b"")
    for header, values in _INTEGERS.items():
        if data[:-1] == header and data[-1] in values:
            return data[-1]
    _fail(f"extension {oid}: want an integer of 0 to 255")


def _text(found: Mapping[str, bytes], name: str) -> str:
    """Return an IA5String that a person may be shown."""
    data = found.get(EXTENSIONS[name], b"")
    body = data[2:]
    if not 0 < len(body) <= _MAX_TEXT_BYTES or data[:2] != bytes((_IA5, len(body))) or not body.isascii():
        _fail(f"extension {name}: want text of 1 to {_MAX_TEXT_BYTES} characters")
    text = body.decode("ascii")
    if not text.isprintable():
        _fail(f"extension {name}: control character")
    return text


def _octets(data: bytes, product: Product) -> bytes:
    """Return the hardware id; AMD writes it bare, its specification says OCTET STRING."""
    size = product.hwid_bytes
    body = data[2:] if data[:2] == bytes((_OCTETS, size)) and len(data) == size + 2 else data
    if len(body) != size:
        _fail(f"hardware id of {len(body)} bytes, want {TURIN_HWID_BYTES if size == TURIN_HWID_BYTES else HWID_BYTES}")
    return body
