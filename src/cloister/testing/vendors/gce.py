"""A synthetic Google Compute Engine: authorities, instances with vTPMs, their certificates and evidence.

Structurally what Google issues (names, extension, purposes); worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from cloister.attest.chain import Certificate
from cloister.attest.gce.instance import INSTANCE_EXTENSION
from cloister.attest.parts import dump_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence
from cloister.attest.rules import Exact, OneOf
from cloister.attest.schemes.gce_vtpm import GCE_VTPM, GceVtpmScheme
from cloister.attest.tpm.measured import dump_pcrs
from cloister.testing.vendors.vtpm import SyntheticVtpm, rsa_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric import rsa

    from cloister.attest.rules import Rule
    from cloister.testing.vendors.vtpm import AkKey

__all__ = ["GceAttester", "Instance", "Issue", "SyntheticGoogle", "certificate"]

NOT_BEFORE = datetime(2024, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2054, 1, 1, tzinfo=UTC)
_BOOT_PCRS = range(8)
_BOOLEAN, _INTEGER, _UTF8, _SEQUENCE, _CONTEXT = 0x01, 0x02, 0x0C, 0x30, 0xA0
_SHORT = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """How one certificate is issued. Every default is the vendor's; everything else is a fault to test."""

    subject: x509.Name
    issuer: x509.Name
    signer: rsa.RSAPrivateKey
    authority: bool = False
    cert_sign: bool = False
    signing: bool = True
    usages: tuple[str, ...] = ()
    path_length: int | None = None
    not_before: datetime = NOT_BEFORE
    not_after: datetime = NOT_AFTER
    extensions: tuple[tuple[x509.ObjectIdentifier, bytes], ...] = ()


def certificate(key: AkKey, issue: Issue) -> Certificate:
    """Return a certificate of a cloud's vTPM authorities for ``key``."""
    usage = x509.KeyUsage(
        digital_signature=issue.signing and not issue.authority,
        content_commitment=False,
        key_encipherment=not issue.signing,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issue.authority or issue.cert_sign,
        crl_sign=issue.authority,
        encipher_only=False,
        decipher_only=False,
    )
    constraints = x509.BasicConstraints(ca=issue.authority, path_length=issue.path_length)
    builder = (
        x509.CertificateBuilder()
        .subject_name(issue.subject)
        .issuer_name(issue.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issue.not_before)
        .not_valid_after(issue.not_after)
        .add_extension(usage, critical=True)
        .add_extension(constraints, critical=True)
    )
    if issue.usages:
        named = x509.ExtendedKeyUsage([x509.ObjectIdentifier(oid) for oid in issue.usages])
        builder = builder.add_extension(named, critical=False)
    for oid, value in issue.extensions:
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
    signed = builder.sign(issue.signer, hashes.SHA256())
    return Certificate.parse(signed.public_bytes(serialization.Encoding.DER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One virtual machine as its certificate names it. ``properties`` None leaves the security properties out."""

    zone: str = "europe-west4-b"
    project_number: int = 123456789012
    project: str = "synthetic-project"
    instance: int = 0x8000_0000_0000_0001
    name: str = "synthetic-vm"
    properties: tuple[int | bool, ...] | None = (0, True, True, False)

    def dump(self) -> bytes:
        """Return the contents of Google's extension."""
        body = b"".join(
            (
                der(_UTF8, self.zone.encode()),
                _number(self.project_number),
                der(_UTF8, self.project.encode()),
                _number(self.instance),
                der(_UTF8, self.name.encode()),
            )
        )
        if self.properties is not None:
            inner = b"".join(der(_CONTEXT + index, _value(item)) for index, item in enumerate(self.properties))
            body += der(_CONTEXT, der(_SEQUENCE, inner))
        return der(_SEQUENCE, body)

    @property
    def subject(self) -> x509.Name:
        """The subject of its certificate."""
        return x509.Name(
            [
                x509.NameAttribute(NameOID.LOCALITY_NAME, self.zone),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Google Compute Engine"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, self.project),
                x509.NameAttribute(NameOID.COMMON_NAME, str(self.instance)),
            ]
        )


def der(tag: int, body: bytes) -> bytes:
    """Return one DER element."""
    if len(body) < _SHORT:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, _SHORT + len(size))) + size + body


