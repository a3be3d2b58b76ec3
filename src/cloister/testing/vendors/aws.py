"""A synthetic AWS: an own root, Nitro documents of any content. It protects nothing.

The chain has the shape of the real one: root, then authorities of region, zone and instance with path lengths 2, 1
and 0, then the certificate that signs. What a test wants otherwise it says: ``Chain`` for certificates,
``Document`` for what is signed and how it is wrapped.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloister.attest.cbor import Cbor, dump_cbor
from cloister.attest.chain import Certificate
from cloister.attest.parts import dump_parts
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Evidence
from cloister.attest.rules import AtMost, Exact, OneOf
from cloister.attest.schemes.nitro import NITRO, NitroScheme

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Chain", "Document", "NitroAttester", "NitroVendor", "Tier", "sample_pcrs"]

PCR_BYTES = 48
_SIGNATURE_HALF = 48  # bytes of r and of s on P-384
_START, _END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_MODULE = "i-0123456789abcdef0-enc0123456789abcdef"


def sample_pcrs() -> dict[int, bytes]:
    """Return sixteen registers as an enclave has them: image, kernel, application, role, instance, signer; zeros."""
    used = (0, 1, 2, 3, 4, 8)
    return {index: bytes((index + 1,)) * PCR_BYTES if index in used else bytes(PCR_BYTES) for index in range(16)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One certificate of the chain; None leaves an extension out."""

    name: str
    ca: bool | None = True
    path_length: int | None = None
    signs_certificates: bool = True
    digital_signature: bool = False
    usage: bool = True
    not_before: datetime = _START
    not_after: datetime = _END
    curve: ec.EllipticCurve = field(default_factory=ec.SECP384R1)
    rsa: bool = False
    issuer_name: str | None = None
    critical_extra: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The certificates from root to leaf."""

    root: Tier = Tier(name="synthetic.nitro-enclaves")
    region: Tier = Tier(name="region.synthetic.nitro-enclaves", path_length=2)
    zone: Tier = Tier(name="zone.synthetic.nitro-enclaves", path_length=1)
    instance: Tier = Tier(name="instance.synthetic.nitro-enclaves", path_length=0)
    leaf: Tier = Tier(name=f"{_MODULE}.synthetic", ca=False, signs_certificates=False, digital_signature=True)

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """From root to leaf."""
        return self.root, self.region, self.zone, self.instance, self.leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What is signed and how. ``fields`` replaces or adds members of the document, ``left_out`` takes some away."""

    timestamp: datetime
    user_data: bytes | None = None
    nonce: bytes | None = None
    public_key: bytes | None = None
    pcrs: Mapping[int, bytes] = field(default_factory=sample_pcrs)
    fields: Mapping[int | str, Cbor] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    indefinite: bool = False
    tagged: bool = False
    protected: Mapping[int | str, Cbor] = field(default_factory=lambda: {1: -35})
    unprotected: Mapping[int | str, Cbor] = field(default_factory=dict)
    trailing: bytes = b""


@dataclass(frozen=True, slots=True)
class _Issued:
    """A certificate and its key."""

    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


