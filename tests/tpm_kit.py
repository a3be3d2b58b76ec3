"""A TPM in Python, its maker, and what both sign: for tests of the pure rooms, which need no swtpm.

``SoftTpm`` quotes and activates credentials as Part 3 of the TPM 2.0 Library says, written apart from the code
under test; ``Maker`` issues endorsement key certificates, good ones and bad ones.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from cloister.attest.tpm.akcert import create_authority, issue_ak_certificate
from cloister.attest.tpm.algorithms import Alg, CurveId
from cloister.attest.tpm.ek import TpmModel, device_of
from cloister.attest.tpm.evidence import TpmEvidence
from cloister.attest.tpm.policy import endorsement_policy, software_pcr_value
from cloister.attest.tpm.quote import ATTESTATION_KEY
from cloister.attest.tpm.structures import (
    Attribute,
    EccKey,
    EcdsaSignature,
    PcrSelection,
    Public,
    Quote,
    RsaKey,
    RsaSignature,
    Symmetric,
)

if TYPE_CHECKING:
    from cloister.attest.tpm.credential import Credential
    from cloister.attest.tpm.structures import Signature

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
SOFTWARE = hashlib.sha256(b"software manifest").digest()
EK_ATTRIBUTES = (
    Attribute.FIXED_TPM
    | Attribute.FIXED_PARENT
    | Attribute.SENSITIVE_DATA_ORIGIN
    | Attribute.ADMIN_WITH_POLICY
    | Attribute.RESTRICTED
    | Attribute.DECRYPT
)
RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]  # slow to make: shared by all tests
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
Extensions = tuple[tuple[x509.ExtensionType, bool], ...]


def key_area(key: PrivateKey) -> RsaKey | EccKey:
    """Return the public numbers as a TPM writes them."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return RsaKey(bits=public.key_size, exponent=0, modulus=public.public_numbers().n.to_bytes(256, "big"))
    size = public.curve.key_size // 8
    numbers = public.public_numbers()
    curve = CurveId.P256 if size == 32 else CurveId.P384
    return EccKey(curve=curve, x=numbers.x.to_bytes(size, "big"), y=numbers.y.to_bytes(size, "big"))


def ak_public(
    key: PrivateKey, attributes: Attribute = ATTESTATION_KEY | Attribute.USER_WITH_AUTH, **other: Any
) -> Public:
    """Return the public area of an attestation key."""
    scheme = (Alg.RSASSA if isinstance(key, rsa.RSAPrivateKey) else Alg.ECDSA, Alg.SHA256)
    fields = {"name_alg": Alg.SHA256, "auth_policy": b"", "symmetric": None, "scheme": scheme, "key": key_area(key)}
    return Public(attributes=attributes, **(fields | other))


def ek_public(key: PrivateKey, **other: Any) -> Public:
    """Return the public area of an endorsement key: templates L-1, L-2 or H-3."""
    high = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size == 384
    fields = {
        "name_alg": Alg.SHA384 if high else Alg.SHA256,
        "attributes": EK_ATTRIBUTES | (Attribute.USER_WITH_AUTH if high else 0),
        "auth_policy": endorsement_policy(Alg.SHA384 if high else Alg.SHA256),
        "symmetric": Symmetric(key_bits=256 if high else 128),
        "scheme": None,
        "key": key_area(key),
    }
    return Public(**(fields | other))


