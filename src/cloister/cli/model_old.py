"""The older version of a model, as ``cloister model seal --reuse`` takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.vaults import unwrap_dek
from cloister.sealed.directory import DirectorySource, read_envelope, read_package
from cloister.sealed.publisher import verify_manifest
from cloister.sealed.reuse import OldPackage

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.custodian.vaults import Vault

__all__ = ["open_old"]


def open_old(vault: Vault, package: Path) -> OldPackage:
    """Return the sealed model in a folder, once this vault is proven to have published it and to open its key.

    Raises ``Malformed``, ``Unavailable``, ``Rejected`` (``unknown_key``, ``signature_invalid``, ``wrong_key``).
    """
    parts = read_package(package)
    verified = verify_manifest(parts.manifest_bytes, parts.signature_bytes, [vault.publisher_key.verify_key])
    dek, _ = unwrap_dek(vault, read_envelope(package))
    return OldPackage(root=package, source=DirectorySource(package), verified=verified, dek=dek)
