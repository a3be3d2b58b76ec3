"""What each start writes down: by which rule it is, and where a vault file comes from that no start has seen (T89)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.custodian.duty import named_operations
from cloister.custodian.service.proposals import is_spelled
from cloister.custodian.store.permits import StartRule, known_vault_files, note_start_rule, note_vault_files
from cloister.custodian.tokens import SYSTEM
from cloister.lending.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloister.custodian.service.context import Transaction
    from cloister.custodian.vaults.change import VaultChange

__all__ = ["note_start"]


def note_start(transaction: Transaction, vault: str, changed: Callable[[str], VaultChange | None]) -> None:
    """Log a start. ``vault`` is the vault file it was by; ``changed`` says how a file came about, where that is noted.

    Every file that no start has seen is logged, by a note or as one that nobody explains. The very first start that
    looks takes what is there for known.
    """
    named = named_operations(transaction.context.config)
    _note_vault(transaction, vault, changed)
    note_start_rule(transaction.connection, StartRule(operations=named, spelled=is_spelled(transaction.context.config)))
    transaction.record(
        EventKind.CUSTODIAN_STARTED,
        SYSTEM,
        "custodian",
        epoch=transaction.epoch.epoch,
        operations=",".join(sorted(item.value for item in named)) or "none",
        vault=vault,
    )


def _note_vault(transaction: Transaction, vault: str, changed: Callable[[str], VaultChange | None]) -> None:
    known = known_vault_files(transaction.connection)
    steps: list[VaultChange] = []
    first, fresh = vault, set[str]()
    while first not in known and first not in fresh:  # notes in a ring explain nothing
        fresh.add(first)
        change = changed(first)
        if change is None:
            break
        steps.append(change)
        first = change.before
    if known and first not in known:
        transaction.record(EventKind.VAULT_CHANGED, SYSTEM, "custodian", kind="unknown", vault=first)
    for change in reversed(steps):
        transaction.record(
            EventKind.VAULT_CHANGED, SYSTEM, "custodian", kind="shares", before=change.before, vault=change.after,
            split=change.split, need=change.need, of=change.of, holders=len(set(change.holders)),
        )  # fmt: skip
    note_vault_files(transaction.connection, fresh, transaction.now)