class NitroVendor:
    """A root with the chain below it."""

    def __init__(self, issued: tuple[_Issued, ...]) -> None:
        """Take certificates from root to leaf; ``generate`` makes them."""
        self._issued = issued

    @classmethod
    def generate(cls, chain: Chain | None = None) -> NitroVendor:
        """Return a vendor with fresh keys."""
        issued: list[_Issued] = []
        for tier in (chain or Chain()).tiers:
            issued.append(_issue(tier, issued[-1] if issued else None))
        return cls(tuple(issued))

    def with_chain(self, chain: Chain) -> NitroVendor:
        """Return the same root with a new chain below it."""
        issued = [self._issued[0]]
        for tier in chain.tiers[1:]:
            issued.append(_issue(tier, issued[-1]))
        return NitroVendor(tuple(issued))

    @property
    def root(self) -> Certificate:
        """The root that a scheme pins."""
        return Certificate.parse(self._issued[0].der)

    @property
    def bundle(self) -> list[Cbor]:
        """The authorities as documents carry them, root first."""
        return [item.der for item in self._issued[:-1]]

    @property
    def endorsements(self) -> Mapping[str, bytes]:
        """Nothing: the chain travels inside the document."""
        return {}

    def scheme(self) -> NitroScheme:
        """Return the scheme that pins this root."""
        return NitroScheme([self.root])

    def payload(self, document: Document) -> bytes:
        """Return what is signed."""
        members: dict[int | str, Cbor] = {
            "module_id": _MODULE,
            "digest": "SHA384",
            "timestamp": int(document.timestamp.timestamp() * 1000),
            "pcrs": {index: value for index, value in document.pcrs.items()},  # noqa: C416 - a copy of a wider type
            "certificate": self._issued[-1].der,
            "cabundle": self.bundle,
            "public_key": document.public_key,
            "user_data": document.user_data,
            "nonce": document.nonce,
            **document.fields,
        }
        kept = {name: value for name, value in members.items() if name not in document.left_out}
        if not document.indefinite:
            return dump_cbor(kept)
        return b"\xbf" + b"".join(dump_cbor(name) + dump_cbor(value) for name, value in kept.items()) + b"\xff"

    def sign(self, payload: bytes, document: Document) -> bytes:
        """Return the signed document around a payload."""
        protected = dump_cbor(dict(document.protected))
        covered = dump_cbor(["Signature1", protected, b"", payload])
        # Where the certificate's key cannot sign so, an authority's does: the chain is what such a test is about.
        key = next(item.key for item in reversed(self._issued) if isinstance(item.key, ec.EllipticCurvePrivateKey))
        r, s = decode_dss_signature(key.sign(covered, ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(_SIGNATURE_HALF, "big") + s.to_bytes(_SIGNATURE_HALF, "big")
        outer = [protected, dict(document.unprotected), payload, signature]
        return cbor2.dumps(cbor2.CBORTag(18, outer) if document.tagged else outer) + document.trailing

    def document(self, document: Document) -> bytes:
        """Return a document as the module would."""
        return self.sign(self.payload(document), document)

    def evidence(self, document: Document) -> Evidence:
        """Return a document as evidence."""
        return Evidence(tee=NITRO, payload=dump_parts({"document": self.document(document)}))

    def attester(self, clock: Callable[[], datetime] | None = None, **members: object) -> NitroAttester:
        """Return an enclave's side; ``members`` are those of ``Document`` that should be otherwise."""
        return NitroAttester(self, clock or (lambda: datetime.now(UTC)), members)

    def policy(self, version: int = 1, *, max_age: timedelta = timedelta(minutes=5)) -> Policy:
        """Return a policy that accepts ``sample_pcrs`` out of debug mode, not older than ``max_age``."""
        pcrs = {f"pcr.{index}": OneOf((value.hex(),)) for index, value in sample_pcrs().items() if index <= 2}  # noqa: PLR2004 - the image's own
        age = AtMost(int(max_age.total_seconds()))
        return Policy(version=version, tees={NITRO: TeePolicy({"debug": Exact(value=False), "age": age, **pcrs})})


class NitroAttester:
    """Asks the synthetic module for documents."""

    tee: Final = NITRO
    report_data_bytes: Final = 64

    def __init__(self, vendor: NitroVendor, clock: Callable[[], datetime], members: Mapping[str, object]) -> None:
        """Take the module, its clock and what its documents have otherwise."""
        self._vendor = vendor
        self._clock = clock
        self._members = members

    def collect(self, report_data: bytes) -> Evidence:
        """Return a fresh document with ``report_data`` as its user data."""
        document = Document(timestamp=self._clock(), user_data=report_data)
        return self._vendor.evidence(replace(document, **self._members))  # type: ignore[arg-type]  # members by name


def _name(common: str) -> x509.Name:
    parts = ((NameOID.COUNTRY_NAME, "US"), (NameOID.ORGANIZATION_NAME, "Synthetic"), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def _issue(tier: Tier, issuer: _Issued | None) -> _Issued:
    key = rsa.generate_private_key(65537, 2048) if tier.rsa else ec.generate_private_key(tier.curve)
    issuer_name = _name(tier.issuer_name or tier.name) if issuer is None or tier.issuer_name else None
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(tier.name))
        .issuer_name(issuer_name or (issuer.certificate.subject if issuer else _name(tier.name)))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(tier.not_before)
        .not_valid_after(tier.not_after)
    )
    if tier.ca is not None:
        length = tier.path_length if tier.ca else None
        builder = builder.add_extension(x509.BasicConstraints(ca=tier.ca, path_length=length), critical=True)
    if tier.usage:
        builder = builder.add_extension(_usage(tier), critical=True)
    if tier.critical_extra:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
        builder = builder.add_extension(unknown, critical=True)
    signer = issuer.key if issuer else key
    return _Issued(key, builder.sign(signer, hashes.SHA384()))


def _usage(tier: Tier) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=tier.digital_signature,
        key_cert_sign=tier.signs_certificates,
        crl_sign=tier.signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
