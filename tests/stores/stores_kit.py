"""What the tests of stores share: a small sealed model, and patience that a test can afford."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sealed_kit import SEGMENT, noise, seal

from cloister.sealed.envelope import Envelope, Recipient
from cloister.sealed.manifest import ENVELOPE_NAME, MANIFEST_NAME, model_digest
from cloister.stores import Patience

if TYPE_CHECKING:
    from pathlib import Path

    from sealed_kit import Sealed

__all__ = ["DEAF", "HASTY", "LENGTHS", "parts_of", "small_model", "tls_files", "with_envelope", "write_folder"]

HASTY = Patience(tries=4, first_wait_s=0.001, longest_wait_s=0.002, silence_s=15.0, deadline_s=60.0)
DEAF = replace(HASTY, tries=8, silence_s=0.2)  # for servers that fall silent; may give up on a slow one, and asks again
LENGTHS = {"config.json": 20, "weights/one.bin": 5 * SEGMENT, "weights/two.bin": 0}


def small_model() -> Sealed:
    """Return a package of three files, one of them empty, one of several segments."""
    return seal({path: noise(size) for path, size in LENGTHS.items()})


def tls_files(folder: Path) -> ssl.SSLContext:
    """Write ``ca.pem``, an authority of its own, into a new folder; return the context of a server under it."""
    folder.mkdir()
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    pem = []
    for index, extension in enumerate((x509.BasicConstraints(ca=True, path_length=0), address)):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names[index])
            .issuer_name(names[0])
            .public_key(keys[index].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=index == 0)
            .sign(keys[0], hashes.SHA256())
        )
        pem.append(certificate.public_bytes(Encoding.PEM))
    (folder / "ca.pem").write_bytes(pem[0])
    private = keys[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(pem[1] + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


def parts_of(root: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def write_folder(root: Path, model: Sealed) -> Path:
    """Write a package into a new folder; return it."""
    for name, data in model.source.parts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def with_envelope(model: Sealed, version: int = 1) -> Sealed:
    """Return a package with an envelope of one recipient."""
    digest = model_digest(model.source.parts[MANIFEST_NAME])
    recipient = Recipient(kid="vault", key_version=version, kek_id="kek", wrapped=bytes(48))
    return model.edit(ENVELOPE_NAME, Envelope(manifest_digest=digest, recipients=(recipient,)).dump())
