"""What a maker's signature costs: sealing and opening with it, as ratios to the same without it.

    python benchmarks/model_signature.py --mib 512 --rounds 5 --folder /var/tmp

A signature names SHA-256 of whole files, which hashing by segments does not give. It is taken on the way; "hashed
afterwards" opens the unsigned model and then hashes it where it lies, which is what a second pass would cost.
``wall`` is the clock, ``cpu`` the time of all processors; 0.50x is half as fast.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from figures.rounds import Row, run, show

from cloister.crypto.sign import SigningKey
from cloister.sealed.directory import DirectorySource, read_package
from cloister.sealed.oms import parse_makers, verify_maker
from cloister.sealed.open import open_model, verify_manifest
from cloister.sealed.seal import seal_model
from cloister.sealed.signed import signed_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.sealed.open import OpenedModel

MIB = 1 << 20
_KIND = b"application/vnd.in-toto+json"


class Signed:
    """One model, one file, with a signature of its maker beside it; sealed with it and without."""

    def __init__(self, folder: Path, size: int) -> None:
        """Write ``size`` bytes, sign and seal them."""
        self.folder, self.size = folder, size
        self.dek, self.publisher, self.maker = (
            os.urandom(32),
            SigningKey.generate(),
            ec.generate_private_key(ec.SECP256R1()),
        )
        self.now = datetime.now(UTC).replace(microsecond=0)
        (folder / "model").mkdir()
        running = hashlib.sha256()
        with (folder / "model" / "model.bin").open("wb") as file:
            for _ in range(size // MIB):
                part = os.urandom(MIB)
                running.update(part)
                file.write(part)
        (folder / "model.sig").write_bytes(self._bundle(running.hexdigest()))
        pem = self.maker.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.makers = parse_makers(pem)
        self.opened: OpenedModel | None = None
        self._seal("plain", signed=False)
        self._seal("signed", signed=True)

    def _bundle(self, digest: str) -> bytes:
        statement: dict[str, Any] = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": "m", "digest": {"sha256": hashlib.sha256(bytes.fromhex(digest)).hexdigest()}}],
            "predicateType": "https://model_signing/signature/v1.0",
            "predicate": {
                "serialization": {"method": "files", "hash_type": "sha256"},
                "resources": [{"name": "model.bin", "algorithm": "sha256", "digest": digest}],
            },
        }
        payload = json.dumps(statement).encode()
        signed = b"DSSEv1 %d %b %d %b" % (len(_KIND), _KIND, len(payload), payload)
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _KIND.decode(),
            "signatures": [{"sig": base64.b64encode(self.maker.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()}],
        }
        return json.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {"publicKey": {}},
                "dsseEnvelope": envelope,
            }
        ).encode()

    def _seal(self, name: str, *, signed: bool) -> int:
        source = self.folder / "model"
        tree = signed_tree(source, self.folder / "model.sig", self.makers, self.now) if signed else None
        seal_model(
            source, self.folder / name, name="bench", dek=self.dek, signer=self.publisher, card={}, created=self.now,
            signed=tree,
        )  # fmt: skip
        return self.size

    def seal(self, *, signed: bool) -> int:
        """Seal into a new package."""
        return self._seal("again", signed=signed)

    def clean(self) -> None:
        """Remove what was sealed."""
        shutil.rmtree(self.folder / "again", ignore_errors=True)

    def open(self, name: str) -> int:
        """Open a package whole."""
        root = self.folder / name
        parts = read_package(root)
        verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [self.publisher.verify_key])
        self.opened = open_model(DirectorySource(root), verified, self.dek)
        return self.size

    def open_then_hash(self) -> int:
        """Open the unsigned package and hash the model where it lies."""
        self.open("plain")
        if self.opened is not None:
            hashlib.sha256(self.opened.view("model.bin")).digest()
        return self.size

    def close(self) -> None:
        """Drop what is open."""
        if self.opened is not None:
            self.opened.close()
            self.opened = None

    def verify_us(self) -> float:
        """Return the microseconds of verifying the signature itself."""
        data = (self.folder / "model.sig").read_bytes()
        begun = time.perf_counter()
        for _ in range(200):
            verify_maker(data, self.makers, self.now)
        return (time.perf_counter() - begun) / 200 * 1e6


def rows(model: Signed) -> Iterator[Row]:
    """Yield what is measured."""
    yield Row(name="seal", work=lambda: model.seal(signed=False), after=model.clean)
    yield Row(name="seal, signed by its maker", work=lambda: model.seal(signed=True), after=model.clean, versus="seal")
    yield Row(name="open", work=lambda: model.open("plain"), after=model.close)
    yield Row(name="open, signed by its maker", work=lambda: model.open("signed"), after=model.close, versus="open")
    yield Row(name="open, hashed afterwards", work=model.open_then_hash, after=model.close, versus="open")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What a maker's signature costs.")
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        model = Signed(Path(folder), arguments.mib * MIB)
        table = list(rows(model))
        run(table, arguments.rounds)
        show(table)
        print(f"verifying the signature itself: {model.verify_us():.0f} us")


if __name__ == "__main__":
    main()
