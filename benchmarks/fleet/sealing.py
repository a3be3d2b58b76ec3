"""How the benchmarks of custodians seal their models and tell the custodian of them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloister.custodian.publication import publication
from cloister.custodian.vaults import envelope_of
from cloister.custodian.vaults.encrypted_file import Kdf
from cloister.sealed.directory import read_package
from cloister.sealed.seal import seal_model

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.custodian.vaults.encrypted_file import EncryptedFileVault
    from cloister.wire import Json

__all__ = ["CHEAP", "seal"]

CHEAP = Kdf(memory_kib=64, passes=1, lanes=1)
"""For vaults that keep nothing: quick to open, and quick to guess."""


def seal(vault: EncryptedFileVault, source: Path, out: Path, *, name: str) -> tuple[str, dict[str, Json]]:
    """Seal ``source`` into ``out``; return the model's digest and the body that publishes it."""
    dek = os.urandom(32)
    sealed = seal_model(source, out, name=name, dek=dek, signer=vault.publisher_key, card={}, created=datetime.now(UTC))
    return sealed.digest, publication(read_package(out), envelope_of(vault, dek, sealed.digest))
