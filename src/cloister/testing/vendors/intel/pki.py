"""Certificates and revocation lists in the form of Intel's (PCK Certificate and CRL Profile Specification)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from cloister.attest.chain import Certificate
from cloister.attest.intel.pck import SGX_EXTENSION

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["NOT_AFTER", "NOT_BEFORE", "Authority", "PlatformSpec", "make_crl", "name_of", "raw_signature"]

NOT_BEFORE = datetime(2024, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2034, 1, 1, tzinfo=UTC)
_OID = bytes.fromhex("2a864886f84d010d01")
_P256_BYTES = 32


def name_of(common_name: str) -> x509.Name:
    """Return a subject as Intel writes them, of an organisation that says what it is."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Synthetic Silicon"),
        ]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformSpec:
    """What a PCK certificate says of its platform."""

    ppid: bytes = bytes(range(16))
    components: tuple[int, ...] = (5, 5, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0)
    pcesvn: int = 11
    pceid: bytes = bytes(2)
    fmspc: bytes = bytes.fromhex("00806f050000")
    sgx_type: int = 1
    flags: tuple[bool, bool, bool] | None = (True, False, True)
    issuer: str = "Platform"

    def extension(self) -> bytes:
        """Return the DER of the SGX extension (section 1.3.5)."""
        tcb = [_pair((2, index + 1), _integer(value)) for index, value in enumerate(self.components)]
        tcb += [_pair((2, 17), _integer(self.pcesvn)), _pair((2, 18), _tlv(0x04, bytes(self.components)))]
        fields = [
            _pair((1,), _tlv(0x04, self.ppid)),
            _pair((2,), _tlv(0x30, b"".join(tcb))),
            _pair((3,), _tlv(0x04, self.pceid)),
            _pair((4,), _tlv(0x04, self.fmspc)),
            _pair((5,), _tlv(0x0A, bytes((self.sgx_type,)))),
        ]
        if self.flags is not None:
            given = [
                _pair((7, index + 1), _tlv(0x01, b"\xff" if on else b"\x00")) for index, on in enumerate(self.flags)
            ]
            fields += [_pair((6,), _tlv(0x04, bytes(16))), _pair((7,), _tlv(0x30, b"".join(given)))]
        return _tlv(0x30, b"".join(fields))


def _tlv(tag: int, contents: bytes) -> bytes:
    size = len(contents)
    if size < 0x80:  # noqa: PLR2004 - X.690 section 8.1.3.4
        return bytes((tag, size)) + contents
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + contents


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes((value.bit_length() + 8) // 8 or 1, "big"))


def _pair(arcs: tuple[int, ...], value: bytes) -> bytes:
    return _tlv(0x30, _tlv(0x06, _OID + bytes(arcs)) + value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A key and the certificate for it; also a leaf, which signs reports and texts."""

    certificate: Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def root(cls, common_name: str) -> Self:
        """Return a self-signed authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = name_of(common_name)
        return cls(certificate=_build(subject, subject, key.public_key(), key, path_length=1), key=key)

    def issue(
        self,
        common_name: str,
        *,
        path_length: int | None = None,
        platform: PlatformSpec | None = None,
        not_before: datetime = NOT_BEFORE,
        not_after: datetime = NOT_AFTER,
        may_sign: bool = True,
        issuer: str | None = None,
    ) -> Authority:
        """Return what this authority certifies: an authority where it has a ``path_length``, else a leaf."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _build(
            name_of(common_name),
            self.certificate.x509.subject if issuer is None else name_of(issuer),
            key.public_key(),
            self.key,
            path_length=path_length,
            platform=platform,
            not_before=not_before,
            not_after=not_after,
            may_sign=may_sign,
        )
        return Authority(certificate=certificate, key=key)

    @property
    def pem(self) -> str:
        """The certificate as PEM."""
        return self.certificate.pem.decode("ascii")

    def sign(self, data: bytes) -> bytes:
        """Return r and s over ``data``."""
        return raw_signature(self.key, data)


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return r and s, 32 bytes each, of P-256 ECDSA with SHA-256."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")


def _build(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    path_length: int | None,
    platform: PlatformSpec | None = None,
    not_before: datetime = NOT_BEFORE,
    not_after: datetime = NOT_AFTER,
    may_sign: bool = True,
) -> Certificate:
    authority = path_length is not None
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=may_sign and not authority,
                key_cert_sign=authority,
                crl_sign=authority,
                encipher_only=False,
                decipher_only=False,
                **usage,
            ),
            critical=True,
        )
    )
    if platform is not None:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(SGX_EXTENSION, platform.extension()),
            critical=False,
        )
    certificate = builder.sign(signer, hashes.SHA256())
    return Certificate.parse(certificate.public_bytes(serialization.Encoding.DER))


def make_crl(authority: Authority, revoked: Iterable[Certificate], issued: datetime, until: datetime) -> bytes:
    """Return a revocation list in DER."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.x509.subject)
        .last_update(issued)
        .next_update(until)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(certificate.x509.serial_number).revocation_date(issued)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
