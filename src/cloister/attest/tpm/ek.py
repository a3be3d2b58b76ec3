"""Endorsement keys: the maker's certificate says that a key lives in a real TPM (TCG EK Credential Profile 2.5).

Not done here: revocation lists of makers; a device that is no longer wanted is retired by the custodian
and refused by policies through the claim ``device``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from cloister.attest.chain import Certificate, verify_chain
from cloister.attest.tpm.structures import Attribute
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from cloister.attest.tpm.structures import Public

__all__ = ["EK_USAGE", "TPM_NAMES", "TpmModel", "VerifiedEk", "device_of", "model_of", "trim_der", "verify_ek"]

EK_USAGE = ObjectIdentifier("2.23.133.8.1")  # tcg-kp-EKCertificate, section 3.2.16
TPM_NAMES = tuple(ObjectIdentifier(f"2.23.133.2.{index}") for index in (1, 2, 3))
"""Subject alternative name attributes: manufacturer, model, version (section 3.2.9)."""

_MAX_CHARS = 64
_ENDORSEMENT_KEY = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.ADMIN_WITH_POLICY
    | Attribute.RESTRICTED
    | Attribute.DECRYPT
)
_FREE = Attribute.USER_WITH_AUTH | Attribute.NO_DA
_DER_SEQUENCE = 0x30
_DER_TWO_BYTE_LENGTH = 0x82


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmModel:
    """What a certificate says about the make of a TPM; empty where it says nothing."""

    manufacturer: str = ""
    model: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEk:
    """An endorsement key that its maker, or the custodian by hand, vouches for. ``device`` names the TPM for good."""

    public: Public
    device: str
    model: TpmModel


def device_of(ek: Public) -> str:
    """Return the name of the device: SHA-256 over the endorsement key's SubjectPublicKeyInfo, lower-case hex."""
    der = ek.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def trim_der(data: bytes) -> bytes:
    """Return a certificate without the padding that TPMs keep behind it in NV memory."""
    if len(data) > 4 and data[0] == _DER_SEQUENCE and data[1] == _DER_TWO_BYTE_LENGTH:  # noqa: PLR2004 - the header
        return data[: 4 + int.from_bytes(data[2:4], "big")]
    return data


def model_of(certificate: Certificate) -> TpmModel:
    """Return manufacturer, model and version from the subject alternative name. Raises ``Malformed``."""
    found: dict[ObjectIdentifier, str | bytes] = {}
    for extension in certificate.x509.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            for name in extension.value.get_values_for_type(x509.DirectoryName):
                found |= {attribute.oid: attribute.value for attribute in name}
    texts = [found.get(oid, "") for oid in TPM_NAMES]
    for text in texts:
        if not isinstance(text, str) or len(text) > _MAX_CHARS or not (text.isprintable() and text.isascii()):
            msg = "tpm certificate: manufacturer, model or version out of form"
            raise Malformed(msg)
    manufacturer, model, version = map(str, texts)
    return TpmModel(manufacturer=manufacturer, model=model, version=version)


def verify_ek(
    ek: Public,
    certificates: Sequence[Certificate],
    roots: Sequence[Certificate],
    now: datetime,
    *,
    pinned: Collection[str] = (),
) -> VerifiedEk:
    """Prove that ``ek`` is the endorsement key of a TPM whose maker is among ``roots``, or one pinned by hand.

    ``certificates`` begin with the key's own; ``pinned`` are device names (``device_of``). Raises
    ``Rejected``: ``ek_attributes_invalid``, ``untrusted_root`` and the codes of ``verify_chain``,
    ``chain_invalid`` for a certificate of another purpose, ``key_binding_mismatch``.
    """
    # 1. A storage key born in this TPM: it decrypts credentials and nothing else.
    if ek.attributes & ~_FREE != _ENDORSEMENT_KEY or ek.symmetric is None:
        raise Rejected.because(
            "ek_attributes_invalid", "endorsement key", got=f"{ek.attributes:#010x}", want=f"{_ENDORSEMENT_KEY:#010x}"
        )
    device = device_of(ek)
    # 2. Pinned by hand: somebody compared the name with the machine in front of them. Nobody vouches for what
    # certificates sent along say of its make.
    if device in pinned:
        return VerifiedEk(public=ek, device=device, model=TpmModel())
    if not certificates:
        raise Rejected.because("untrusted_root", "endorsement key", got=f"no certificate for device {device}")
    # 3. The maker's chain, and the purpose of the certificate.
    leaf, *between = certificates
    verify_chain(leaf, between, roots, now, looked_at={ExtensionOID.SUBJECT_ALTERNATIVE_NAME})
    _verify_purpose(leaf)
    # 4. The certificate is about this key.
    if hashlib.sha256(leaf.public_key_der).hexdigest() != device:
        raise Rejected.because("key_binding_mismatch", "endorsement key", got=device, want=leaf.shown)
    return VerifiedEk(public=ek, device=device, model=model_of(leaf))


def _verify_purpose(leaf: Certificate) -> None:
    found = {extension.oid: extension.value for extension in leaf.x509.extensions}
    usages = found.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if not isinstance(usages, x509.ExtendedKeyUsage) or EK_USAGE not in usages:
        raise Rejected.because("chain_invalid", leaf.shown, got="extended key usage", want=EK_USAGE.dotted_string)
    basic = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    if isinstance(basic, x509.BasicConstraints) and basic.ca:
        raise Rejected.because("chain_invalid", leaf.shown, got="an authority", want="an endorsement key")