@dataclass
class SoftTpm:
    """One device: an endorsement key, an attestation key, PCRs."""

    ek_key: PrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    ak_key: PrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    pcrs: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Boot: PCRs 0 to 7 are set and the software is measured."""
        self.ek, self.ak = ek_public(self.ek_key), ak_public(self.ak_key)
        self.pcrs = {i: hashlib.sha256(b"pcr %d" % i).digest() for i in range(8)} | self.pcrs
        self.pcrs.setdefault(23, software_pcr_value(SOFTWARE))

    def quote(self, nonce: bytes, **other: Any) -> Quote:
        """Return TPMS_ATTEST over all PCRs; ``other`` replaces members."""
        indices = tuple(sorted(self.pcrs))
        digest = hashlib.sha256(b"".join(self.pcrs[i] for i in indices)).digest()
        fields = {
            "qualified_signer": self.ak.name,
            "extra_data": nonce,
            "clock": 1000,
            "reset_count": 7,
            "restart_count": 0,
            "safe": True,
            "firmware_version": 0x2019102300163636,
            "selections": (PcrSelection(bank=Alg.SHA256, pcrs=indices),),
            "pcr_digest": digest,
        }
        return Quote(**(fields | other))

    def sign(self, data: bytes, key: PrivateKey | None = None) -> Signature:
        """Return the signature of the attestation key, or of another one, over any bytes."""
        key = key or self.ak_key
        if isinstance(key, rsa.RSAPrivateKey):
            value = key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            return RsaSignature(scheme=Alg.RSASSA, hash_alg=Alg.SHA256, value=value)
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return EcdsaSignature(hash_alg=Alg.SHA256, r=r.to_bytes(32, "big"), s=s.to_bytes(32, "big"))

    def evidence(self, nonce: bytes, certificates: tuple[bytes, ...], **other: Any) -> TpmEvidence:
        """Return evidence; ``other`` replaces members."""
        attest = other.get("attest") or self.quote(nonce).dump()
        fields = {
            "attest": attest,
            "signature": self.sign(attest).dump(),
            "ak_public": self.ak.dump(),
            "certificates": certificates,
            "pcrs": dict(self.pcrs),
            "software": SOFTWARE,
            "event_log": b"",
        }
        return TpmEvidence(**(fields | other))

    def activate(self, credential: Credential, ak_name: bytes | None = None) -> bytes | None:
        """Return the secret, or None where the TPM refuses (TPM2_ActivateCredential)."""
        name = self.ak.name if ak_name is None else ak_name
        algorithm = "sha384" if self.ek.name_alg == Alg.SHA384 else "sha256"
        size = hashlib.new(algorithm).digest_size
        seed = self._seed(credential.encrypted_secret, algorithm)
        if seed is None:
            return None
        mac, identity = credential.id_object[2 : 2 + size], credential.id_object[2 + size :]
        mac_key = hmac.digest(seed, b"\0\0\0\1INTEGRITY\0" + (8 * size).to_bytes(4, "big"), algorithm)
        if not hmac.compare_digest(hmac.digest(mac_key, identity + name, algorithm), mac):
            return None
        bits = self.ek.symmetric.key_bits
        key = hmac.digest(seed, b"\0\0\0\1STORAGE\0" + name + bits.to_bytes(4, "big"), algorithm)[: bits // 8]
        plain = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor().update(identity)
        return plain[2 : 2 + int.from_bytes(plain[:2], "big")]

    def _seed(self, secret: bytes, algorithm: str) -> bytes | None:
        if isinstance(self.ek_key, rsa.RSAPrivateKey):
            chosen = hashes.SHA256()
            try:
                return self.ek_key.decrypt(secret, padding.OAEP(padding.MGF1(chosen), chosen, b"IDENTITY\0"))
            except ValueError:
                return None
        size = self.ek_key.curve.key_size // 8
        x, y = secret[2 : 2 + size], secret[4 + size :]
        try:
            numbers = ec.EllipticCurvePublicNumbers(
                int.from_bytes(x, "big"), int.from_bytes(y, "big"), self.ek_key.curve
            )
            z = self.ek_key.exchange(ec.ECDH(), numbers.public_key())
        except ValueError:
            return None
        own = self.ek_key.public_key().public_numbers().x.to_bytes(size, "big")
        return hashlib.new(algorithm, b"\0\0\0\1" + z + b"IDENTITY\0" + x + own).digest()


MODEL = TpmModel(manufacturer="id:53494D00", model="SoftTpm", version="id:00010002")


def name(common: str) -> x509.Name:
    """Return a name of one attribute."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


USAGE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)
TPM_SAN = x509.SubjectAlternativeName(
    [
        x509.DirectoryName(
            x509.Name(
                [
                    x509.NameAttribute(ObjectIdentifier("2.23.133.2.1"), MODEL.manufacturer),
                    x509.NameAttribute(ObjectIdentifier("2.23.133.2.2"), MODEL.model),
                    x509.NameAttribute(ObjectIdentifier("2.23.133.2.3"), MODEL.version),
                ]
            )
        )
    ]
)
EK_EXTENSIONS: Extensions = (
    (x509.BasicConstraints(ca=False, path_length=None), True),
    (x509.KeyUsage(**(USAGE | {"key_agreement": True})), True),
    (x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.1")]), False),
    (TPM_SAN, True),
)


def ca_extensions(path_length: int | None = None, *, ca: bool = True, sign: bool = True) -> Extensions:
    """Return the extensions of an authority, or of one that is not quite."""
    return (
        (x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), True),
        (x509.KeyUsage(**(USAGE | {"key_cert_sign": sign, "digital_signature": not sign})), True),
    )


@dataclass
class Issuer:
    """A name with a key that signs certificates, of any quality."""

    common: str
    key: PrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def issue(
        self,
        subject: str,
        key: PublicKey,
        extensions: Extensions = EK_EXTENSIONS,
        *,
        since: timedelta = timedelta(days=-1),
        until: timedelta = timedelta(days=365),
        algorithm: hashes.HashAlgorithm | None = None,
    ) -> bytes:
        """Return a certificate (DER) for ``key``."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(self.common))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + since)
            .not_valid_after(NOW + until)
        )
        for value, critical in extensions:
            builder = builder.add_extension(value, critical=critical)
        return builder.sign(self.key, algorithm or hashes.SHA256()).public_bytes(Encoding.DER)

    def authority(self, issuer: Issuer | None = None, extensions: Extensions | None = None, **other: Any) -> bytes:
        """Return this issuer's own certificate, self-signed or by ``issuer``."""
        return (issuer or self).issue(self.common, self.key.public_key(), extensions or ca_extensions(), **other)


class Maker:
    """A TPM maker: root, issuing authority, certificates for endorsement keys."""

    def __init__(self) -> None:
        """Found the company."""
        self.root, self.issuing = Issuer("Maker Root"), Issuer("Maker Issuing")
        self.root_der = self.root.authority()
        self.issuing_der = self.issuing.authority(self.root)

    def certificates(self, tpm: SoftTpm) -> tuple[bytes, ...]:
        """Return the chain a device shows: its own certificate and the issuing authority's."""
        return (self.issuing.issue("EK", tpm.ek_key.public_key()), self.issuing_der)


class Authority:
    """An enrolment authority."""

    def __init__(self, common: str = "Enrolment", now: datetime = NOW) -> None:
        """Make the key and the certificate."""
        self.key, self.certificate = create_authority(common, now)

    def certify(self, tpm: SoftTpm, ak: Public | None = None, **other: Any) -> bytes:
        """Return a certificate for the attestation key, without asking how it came to be."""
        fields = {"ca_key": self.key, "ca_cert": self.certificate, "now": NOW} | other
        return issue_ak_certificate(ak or tpm.ak, device_of(tpm.ek), MODEL, **fields)
