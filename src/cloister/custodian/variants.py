"""The custodian's records of variants: one private file each in ``traces/`` of its home.

They are no part of the database: sealing happens on the owner's machine, whose vault wraps each trace key and
authenticates the record with it. A backup carries them (``store.enclosed``).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from cloister.errors import Malformed, Rejected, Unavailable, UsageError
from cloister.private_file import read_private, write_private
from cloister.sealed.tracing.record import MAX_RECORD_BYTES, Variant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cloister.custodian.vaults import Vault

__all__ = ["demand_recordable", "keep_variant", "open_variants", "restore_variants", "variant_files"]

_FOLDER = "traces"
_MAX_VARIANTS = 10_000
_DIGEST = re.compile(r"[0-9a-f]{64}")


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
    write_private(_folder(home) / f"{variant.digest}.json", wrapped.dump())


def variant_files(home: Path) -> Iterator[tuple[str, bytes]]:
    """Yield digest and bytes of every record, as they lie there. Raises ``UsageError``, for other files too."""
    for place in _places(home):
        if not _DIGEST.fullmatch(place.stem):
            msg = f"{place}: is no record of a variant"
            raise UsageError(msg, hint="move it elsewhere")
        yield place.stem, read_private(place, cap=MAX_RECORD_BYTES)


def restore_variants(home: Path, vault: Vault, records: Iterable[tuple[str, bytes]]) -> int:
    """Write the records of a backup that are not there, or do not open as they are; return how many.

    What was there is kept beside it. A record that does not open either is written all the same: searches then end
    at it, as they did, where one that is left out would clear whoever altered it. Raises ``Unavailable``.
    """
    written = 0
    for digest, data in records:
        place = _folder(home) / f"{digest}.json"
        if place.exists() or place.is_symlink():
            if _is_good(place, vault):
                continue
            names = (place.with_name(f"{place.name}.{number}") for number in itertools.count(1))
            place.rename(next(name for name in names if not name.exists()))
        write_private(place, data)
        written += 1
    return written


def _is_good(place: Path, vault: Vault) -> bool:
    try:
        _opened(place, vault)
    except (Malformed, Rejected, UsageError):
        return False
    return True


def open_variants(home: Path, vault: Vault) -> tuple[tuple[Variant, bytes], ...]:
    """Return every variant with its key, sorted by digest.

    A record that was altered, or put under another's name, ends it: a search that leaves one out would clear
    whoever altered it. Raises ``Rejected`` (``wrong_key``), ``Malformed``, ``UsageError``.
    """
    return tuple(_opened(place, vault) for place in _places(home))


def _places(home: Path) -> list[Path]:
    places = sorted((home / _FOLDER).glob("*.json"))
    if len(places) > _MAX_VARIANTS:
        msg = f"{home / _FOLDER}: {len(places)} records, want at most {_MAX_VARIANTS}"
        raise UsageError(msg)
    return places


def _opened(place: Path, vault: Vault) -> tuple[Variant, bytes]:
    variant = Variant.parse(read_private(place, cap=MAX_RECORD_BYTES))
    if place.stem != variant.digest:
        msg = f"{place}: is the record of {variant.digest}"
        raise Malformed(msg)
    return variant, vault.unwrap(variant.wrapped, aad=variant.aad)


def _folder(home: Path) -> Path:
    """Return the folder of records, made where there is none. Raises ``Unavailable``."""
    folder = home / _FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as exc:
        msg = f"{folder}: {exc.strerror}"
        raise Unavailable(msg) from exc
    return folder
