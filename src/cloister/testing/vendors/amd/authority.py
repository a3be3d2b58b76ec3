"""The certificates of one line of processors: ARK, ASK, ASVK, and what they issue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from cloister.attest.amd.authority import AmdTrust
from cloister.attest.amd.products import Product
from cloister.attest.amd.report import SigningKey
from cloister.attest.chain import Certificate
from cloister.attest.endorse.names import amd_ca, amd_crl, amd_vlek_ca
from cloister.attest.schemes.snp import SnpScheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from cloister.attest.rules import NotChecked

__all__ = ["NOT_AFTER", "NOT_BEFORE", "Issue", "SyntheticAmd"]

NOT_BEFORE = datetime(2024, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2049, 12, 31, tzinfo=UTC)
_RSA_BITS = 4096
_SALT_BYTES = 48
_LINES = tuple(Product)
_SERIAL_1, _SERIAL_0 = b"\xa0\x03\x02\x01\x02\x02\x01\x01", b"\xa0\x03\x02\x01\x02\x02\x01\x00"  # after version 3
_ARK, _ASK, _ASVK = range(3)


@cache
def _key(number: int) -> rsa.RSAPrivateKey:
    """Return one of the keys of this process."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """How one certificate is issued. Every default is AMD's; everything else is a fault to test."""

    common_name: str = ""
    issuer: str = ""
    signer: rsa.RSAPrivateKey | None = None
    serial: int = 0
    not_before: datetime = NOT_BEFORE
    not_after: datetime = NOT_AFTER
    authority: bool | None = None
    cert_sign: bool = True
    crl_sign: bool = False
    salt_bytes: int | None = _SALT_BYTES
    digest: type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = hashes.SHA384
    extensions: Mapping[str, bytes] | None = None


def _subject(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _key_usage(issue: Issue) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not issue.cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issue.cert_sign,
        crl_sign=issue.crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _padding(issue: Issue) -> padding.PSS | padding.PKCS1v15:
    if issue.salt_bytes is None:
        return padding.PKCS1v15()
    return padding.PSS(padding.MGF1(issue.digest()), issue.salt_bytes)


class SyntheticAmd:
    """One line of processors and its authorities."""

    def __init__(
        self,
        product: Product = Product.MILAN,
        *,
        ark: Issue | None = None,
        ask: Issue | None = None,
        asvk: Issue | None = None,
    ) -> None:
        """Make the authorities; ``ark``, ``ask`` and ``asvk`` say how they are issued where not as AMD does."""
        self.product = product
        self._keys = tuple(_key((_LINES.index(product) + place) % len(_LINES)) for place in (_ARK, _ASK, _ASVK))
        self._ark, self._ask, self._asvk = ark or Issue(crl_sign=True), ask or Issue(), asvk or Issue()

    @classmethod
    def generate(cls, product: Product = Product.MILAN) -> Self:
        """Return a line of processors as AMD makes them."""
        return cls(product)

    @property
    def ark_key(self) -> rsa.RSAPrivateKey:
        """The root key."""
        return self._keys[_ARK]

    @property
    def root_name(self) -> str:
        """Common name of the ARK."""
        return f"ARK-{self.product.value}"

    @cached_property
    def ark(self) -> Certificate:
        """The root certificate."""
        issue = replace(self._ark, common_name=self.root_name, serial=0x10000, authority=True)
        return self.issue(self.ark_key.public_key(), issue, SigningKey.NONE)

    @cached_property
    def ask(self) -> Certificate:
        """The certificate that issues VCEKs."""
        return self._intermediate(self._ask, f"SEV-{self.product.value}", 0x10001, _ASK)

    @cached_property
    def asvk(self) -> Certificate:
        """The certificate that issues VLEKs."""
        return self._intermediate(self._asvk, f"SEV-VLEK-{self.product.value}", 0x10101, _ASVK)

    def _intermediate(self, issue: Issue, common_name: str, serial: int, place: int) -> Certificate:
        changed = replace(
            issue,
            common_name=issue.common_name or common_name,
            serial=issue.serial or serial,
            authority=True if issue.authority is None else issue.authority,
        )
        return self.issue(self._keys[place].public_key(), changed, SigningKey.NONE)

    def intermediate(self, kind: SigningKey) -> Certificate:
        """Return ASK or ASVK."""
        return self.asvk if kind is SigningKey.VLEK else self.ask

    def issue(self, key: CertificatePublicKeyTypes, issue: Issue, kind: SigningKey) -> Certificate:
        """Return a certificate from the ASK (``VCEK``), the ASVK (``VLEK``) or the ARK (``NONE``)."""
        place = {SigningKey.VCEK: _ASK, SigningKey.VLEK: _ASVK, SigningKey.NONE: _ARK}[kind]
        issuer = self.root_name if kind is SigningKey.NONE else _common_name(self.intermediate(kind))
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(issue.common_name))
            .issuer_name(_subject(issue.issuer or issuer))
            .public_key(key)
            .serial_number(issue.serial or 1)
            .not_valid_before(issue.not_before)
            .not_valid_after(issue.not_after)
        )
        if issue.authority is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=issue.authority, path_length=None), critical=True)
            builder = builder.add_extension(_key_usage(issue), critical=True)
        for oid, value in (issue.extensions or {}).items():
            unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(unknown, critical=False)
        signer = issue.signer or self._keys[place]
        signed = builder.sign(signer, issue.digest(), rsa_padding=_padding(issue))
        der = signed.public_bytes(serialization.Encoding.DER)
        if issue.serial == 0:
            der = _zero_serial(signed, signer, issue)
        return Certificate.parse(der, zero_serial=True)

    def crl(
        self,
        *revoked: int,
        issue: Issue | None = None,
        extension: x509.ExtensionType | None = None,
    ) -> bytes:
        """Return the ARK's revocation list with these serial numbers; ``issue`` gives window, issuer and signature."""
        made = issue or Issue()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_subject(made.issuer or self.root_name))
            .last_update(made.not_before)
            .next_update(made.not_after)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOT_BEFORE).build()
            builder = builder.add_revoked_certificate(entry)
        signed = builder.sign(made.signer or self.ark_key, made.digest(), rsa_padding=_padding(made))
        return signed.public_bytes(serialization.Encoding.DER)

    @property
    def trust(self) -> AmdTrust:
        """Trust in this root alone."""
        return AmdTrust(roots={self.product: self.ark})

    def scheme(self, *, revocation: NotChecked | None = None) -> SnpScheme:
        """Return a scheme that trusts this root."""
        return SnpScheme(self.trust, revocation=revocation)

    @cached_property
    def endorsements(self) -> Mapping[str, bytes]:
        """What AMD's key service has for this line: authorities as PEM, and a list that names nobody."""
        return {
            amd_ca(self.product.key): self.ask.pem + self.ark.pem,
            amd_vlek_ca(self.product.key): self.asvk.pem + self.ark.pem,
            amd_crl(self.product.key): self.crl(),
        }


def _zero_serial(made: x509.Certificate, signer: rsa.RSAPrivateKey, issue: Issue) -> bytes:
    """Return the certificate with the serial number 0 of AMD's chips, which the library refuses to write."""
    old = made.tbs_certificate_bytes
    new = old.replace(_SERIAL_1, _SERIAL_0, 1)
    der = made.public_bytes(serialization.Encoding.DER).replace(old, new)
    return der[: -len(made.signature)] + signer.sign(new, _padding(issue), issue.digest())


def _common_name(certificate: Certificate) -> str:
    (found,) = certificate.x509.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found.value)
