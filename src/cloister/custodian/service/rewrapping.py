"""Wrapping models' keys anew under another key-encryption key, and saying why one does not come along.

An envelope in the database that does not open (a damaged disk, a hand in the database) keeps nobody else from
moving. Not done here: deciding when, and making keys (``service.rotation``).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cloister.custodian.store.keys import current_kek, find_kek, keks
from cloister.custodian.store.models import list_envelopes, replace_envelope
from cloister.custodian.vaults import unwrap_dek, wrap_dek
from cloister.errors import Malformed, Rejected, UsageError
from cloister.lending.messages.keys import Stuck, StuckCause
from cloister.sealed.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from cloister.custodian.vaults import FindKek, Vault
    from cloister.custodian.vaults.kek import Kek
    from cloister.lending.terms import ModelDigest

__all__ = ["held_keks", "late", "move_all", "needed_keks", "newest_kek", "opens", "rewrapped", "stuck"]


def held_keks(connection: Connection, vault: Vault) -> FindKek:
    """Return what opens a key-encryption key that a rotation made, by its name; None for one that is destroyed."""

    @functools.cache
    def find(kek_id: str) -> Kek | None:
        row = find_kek(connection, kek_id)
        return None if row is None or row.wrapped is None else vault.open_kek(row.id, row.wrapped)

    return find


def newest_kek(connection: Connection, vault: Vault) -> Kek | None:
    """Return the key-encryption key in use, None where it is the vault file's own."""
    row = current_kek(connection)
    return None if row is None or row.wrapped is None else vault.open_kek(row.id, row.wrapped)


def rewrapped(vault: Vault, envelope: Envelope, held: FindKek, kek: Kek, *, above: int = 0) -> Envelope:
    """Return the envelope with this vault's entry wrapped anew; others' entries stay.

    The key version is one up from its own or from ``above``. Raises as ``unwrap_dek``.
    """
    dek, version = unwrap_dek(vault, envelope, held)
    version = max(version, above) + 1
    entry = wrap_dek(vault, dek, manifest_digest=envelope.manifest_digest, key_version=version, kek=kek)
    others = tuple(item for item in envelope.recipients if item.kid != vault.kid)
    return Envelope(manifest_digest=envelope.manifest_digest, recipients=(entry, *others))


def _moved(vault: Vault, model: ModelDigest, data: bytes, held: FindKek, kek: Kek) -> bytes | StuckCause:
    """Return a model's envelope under ``kek``, or why there is none. Raises ``Unavailable`` as the vault."""
    try:
        envelope = Envelope.parse(data)
    except Malformed:
        return StuckCause.MALFORMED
    if envelope.manifest_digest != model:
        return StuckCause.WRONG_MODEL
    if all(entry.kid != vault.kid for entry in envelope.recipients):
        return StuckCause.NO_RECIPIENT
    try:
        return rewrapped(vault, envelope, held, kek).dump()
    except Rejected:
        return StuckCause.WRONG_KEY
    except UsageError:  # its key version is the last there can be
        return StuckCause.NO_VERSION


def _cause(vault: Vault, model: ModelDigest, data: bytes, held: FindKek) -> StuckCause | None:
    scratch, _ = vault.make_kek()  # what is wrapped under it is thrown away
    told = _moved(vault, model, data, held, scratch)
    return told if isinstance(told, StuckCause) else None


def opens(vault: Vault, model: ModelDigest, data: bytes, held: FindKek) -> bool:
    """Tell whether a model's envelope can be wrapped anew."""
    return _cause(vault, model, data, held) is None


def move_all(
    connection: Connection, vault: Vault, envelopes: Sequence[tuple[ModelDigest, bytes]], kek: Kek
) -> list[Stuck]:
    """Replace each of these envelopes by one under ``kek``; return those that stay as they are."""
    held, left = held_keks(connection, vault), []
    for model, data in envelopes:
        fresh = _moved(vault, model, data, held, kek)
        if isinstance(fresh, StuckCause):
            left.append(Stuck(model=model, cause=fresh))
        else:
            replace_envelope(connection, model, fresh)
    return left


def stuck(connection: Connection, vault: Vault) -> list[Stuck]:
    """Return the models whose envelopes are not under the key in use, each with its cause."""
    row = current_kek(connection)
    kek_id = vault.kek_id if row is None else row.id
    behind = [(model, data) for model, data in list_envelopes(connection) if not _is_under(vault, model, data, kek_id)]
    if not behind:
        return []
    held = held_keks(connection, vault)
    return [Stuck(model=model, cause=_cause(vault, model, data, held) or StuckCause.DUE) for model, data in behind]


def _is_under(vault: Vault, model: ModelDigest, data: bytes, kek_id: str) -> bool:
    try:
        envelope = Envelope.parse(data)
        return envelope.manifest_digest == model and envelope.recipient(vault.kid).kek_id == kek_id
    except (Malformed, UsageError):
        return False


def late(connection: Connection, vault: Vault) -> list[tuple[ModelDigest, bytes]]:
    """Return the envelopes that a rotation left behind and that open by now."""
    row = current_kek(connection)
    if row is None:
        return []
    name = row.id.encode()
    behind = [(model, data) for model, data in list_envelopes(connection) if name not in data]  # read at each sweep
    if not behind:
        return []
    held = held_keks(connection, vault)
    return [(model, data) for model, data in behind if opens(vault, model, data, held)]


def needed_keks(connection: Connection, vault: Vault) -> frozenset[str] | None:
    """Return the names of the keys that envelopes are wrapped under.

    None where an envelope does not say so in a form that we know: it may need any key.
    """
    known = {vault.kek_id, *(row.id for row in keks(connection))}
    needed: set[str] = set()
    for _, data in list_envelopes(connection):
        try:
            entries = Envelope.parse(data).recipients
        except Malformed:
            return None
        if not any(entry.kid == vault.kid and entry.kek_id in known for entry in entries):
            return None
        needed.update(entry.kek_id for entry in entries)
    return frozenset(needed)
