"""Splitting what opens a home's vault among holders, and opening it by their shares (docs/spec/share.md).

Where making shares takes two persons, it takes a permit, which is spent in the custodian's own database and log before
there is a share; so no custodian may run on a file meanwhile. Opening by shares is for when none can run: the holders
are the persons, and what they did is noted for the log of the next start.

Who is root here and has what opens the vault can do both by a program of his own (docs/adr/0054-key-export.md).
Not done here: reading and writing files of shares, which the command line does.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.verifier import Verifier
from cloister.custodian.checkpoint import marks_at
from cloister.custodian.config_file import read_config
from cloister.custodian.database import open_store, reading_beside, take_lock
from cloister.custodian.duty import Operation, named_operations
from cloister.custodian.service import permits
from cloister.custodian.service.context import Context
from cloister.custodian.service.start import load_log, verify_start
from cloister.custodian.setup import open_vault, utc_now, vault_place
from cloister.custodian.vaults.change import VaultChange, write_change
from cloister.custodian.vaults.encrypted_file import open_by_shares, relock, split_vault
from cloister.custodian.vaults.shares import holders_of
from cloister.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cloister.crypto.sign import SigningKey
    from cloister.custodian.config import Config
    from cloister.custodian.vaults.encrypted_file import EncryptedFileVault, Unlock
    from cloister.custodian.vaults.shares import Division, Share

__all__ = ["combine_custodian", "split_custodian"]

_FENCE_BYTES = 16


def split_custodian(
    home: Path,
    unlock: Unlock,
    division: Division,
    *,
    permit: bytes | None,
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], datetime] = utc_now,
    rng: Callable[[int], bytes] = os.urandom,
) -> tuple[Share, ...]:
    """Return shares of the key that opens the home's vault file.

    With a permit it is spent first, whatever the settings say. Raises ``Rejected`` (``permit_wanted``) where two
    persons decide and there is none, and as ``permits.use``; ``Unavailable`` where a custodian runs on the file.
    """
    division.demand_sound()
    config = read_config(home, environment=environment or {}, now=clock())
    if permit is not None:
        return _split_by_permit(_Place(home, config, clock, rng), unlock, division, permit)
    with reading_beside(home, config) as connection:
        wanted = permits.is_wanted(connection, config)
    if wanted:
        hint = "ask for one: 'cloister custodian shares permit'; a second person approves it"
        raise Rejected.because("permit_wanted", Operation.KEY_EXPORT.value, hint=hint)
    return split_vault(vault_place(home), unlock, division, rng=rng)


@dataclass(frozen=True, slots=True)
class _Place:
    """A home, and what the world is to it."""

    home: Path
    config: Config
    clock: Callable[[], datetime]
    rng: Callable[[int], bytes]


def _split_by_permit(place: _Place, unlock: Unlock, division: Division, permit: bytes) -> tuple[Share, ...]:
    """Make shares, spend the permit on them, and only then return them."""
    with take_lock(place.home, place.config):
        vault = open_vault(place.home, unlock)
        shares = split_vault(vault_place(place.home), unlock, division, rng=place.rng)
        vault_file, split = shares[0].vault, shares[0].split.hex()
        with _opened(place, vault) as context:
            context.transact(
                lambda transaction: permits.use(transaction, permit, division, vault=vault_file, split=split)
            )
    return shares


@contextlib.contextmanager
def _opened(place: _Place, vault: EncryptedFileVault) -> Iterator[Context]:
    """Open database and log as a start does, and write nothing yet: an older one does not know what was used (T38)."""
    key, checkpoint = vault.signing_key.verify_key, place.home / place.config.checkpoint
    store = open_store(place.home, place.config, fence=place.rng(_FENCE_BYTES), identity=key.raw)
    try:
        with store.reading() as connection:
            log = load_log(connection)
        verify_start(log, marks_at(checkpoint, shared=store.shared), key)
        context = Context(
            store=store, vault=vault, verifier=Verifier([]), config=place.config, clock=place.clock, rng=place.rng,
            log=log, checkpoint_path=checkpoint,
        )  # fmt: skip
        context.sequence()
        yield context
    finally:
        store.close()


def combine_custodian(
    home: Path,
    shares: Sequence[Share],
    new: Callable[[], Unlock],
    *,
    holders: Sequence[str],
    environment: Mapping[str, str] | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Open the home's vault by shares and lock it by what ``new`` makes; the next start logs that.

    Where the settings put recovery under two persons, shares of two holders at least are wanted, by their names.
    Needs no database: it may be lost too. Raises as ``holders_of``, ``open_by_shares``, ``relock``.
    """
    place = vault_place(home)
    named = holders_of(shares, holders, wanted=_names_wanted(home, environment or {}, clock()))
    key = open_by_shares(place, shares)

    def note(signing: SigningKey, before: str, after: str) -> None:
        first = shares[0]
        change = VaultChange(
            custodian=signing.verify_key, before=before, after=after, at=clock(), need=first.need, of=first.of,
            split=first.split.hex(), holders=named,
        )  # fmt: skip
        write_change(home, change, signing)

    relock(place, key, new(), note=note)


def _names_wanted(home: Path, environment: Mapping[str, str], now: datetime) -> bool:
    """Tell whether holders must be named: as the settings say, and where there are none. Names keep nobody out."""
    if not (home / "config.toml").exists():
        return True
    return Operation.KEY_RECOVERY in named_operations(read_config(home, environment=environment, now=now))
