"""A maker of models for tests: keys, certificates, statements and bundles, put together by hand and repeatable."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister.sealed.oms import Maker, MakerKind

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAYLOAD_TYPE = "application/vnd.in-toto+json"
FILES = {"config.json": b"{}", "sub/weights.bin": bytes(range(256))}
_HASHES = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}


def key(number: int = 1, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """Return the key of a number, the same each time. For tests only."""
    return ec.derive_private_key(0x1234567890 + number, curve or ec.SECP256R1())


def maker(of: ec.EllipticCurvePrivateKey) -> Maker:
    """Pin a key."""
    der = of.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Maker(kind=MakerKind.KEY, der=der)


def root_maker(certificate: x509.Certificate) -> Maker:
    """Pin a root."""
    return Maker(kind=MakerKind.ROOT, der=der(certificate))


def der(certificate: x509.Certificate) -> bytes:
    """Return the bytes of a certificate."""
    return certificate.public_bytes(serialization.Encoding.DER)


def public_pem(of: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a public key as PEM."""
    return of.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_pem(of: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM."""
    return of.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM."""
    return b"".join(item.public_bytes(serialization.Encoding.PEM) for item in certificates)


def digests(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return what hashing the files gives."""
    return {path: hashlib.sha256(data).digest() for path, data in files.items()}


def statement(files: dict[str, bytes], **changed: Any) -> dict[str, Any]:
    """Return the list of a model; ``changed`` replaces members of the predicate's serialization."""
    resources = [
        {"algorithm": "sha256", "digest": digest.hex(), "name": path} for path, digest in sorted(digests(files).items())
    ]
    serialization_of: dict[str, Any] = {
        "allow_symlinks": False,
        "hash_type": "sha256",
        "ignore_paths": [".git", "model.sig"],
        "method": "files",
    }
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": {"resources": resources, "serialization": serialization_of | changed},
        "predicateType": "https://model_signing/signature/v1.0",
        "subject": [{"digest": {"sha256": root_digest(resources)}, "name": "model"}],
    }


def root_digest(resources: list[dict[str, str]]) -> str:
    """Return the digest that names a whole list."""
    return hashlib.sha256(b"".join(bytes.fromhex(item["digest"]) for item in resources)).hexdigest()


def text(value: object) -> bytes:
    """Return JSON as signers write it."""
    return json.dumps(value).encode()


def sign(payload: bytes, by: ec.EllipticCurvePrivateKey, kind: str = PAYLOAD_TYPE, head: bytes = b"DSSEv1") -> bytes:
    """Sign a payload as DSSE says."""
    signed = b"%b %d %b %d %b" % (head, len(kind), kind.encode(), len(payload), payload)
    algorithm = _HASHES[by.curve.key_size]()
    return by.sign(signed, ec.ECDSA(algorithm, deterministic_signing=True))


def bundle(
    payload: bytes, by: ec.EllipticCurvePrivateKey, chain: tuple[x509.Certificate, ...] = (), **material: Any
) -> dict[str, Any]:
    """Return a whole signature, by a key or with the certificates of ``chain``; ``material`` replaces that."""
    if chain:
        of: dict[str, Any] = {
            "x509CertificateChain": {"certificates": [{"rawBytes": b64(der(item))} for item in chain]}
        }
    else:
        of = {"publicKey": {"hint": hashlib.sha256(public_pem(by)).hexdigest()}}
    return {
        "dsseEnvelope": {
            "payload": b64(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": "", "sig": b64(sign(payload, by))}],
        },
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": (material or of) | {"tlogEntries": []},
    }


def b64(data: bytes) -> str:
    """Return padded base64."""
    return base64.b64encode(data).decode()


def certificate(
    name: str,
    of: ec.EllipticCurvePrivateKey,
    issuer: str,
    by: ec.EllipticCurvePrivateKey,
    *,
    authority: bool = False,
    begins: datetime = NOW - timedelta(days=30),
    ends: datetime = NOW + timedelta(days=30),
    usage: str | None = "sign",
    purposes: tuple[x509.ObjectIdentifier, ...] | None = (ExtendedKeyUsageOID.CODE_SIGNING,),
) -> x509.Certificate:
    """Return a certificate, for signing code unless told otherwise. ``usage``: sign, agree or None."""

    def called(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    number = int.from_bytes(hashlib.sha256(f"{name} {issuer} {begins} {ends} {usage}".encode()).digest()[:8], "big")
    builder = (
        x509.CertificateBuilder(called(issuer), called(name), of.public_key(), number, begins, ends)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(of.public_key()), critical=False)
    )
    if authority or usage is not None:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=usage == "sign" and not authority, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=usage == "agree", key_cert_sign=authority, crl_sign=authority,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )  # fmt: skip
    if not authority and purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(by, hashes.SHA256(), ecdsa_deterministic=True)


ROOT_KEY, BETWEEN_KEY, LEAF_KEY = key(10), key(11), key(12)
ROOT = certificate("Makers' root", ROOT_KEY, "Makers' root", ROOT_KEY, authority=True)
BETWEEN = certificate("Makers of 2026", BETWEEN_KEY, "Makers' root", ROOT_KEY, authority=True)
LEAF = certificate("A maker of models", LEAF_KEY, "Makers of 2026", BETWEEN_KEY)
