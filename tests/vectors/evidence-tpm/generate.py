"""Writes ``vectors.json``: TPM evidence, one good and many bad, made from the page docs/spec/evidence-tpm.md alone.

Run ``python tests/vectors/evidence-tpm/generate.py``. Shares no code with the package: structures are packed
here by hand. Keys are fresh each time, so other bytes come out, with the same verdicts.
"""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

NOW = datetime(2027, 6, 1, tzinfo=UTC)
NONCE = hashlib.sha256(b"report data").digest()
SOFTWARE = hashlib.sha256(b"software manifest").digest()
DEVICE = hashlib.sha256(b"endorsement key").hexdigest()
RESTRICTED = 0x00050072
CURVE = ec.SECP256R1()
AUTHORITY, STRANGER, AK, OTHER = (ec.generate_private_key(CURVE) for _ in range(4))


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def lp(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def event(pcr: int, kind: int, data: bytes) -> bytes:
    return struct.pack("<IIIH", pcr, kind, 1, 0x0B) + sha(data) + struct.pack("<I", len(data)) + data


SECURE_BOOT = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c") + struct.pack("<QQ", 10, 1)
SECURE_BOOT += "SecureBoot".encode("utf-16-le") + b"\x01"
HEADER = b"Spec ID Event03\0" + struct.pack("<IBBBBIHH", 0, 0, 2, 0, 2, 1, 0x0B, 32) + b"\0"
LOG = struct.pack("<II20sI", 0, 3, bytes(20), len(HEADER)) + HEADER
LOG += event(0, 8, b"firmware 1.0") + event(7, 0x80000001, SECURE_BOOT) + event(7, 4, bytes(4))
PCRS = {index: bytes(32) for index in range(10)}
PCRS[0] = sha(bytes(32) + sha(b"firmware 1.0"))
PCRS[7] = sha(sha(bytes(32) + sha(SECURE_BOOT)) + sha(bytes(4)))
PCRS[23] = sha(bytes(32) + SOFTWARE)


def point(key: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")


def public(key: ec.EllipticCurvePrivateKey, attributes: int = RESTRICTED, hash_alg: int = 0x0B) -> bytes:
    x, y = point(key)
    head = struct.pack(">HHIHHHHHH", 0x23, 0x0B, attributes, 0, 0x10, 0x18, hash_alg, 3, 0x10)
    return head + struct.pack(">H", 32) + x + struct.pack(">H", 32) + y


def attest(
    nonce: bytes = NONCE,
    pcrs: dict[int, bytes] = PCRS,
    *,
    magic: int = 0xFF544347,
    kind: int = 0x8018,
    bank: int = 0x0B,
    digest: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    bits = sum(1 << index for index in pcrs)
    digest = sha(b"".join(pcrs[index] for index in sorted(pcrs))) if digest is None else digest
    signer = b"\0\x0b" + sha(b"\x40\0\0\x0b\0\x0b" + sha(public(AK)))
    return b"".join(
        (
            struct.pack(">IHH", magic, kind, len(signer)) + signer,
            struct.pack(">H", len(nonce)) + nonce,
            struct.pack(">QIIBQ", 123456, 3, 0, 1, 0x2019102300163636),
            struct.pack(">IHB", 1, bank, 3) + bits.to_bytes(3, "little"),
            struct.pack(">H", len(digest)) + digest,
            tail,
        )
    )


def sign(data: bytes, key: ec.EllipticCurvePrivateKey = AK) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return struct.pack(">HHH", 0x18, 0x0B, 32) + r.to_bytes(32, "big") + struct.pack(">H", 32) + s.to_bytes(32, "big")


def usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, False, False, False)  # noqa: FBT003


def authority(key: ec.EllipticCurvePrivateKey = AUTHORITY, *, days: int = 3650, ca: bool = True) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Vector authority")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(NOW - timedelta(days=400))
    builder = builder.not_valid_after(NOW - timedelta(days=400) + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca, 0 if ca else None), critical=True)
    builder = builder.add_extension(usage(ca=ca), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def certificate(
    ak: bytes | None = None,
    *,
    key: ec.EllipticCurvePrivateKey = AK,
    issuer: ec.EllipticCurvePrivateKey = AUTHORITY,
    device: str = DEVICE,
    purpose: str = "2.23.133.8.3",
    since: int = -1,
    until: int = 90,
) -> bytes:
    names = ((NameOID.COMMON_NAME, device), (NameOID.DN_QUALIFIER, "000b" + sha(ak or public(key)).hex()))
    builder = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(*item) for item in names]))
    builder = builder.issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Vector authority")]))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW + timedelta(days=since)).not_valid_after(NOW + timedelta(days=until))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(usage(ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ObjectIdentifier(purpose)]), critical=False)
    return builder.sign(issuer, hashes.SHA256()).public_bytes(Encoding.DER)


