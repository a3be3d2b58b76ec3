"""Certificates for attestation keys: an enrolment authority says which device a key lives in (docs/adr/0006).

    subject          CN = device (64 hex), dnQualifier = Name of the key (hex)
    key usage        digitalSignature, critical; extended: 2.23.133.8.3 (tcg-kp-AIKCertificate)
    alternative name manufacturer, model, version of the TPM, where its own certificate said them

The Name in the certificate covers the key's attributes, so that nobody shows the same key as another kind
of key. Not done here: proving that the key lives there (``enrolment``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from cloister.attest.chain import Certificate, verify_chain
from cloister.attest.tpm.ek import TPM_NAMES, TpmModel, model_of
from cloister.errors import Malformed, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloister.attest.tpm.structures import Public

__all__ = [
    "AK_USAGE",
    "AkCertificate",
    "create_authority",
    "issue_ak_certificate",
    "verify_ak_certificate",
    "verify_signing_leaf",
]

AK_USAGE = ObjectIdentifier("2.23.133.8.3")
AK_TTL = timedelta(days=90)
AUTHORITY_TTL = timedelta(days=3650)
_SKEW = timedelta(minutes=5)  # verifiers' clocks may be this far behind ours
_DEVICE = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"(000b[0-9a-f]{64}|000c[0-9a-f]{96}|000d[0-9a-f]{128})")


@dataclass(frozen=True, slots=True, kw_only=True)
class AkCertificate:
    """What a certificate of ours says: the key named ``name`` lives in ``device``."""

    certificate: Certificate
    device: str
    name: bytes
    model: TpmModel

    @classmethod
    def parse(cls, certificate: Certificate) -> AkCertificate:
        """Read the profile above out of a certificate. Raises ``Malformed``. Does not check who signed it."""
        subject = certificate.x509.subject
        device = _only(subject, NameOID.COMMON_NAME, _DEVICE)
        name = bytes.fromhex(_only(subject, NameOID.DN_QUALIFIER, _NAME))
        return cls(certificate=certificate, device=device, name=name, model=model_of(certificate))


def _only(subject: x509.Name, oid: ObjectIdentifier, form: re.Pattern[str]) -> str:
    values = [item.value for item in subject.get_attributes_for_oid(oid)]
    if len(values) != 1 or not isinstance(values[0], str) or not form.fullmatch(values[0]):
        msg = f"attestation key certificate: {oid.dotted_string}: want one {form.pattern}"
        raise Malformed(msg)
    return values[0]


def create_authority(
    name: str, now: datetime, *, ttl: timedelta = AUTHORITY_TTL
) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return a fresh enrolment authority: its P-256 key and its self-signed certificate (DER)."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder(subject, subject, now, ttl)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    return key, certificate.public_bytes(serialization.Encoding.DER)


def _builder(subject: x509.Name, issuer: x509.Name, now: datetime, ttl: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + ttl)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        key_cert_sign=not sign,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def issue_ak_certificate(
    ak: Public,
    device: str,
    model: TpmModel,
    *,
    ca_key: ec.EllipticCurvePrivateKey,
    ca_cert: bytes,
    now: datetime,
    ttl: timedelta = AK_TTL,
) -> bytes:
    """Return the certificate (DER) that binds ``ak`` to ``device``. Only for keys that enrolment has proven."""
    authority = Certificate.parse(ca_cert).x509
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, device),
            x509.NameAttribute(NameOID.DN_QUALIFIER, ak.name.hex()),
        ]
    )
    builder = (
        _builder(subject, authority.subject, now, ttl)
        .public_key(ak.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([AK_USAGE]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    texts = zip(TPM_NAMES, (model.manufacturer, model.model, model.version), strict=True)
    known = [x509.NameAttribute(oid, text) for oid, text in texts if text]
    if known:
        names = x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(known))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def verify_ak_certificate(
    certificates: Sequence[Certificate], ak: Public, authorities: Sequence[Certificate], now: datetime
) -> AkCertificate:
    """Prove that one of ``authorities`` certifies ``ak``, attributes included. ``certificates`` begin with the key's.

    Raises ``Malformed``; ``Rejected``: the codes of ``verify_chain``, ``key_binding_mismatch``.
    """
    leaf, *between = certificates
    # 1. Chain, then purpose.
    verify_chain(leaf, between, authorities, now)
    found = {extension.oid: extension.value for extension in leaf.x509.extensions}
    usages = found.get(ExtensionOID.EXTENDED_KEY_USAGE)
    if not isinstance(usages, x509.ExtendedKeyUsage) or AK_USAGE not in usages:
        raise Rejected.because("chain_invalid", leaf.shown, got="extended key usage", want=AK_USAGE.dotted_string)
    # 2. The same key, and the same Name: key and attributes.
    parsed = AkCertificate.parse(leaf)
    same_key = leaf.x509.public_key() == ak.public_key()
    if not same_key or parsed.name != ak.name:
        raise Rejected.because("key_binding_mismatch", "attestation key", got=ak.name.hex(), want=parsed.name.hex())
    return parsed


def verify_signing_leaf(leaf: Certificate) -> None:
    """Prove that a cloud's certificate is for a key that signs and issues nothing: no authority, no endorsement key.

    The same authorities certify endorsement keys, which decrypt. Raises ``Rejected`` (``chain_invalid``).
    """
    found = {extension.oid: extension.value for extension in leaf.x509.extensions}
    basic = found.get(ExtensionOID.BASIC_CONSTRAINTS)
    if isinstance(basic, x509.BasicConstraints) and basic.ca:
        raise Rejected.because("chain_invalid", leaf.shown, got="an authority", want="an attestation key")
    usage = found.get(ExtensionOID.KEY_USAGE)
    if not isinstance(usage, x509.KeyUsage) or not usage.digital_signature or usage.key_cert_sign:
        raise Rejected.because("chain_invalid", leaf.shown, got="key usage", want="digitalSignature alone")
