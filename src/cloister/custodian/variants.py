"""The custodian's records of variants: one private file each in ``traces/`` of its home.

They are no part of the database: sealing happens on the owner's machine, whose vault wraps each trace key and
authenticates the record with it. Copy the folder where you copy the vault.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Unavailable, UsageError
from cloister.private_file import read_private, write_private
from cloister.sealed.tracing.record import MAX_RECORD_BYTES, Variant

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.custodian.vaults import Vault

__all__ = ["demand_recordable", "keep_variant", "open_variants"]

_FOLDER = "traces"
_MAX_VARIANTS = 10_000


def demand_recordable(variant: Variant) -> None:
    """Prove that the record could be read again, before hours of work. Raises ``UsageError``."""
    try:
        Variant.parse(variant.dump())
    except Malformed as exc:
        raise UsageError(exc.message, hint="names of tensors have to be plain text") from exc


def keep_variant(home: Path, vault: Vault, variant: Variant, key: bytes) -> None:
    """Write a record with ``key`` wrapped into it. Raises ``UsageError`` where there is one, ``Unavailable``."""
    demand_recordable(variant)
    wrapped = replace(variant, wrapped=vault.wrap(key, aad=variant.aad))
    folder = home / _FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        msg = f"{folder}: {exc.strerror}"
        raise Unavailable(msg) from exc
    write_private(folder / f"{variant.digest}.json", wrapped.dump())


def open_variants(home: Path, vault: Vault) -> tuple[tuple[Variant, bytes], ...]:
    """Return every variant with its key, sorted by digest.

    A record that was altered, or put under another's name, ends it: a search that leaves one out would clear
    whoever altered it. Raises ``Rejected`` (``wrong_key``), ``Malformed``, ``UsageError``.
    """
    places = sorted((home / _FOLDER).glob("*.json"))
    if len(places) > _MAX_VARIANTS:
        msg = f"{home / _FOLDER}: {len(places)} records, want at most {_MAX_VARIANTS}"
        raise UsageError(msg)
    found = []
    for place in places:
        variant = Variant.parse(read_private(place, cap=MAX_RECORD_BYTES))
        if place.stem != variant.digest:
            msg = f"{place}: is the record of {variant.digest}"
            raise Malformed(msg)
        found.append((variant, vault.unwrap(variant.wrapped, aad=variant.aad)))
    return tuple(found)