GOOD_CERTIFICATE = certificate()


def payload(
    quoted: bytes | None = None,
    *,
    signature: bytes | None = None,
    ak: bytes | None = None,
    certificates: tuple[bytes, ...] = (GOOD_CERTIFICATE,),
    pcrs: dict[int, bytes] = PCRS,
    order: tuple[int, ...] | None = None,
    software: bytes = SOFTWARE,
    log: bytes = LOG,
    magic: bytes = b"CLOISTER-TPM\0",
    version: int = 1,
) -> bytes:
    quoted = attest() if quoted is None else quoted
    signature = sign(quoted) if signature is None else signature
    shown = tuple(sorted(pcrs)) if order is None else order
    return b"".join(
        (
            magic + bytes((version,)) + lp(quoted) + lp(signature) + lp(public(AK) if ak is None else ak),
            bytes((len(certificates),)) + b"".join(map(lp, certificates)),
            bytes((len(shown),)) + b"".join(bytes((index,)) + pcrs.get(index, bytes(32)) for index in shown),
            lp(software) + lp(log),
        )
    )


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


LOOSE = public(AK, RESTRICTED & ~0x10000)
MOVABLE = public(AK, RESTRICTED & ~0x12)
FEWER = {index: value for index, value in PCRS.items() if index != 23}
CASES: tuple[tuple[str, bytes, str], ...] = (
    ("good", payload(), "ok"),
    ("good without event log", payload(log=b""), "ok"),
    ("good with the authority's certificate behind", payload(certificates=(GOOD_CERTIFICATE, authority())), "ok"),
    ("no software measured", payload(attest(pcrs=FEWER), pcrs=FEWER, software=b""), "ok"),
    ("empty", b"", "malformed"),
    ("another magic", payload(magic=b"CLOISTER-SIM\0"), "malformed"),
    ("version 0", payload(version=0), "malformed"),
    ("version 2", payload(version=2), "malformed"),
    ("one byte more", payload() + b"\0", "malformed"),
    ("one byte less", payload()[:-1], "malformed"),
    ("length of 4 GiB", payload()[:14] + b"\xff\xff\xff\xff" + payload()[18:], "malformed"),
    ("no certificate", payload(certificates=()), "malformed"),
    ("six certificates", payload(certificates=(GOOD_CERTIFICATE,) * 6), "malformed"),
    ("certificate cut", payload(certificates=(GOOD_CERTIFICATE[:-1],)), "malformed"),
    ("pcr 24", payload(order=(*range(10), 24)), "malformed"),
    ("pcr twice", payload(order=(0, 0, *range(1, 10), 23)), "malformed"),
    ("pcrs out of order", payload(order=(1, 0, *range(2, 10), 23)), "malformed"),
    ("software of 31 bytes", payload(software=SOFTWARE[:-1]), "malformed"),
    ("event log cut", payload(log=LOG[:-1]), "malformed"),
    ("event log of sha-1 times", payload(log=LOG[32:]), "malformed"),
    ("key of sha-1 name", payload(ak=b"\0\x23\0\x04" + public(AK)[4:]), "malformed"),
    ("key off its curve", payload(ak=flipped(public(AK), 87)), "malformed"),
    ("quote without the tpm's magic", payload(attest(magic=0xFF544348)), "malformed"),
    ("certify in place of quote", payload(attest(kind=0x8017)), "malformed"),
    ("quote with a tail", payload(attest(tail=b"\0")), "malformed"),
    ("nonce flipped", payload(flipped(attest(), 50), signature=sign(attest())), "signature_invalid"),
    ("signature flipped", payload(signature=flipped(sign(attest()), 20)), "signature_invalid"),
    ("signature of another key", payload(signature=sign(attest(), OTHER)), "signature_invalid"),
    ("signature in rsassa", payload(signature=b"\0\x14\0\x0b\0\x20" + bytes(32)), "algorithm_not_allowed"),
    ("signature over sha-1", payload(signature=b"\0\x18\0\x04" + sign(attest())[4:]), "algorithm_not_allowed"),
    ("key of another name", payload(ak=public(OTHER)), "key_binding_mismatch"),
    ("certified key with other attributes", payload(ak=LOOSE), "key_binding_mismatch"),
    ("key that is not restricted", payload(ak=LOOSE, certificates=(certificate(LOOSE),)), "ak_attributes_invalid"),
    ("key that may move", payload(ak=MOVABLE, certificates=(certificate(MOVABLE),)), "ak_attributes_invalid"),
    ("certificate of a stranger", payload(certificates=(certificate(issuer=STRANGER),)), "untrusted_root"),
    (
        "stranger with the authority's name",
        payload(certificates=(certificate(issuer=STRANGER), authority(STRANGER))),
        "untrusted_root",
    ),
    ("certificate ended", payload(certificates=(certificate(since=-90, until=-1),)), "cert_expired"),
    ("certificate to come", payload(certificates=(certificate(since=1),)), "cert_not_yet_valid"),
    (
        "certificate for an endorsement key",
        payload(certificates=(certificate(purpose="2.23.133.8.1"),)),
        "chain_invalid",
    ),
    ("certificate without our device name", payload(certificates=(certificate(device="device 1"),)), "malformed"),
    ("certificate of another key", payload(certificates=(certificate(key=OTHER),)), "key_binding_mismatch"),
    ("pcr changed", payload(pcrs=PCRS | {4: sha(b"evil")}), "pcr_mismatch"),
    ("pcr left out", payload(pcrs=FEWER), "pcr_mismatch"),
    ("pcr added", payload(pcrs=PCRS | {11: bytes(32)}), "pcr_mismatch"),
    ("pcr digest of zeros", payload(attest(digest=bytes(32))), "pcr_mismatch"),
    ("sha-1 bank", payload(attest(bank=4)), "algorithm_not_allowed"),
    ("another software than measured", payload(software=bytes(32)), "pcr_mismatch"),
    ("software without pcr 23", payload(attest(pcrs=FEWER), pcrs=FEWER), "pcr_mismatch"),
    ("event added", payload(log=LOG + event(7, 4, bytes(4))), "pcr_mismatch"),
    ("event altered", payload(log=LOG.replace(sha(b"firmware 1.0"), sha(b"firmware 0.9"))), "pcr_mismatch"),
)
CLAIMS = {
    "ak": "000b" + sha(public(AK)).hex(),
    "device": DEVICE,
    "firmware_version": "2019102300163636",
    "reset_count": 3,
    "restart_count": 0,
    "secure_boot": True,
    "software": SOFTWARE.hex(),
} | {f"pcr.{index}": value.hex() for index, value in PCRS.items()}


def main() -> None:
    """Write the file."""
    cases = [{"evidence": data.hex(), "expect": expect, "name": name} for name, data, expect in CASES]
    document = {
        "authorities": [authority().hex()],
        "cases": cases,
        "claims": CLAIMS,
        "expired_authority": authority(days=300).hex(),
        "not_an_authority": authority(ca=False).hex(),
        "now": NOW.isoformat(),
        "report_data": NONCE.hex(),
    }
    path = Path(__file__).with_name("vectors.json")
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
