"""Device certificates of GPUs and switches, from the attestation key to the pinned identity root.

Five as NVIDIA issues them: attestation key of the firmware (``GH100 A01 GSP FMC LF``), key in the chip's ROM
(``GH100 A01 GSP BROM``), provisioner, identity, ``NVIDIA Device Identity CA``. The chip's name is in the first two
and in the leaf's DMTF device name; other products of the vendor hang below the same root, so the chip decides whether
this is a GPU or a switch at all.

Not done here: revocation (``ocsp``), firmware digest (``dice``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from cloister.attest.chain import Certificate, parse_certificates, verify_chain
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["MAX_CHAIN_BYTES", "Arch", "DeviceChain", "verify_device_chain"]

MAX_CHAIN_BYTES = 32 * 1024  # bytes; NVML's own buffer has 20 KiB
_MAX_CERTIFICATES = 8
_DMTF_DEVICE_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1")  # DSP0274 1.1.0, "Certificates": otherName
_DER_LONG = 0x82  # a SEQUENCE with two length bytes: every certificate of 256 to 65,535 bytes
_DER_HEADER_BYTES = 4


class Arch(Enum):
    """Architectures as NVIDIA's evidence spells them."""

    HOPPER = "HOPPER"
    BLACKWELL = "BLACKWELL"
    LS10 = "LS10"

    @property
    def is_switch(self) -> bool:
        """Whether it is an NVSwitch."""
        return self is Arch.LS10


_LS10 = re.compile(r"LS_?10")
_CHIPS = (
    (re.compile(r"GH\d{3}"), Arch.HOPPER),
    (re.compile(r"GB\d{2}[0-9A-Z]"), Arch.BLACKWELL),
    (_LS10, Arch.LS10),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChain:
    """Certificates as the device sent them, the attestation key's first; unverified."""

    certificates: tuple[Certificate, ...]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse PEM, or DER certificates one after another. Raises ``Malformed``."""
        if len(data) > MAX_CHAIN_BYTES:
            msg = f"nvidia chain: {len(data)} bytes, want at most {MAX_CHAIN_BYTES}"
            raise Malformed(msg)
        found = _split_der(data) if data[:1] == b"\x30" else parse_certificates(data)
        if not 1 < len(found) <= _MAX_CERTIFICATES:
            msg = f"nvidia chain: {len(found)} certificates, want 2 to {_MAX_CERTIFICATES}"
            raise Malformed(msg)
        return cls(certificates=found)

    @property
    def leaf(self) -> Certificate:
        """The attestation key's certificate."""
        return self.certificates[0]

    @property
    def leaf_name(self) -> str:
        """Common name of the leaf: ``GH100 A01 GSP FMC LF``."""
        return _common_name(self.leaf.x509.subject)

    @property
    def model_name(self) -> str:
        """Common name of the leaf's issuer, the key in the ROM: ``GH100 A01 GSP BROM``."""
        return _common_name(self.leaf.x509.issuer)

    @property
    def chip(self) -> str:
        """The chip as the leaf spells it: ``GH100``."""
        return self.leaf_name.partition(" ")[0]

    @property
    def is_switch(self) -> bool:
        """Whether the leaf speaks of an NVSwitch."""
        return _LS10.fullmatch(self.chip) is not None

    @property
    def arch(self) -> Arch:
        """The chip's architecture. Raises ``Rejected`` (``unsupported_format``) for any other product."""
        for pattern, arch in _CHIPS:
            if pattern.fullmatch(self.chip):
                return arch
        raise Rejected.because(
            "unsupported_format", "nvidia chip", got=self.chip[:64], want="Hopper, Blackwell or LS10"
        )


def _common_name(name: x509.Name) -> str:
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return ascii(str(values[0].value))[1:-1] if values else ""  # shown in messages: steers no terminal (T84)


def _split_der(data: bytes) -> tuple[Certificate, ...]:
    found: list[Certificate] = []
    rest = data
    while rest and len(found) <= _MAX_CERTIFICATES:
        if rest[1:2] != bytes((_DER_LONG,)):
            msg = "nvidia chain: neither pem nor der certificates one after another"
            raise Malformed(msg)
        size = _DER_HEADER_BYTES + int.from_bytes(rest[2:_DER_HEADER_BYTES], "big")
        found.append(Certificate.parse(rest[:size]))
        rest = rest[size:]
    return tuple(found)


def verify_device_chain(chain: DeviceChain, roots: Sequence[Certificate], now: datetime) -> tuple[Certificate, ...]:
    """Prove that a pinned root vouches for the attestation key of one chip; return the path, leaf to root.

    Raises ``Rejected`` with the codes of ``verify_chain``; ``chain_invalid`` for a leaf that may not sign, that is an
    authority, or whose chip is not the one of the key above it.
    """
    path = verify_chain(chain.leaf, chain.certificates[1:], roots, now)
    extensions = {item.oid: item.value for item in chain.leaf.x509.extensions}
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature:
        raise Rejected.because("chain_invalid", chain.leaf.shown, got="key usage", want="digitalSignature")
    basic = extensions.get(ExtensionOID.BASIC_CONSTRAINTS)
    if usage.key_cert_sign or (isinstance(basic, x509.BasicConstraints) and basic.ca):
        raise Rejected.because("chain_invalid", chain.leaf.shown, got="an authority", want="an attestation key")
    above = chain.model_name.partition(" ")[0]
    if above != chain.chip:
        raise Rejected.because("chain_invalid", "chip", got=chain.chip[:64], want=above[:64])
    named = _device_name(extensions.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME))
    if named is not None and f":{chain.chip}:".encode() not in named:
        raise Rejected.because(
            "chain_invalid", "device name", got=ascii(named)[:128], want=f"NVIDIA:{chain.chip[:64]}:"
        )
    return path


def _device_name(names: x509.ExtensionType | None) -> bytes | None:
    """Return the DMTF device name (``NVIDIA:GH100:<serial>``) as DER, None where the leaf has none."""
    if not isinstance(names, x509.SubjectAlternativeName):
        return None
    return next(
        (name.value for name in names.get_values_for_type(x509.OtherName) if name.type_id == _DMTF_DEVICE_NAME), None
    )
