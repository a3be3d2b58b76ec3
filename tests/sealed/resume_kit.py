"""A sealing that is interrupted where a test says, and gone on with; what it left is looked into."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sealed_kit import PLAIN, PUBLISHER, SEGMENT, noise

from cloister.custodian.vaults.kek import Kek
from cloister.sealed.directory import DirectorySource, read_envelope, read_package
from cloister.sealed.envelope import Envelope, Recipient, wrap_info
from cloister.sealed.manifest import blob_name
from cloister.sealed.mirror import check_mirror
from cloister.sealed.open import open_model, verify_manifest
from cloister.sealed.resume import Going, seal_resumably
from cloister.sealed.reuse import OldPackage
from cloister.sealed.unfinished import UNFINISHED_NAME, Unfinished

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloister.sealed.seal import SealedModel

SETTLED = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
"""A time at which the files of a test were not changed just now."""
FILES = {"a.bin": noise(PLAIN * 6 + 9), "b/c.bin": noise(PLAIN * 4, seed=2), "empty.bin": b"", "small.txt": b"hello"}


class Vault:
    """A vault that holds one key in memory: the wrapping is the real one."""

    def __init__(self, kid: str = "vault:test", key: bytes = bytes(range(32))) -> None:
        self.kid = kid
        self._kek = Kek(key, rng=os.urandom)
        self.keys: list[bytes] = []

    def wrap(self, plain: bytes, *, aad: bytes) -> bytes:
        """Wrap, and remember what."""
        self.keys.append(plain)
        return self._kek.wrap(plain, aad=aad)

    def unwrap(self, wrapped: bytes, *, aad: bytes) -> bytes:
        """Unwrap."""
        return self._kek.unwrap(wrapped, aad=aad)

    def envelope(self, dek: bytearray, digest: str) -> Envelope:
        """Return the envelope of a new model."""
        aad = wrap_info(manifest_digest=digest, key_version=1, kid=self.kid, kek_id="k")
        wrapped = self._kek.wrap(bytes(dek), aad=aad)
        recipient = Recipient(kid=self.kid, key_version=1, kek_id="k", wrapped=wrapped)
        return Envelope(manifest_digest=digest, recipients=(recipient,))

    def open(self, envelope: Envelope) -> bytes:
        """Return the model key in an envelope."""
        entry = envelope.recipient(self.kid)
        aad = wrap_info(manifest_digest=envelope.manifest_digest, key_version=1, kid=self.kid, kek_id="k")
        return self.unwrap(entry.wrapped, aad=aad)


def write(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write a plain model."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@dataclass
class Told:
    """What a sealing said."""

    done: list[int] = field(default_factory=list)
    found: list[tuple[int, int]] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    stop_at: int | None = None
    """Bytes after which the person at the keyboard interrupts it."""

    def progress(self, done: int, _total: int) -> None:
        """Take progress."""
        self.done.append(done)
        if self.stop_at is not None and done >= self.stop_at:
            raise KeyboardInterrupt


def seal(
    plain: Path, out: Path, *, vault: Vault, resume: bool = True, told: Told | None = None, **options: Any
) -> SealedModel:
    """Seal in segments of 4 KiB."""
    told = told or Told()
    going = Going(
        progress=told.progress, found=lambda done, total: told.found.append((done, total)), kept=told.kept.append
    )
    values: dict[str, Any] = {"name": "m", "signer": PUBLISHER, "card": {}, "created": SETTLED}
    return seal_resumably(
        plain, out, resume=resume, vault=vault, envelope=vault.envelope, going=going, segment_bytes=SEGMENT,
        **(values | options),
    )  # fmt: skip


def interrupt(plain: Path, out: Path, *, vault: Vault, at: int, **options: Any) -> Path:
    """Seal until so many bytes are done; return the folder that is left, and demand that it is private."""
    told = Told(stop_at=at)
    try:
        seal(plain, out, vault=vault, told=told, **options)
    except KeyboardInterrupt:
        (place,) = told.kept
        assert place.stat().st_mode & 0o777 == 0o700
        assert not out.exists()
        return place
    msg = "came to its end"
    raise AssertionError(msg)


def state(place: Path) -> Unfinished:
    """Return what an unfinished folder says."""
    return Unfinished.parse((place / UNFINISHED_NAME).read_bytes())


def blob(place: Path, path: str) -> Path:
    """Return the file that holds what is sealed of ``path``."""
    (entry,) = (item.entry for item in state(place).files if item.entry.path == path)
    return place / "package" / blob_name(entry.blob)


def opened(out: Path, vault: Vault) -> dict[str, bytes]:
    """Prove that a package is whole, as a mirror and as a borrower do; return all of its plaintext."""
    parts, source = read_package(out), DirectorySource(out)
    verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
    check_mirror(source, verified.manifest, verified.digest)
    dek = vault.open(read_envelope(out))
    assert {path.name for path in out.iterdir()} == {"blobs", "manifest.json", "manifest.sig", "envelope.json"}
    assert len(list((out / "blobs").iterdir())) == 2 * len(verified.manifest.files)
    with open_model(source, verified, dek) as model:
        return {name: bytes(model.view(name)) for name in model.files}


def older(package: Path, vault: Vault) -> OldPackage:
    """Return a sealed model as ``--reuse`` takes it."""
    parts = read_package(package)
    verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [PUBLISHER.verify_key])
    dek = vault.open(read_envelope(package))
    return OldPackage(root=package, source=DirectorySource(package), verified=verified, dek=dek)


__all__ = ["FILES", "SETTLED", "Told", "Vault", "blob", "interrupt", "older", "opened", "seal", "state", "write"]