def _number(value: int) -> bytes:
    return der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _value(value: int | bool) -> bytes:  # noqa: FBT001 - properties are either
    return der(_BOOLEAN, b"\xff" if value else b"\x00") if isinstance(value, bool) else _number(value)


def _authority_name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Google LLC"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Google Cloud"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


class SyntheticGoogle:
    """A root and an intermediate that certify attestation keys of instances."""

    root_name = _authority_name("EK/AK CA Root")
    intermediate_name = _authority_name("EK/AK CA Intermediate")

    @cached_property
    def root(self) -> Certificate:
        """The root certificate."""
        issue = Issue(subject=self.root_name, issuer=self.root_name, signer=self.root_key, authority=True)
        return certificate(self.root_key, issue)

    @cached_property
    def intermediate(self) -> Certificate:
        """The certificate that issues those of instances."""
        issue = Issue(subject=self.intermediate_name, issuer=self.root_name, signer=self.root_key, authority=True)
        return certificate(self.intermediate_key, issue)

    @property
    def root_key(self) -> rsa.RSAPrivateKey:
        """The root's key."""
        return rsa_key(1)

    @property
    def intermediate_key(self) -> rsa.RSAPrivateKey:
        """The intermediate's key."""
        return rsa_key(2)

    @classmethod
    def generate(cls) -> SyntheticGoogle:
        """Return a cloud."""
        return cls()

    def issue(self, instance: Instance) -> Issue:
        """Return how Google issues the certificate of an instance's attestation key."""
        return Issue(
            subject=instance.subject,
            issuer=self.intermediate_name,
            signer=self.intermediate_key,
            extensions=((INSTANCE_EXTENSION, instance.dump()),),
        )

    def chain(self, leaf: Certificate) -> bytes:
        """Return the part ``chain``: the leaf, the intermediate, the root, PEM."""
        return leaf.pem + self.intermediate.pem + self.root.pem

    def scheme(self) -> GceVtpmScheme:
        """Return a scheme that trusts this root."""
        return GceVtpmScheme([self.root])


class GceAttester:
    """Collects evidence of one instance. Any claim can be had: that is the point."""

    tee: Final = GCE_VTPM
    report_data_bytes: Final = 32

    def __init__(
        self, vendor: SyntheticGoogle, software: bytes, instance: Instance | None = None, key: AkKey | None = None
    ) -> None:
        """Boot an instance that measures ``software`` (SHA-256 of the manifest) into PCR 23."""
        self.vendor = vendor
        self.instance = instance or Instance()
        self.vtpm = SyntheticVtpm(key, software=software)

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """Nothing: the chain travels inside the evidence."""
        return {}

    def leaf(self, **faults: object) -> Certificate:
        """Return the certificate of the attestation key; ``faults`` replace members of its ``Issue``."""
        return certificate(self.vtpm.key, replace(self.vendor.issue(self.instance), **faults))  # type: ignore[arg-type]  # members of Issue by name

    def parts(self, report_data: bytes) -> dict[str, bytes]:
        """Return the parts of evidence that carries ``report_data``."""
        attest = self.vtpm.quote(report_data)
        return {
            "ak_public_tpmt": self.vtpm.public().dump(),
            "chain": self.vendor.chain(self.leaf()),
            "eventlog": self.vtpm.event_log,
            "pcrs": dump_pcrs(self.vtpm.pcrs),
            "quote": attest,
            "signature_tpmt": self.vtpm.sign(attest).dump(),
            "software": self.vtpm.software,
        }

    def collect(self, report_data: bytes) -> Evidence:
        """Return evidence that carries ``report_data``."""
        return Evidence(tee=GCE_VTPM, payload=dump_parts(self.parts(report_data)))

    def policy(self, version: int = 1) -> Policy:
        """Return a policy that accepts this instance, this boot and this software, and no other."""
        rules: dict[str, Rule] = {f"pcr.{index}": OneOf((self.vtpm.pcrs[index].hex(),)) for index in _BOOT_PCRS}
        rules |= {
            "instance": OneOf((str(self.instance.instance),)),
            "project": Exact(self.instance.project),
            "secure_boot": Exact(value=True),
            "software": OneOf((self.vtpm.software.hex(),)),
            "zone": Exact(self.instance.zone),
        }
        return Policy(version=version, tees={GCE_VTPM: TeePolicy(rules)})
