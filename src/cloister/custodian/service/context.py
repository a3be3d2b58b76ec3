"""What every use case stands on: one transaction with its time, its epoch and its audit entries.

``Context.begin`` runs one read-write transaction. What happened in it is recorded in the audit log
inside the same transaction; after the commit, and before anybody is answered, the signed checkpoint
outside the database is brought up to date. No audit, no answer.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from cloister.attest.endorse import Given
from cloister.custodian.checkpoint import sign_checkpoint, write_checkpoint
from cloister.custodian.store.book import (
    Answer,
    EpochRow,
    append_entry,
    find_answer,
    insert_answer,
    purge_answers,
    read_epoch,
    set_latest,
)
from cloister.custodian.store.loans import post
from cloister.errors import CloisterError, Rejected
from cloister.lending.audit import Checkpoint, next_entry
from cloister.lending.clock import custodian_time
from cloister.lending.events import Event, EventKind
from cloister.lending.lease_grant import verify_epoch
from cloister.lending.ledger import ALLOWANCE
from cloister.lending.terms import MAX_UNITS
from cloister.wire import Json, dump_json, lp, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from cloister.attest.endorse import Endorsements
    from cloister.attest.verifier import Verifier
    from cloister.crypto.sign import VerifyKey
    from cloister.custodian.config import Config
    from cloister.custodian.store import Store
    from cloister.custodian.tokens import Actor
    from cloister.custodian.vaults import Vault
    from cloister.lending.events import DetailValue
    from cloister.lending.ledger import Posting
    from cloister.lending.merkle import MerkleTree

__all__ = ["AuditLog", "Context", "OnceKey", "Transaction"]

_ANSWER_LABEL = b"cloister/custodian/answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnceKey:
    """An Idempotency-Key as one actor sent it, with the digest of the whole request."""

    actor: str
    key: str
    digest: bytes


@dataclass(slots=True, kw_only=True)
class AuditLog:
    """Where log and ledger stand in memory: only a commit moves it."""

    tree: MerkleTree
    previous: bytes
    epoch: int
    ledger_size: int
    escrowed: int
    block_version: int

    def checkpoint(self, origin: VerifyKey, at: datetime) -> Checkpoint:
        """Return a checkpoint of where this stands. ``escrowed`` stops at the largest number JSON keeps exactly."""
        return Checkpoint(
            origin=origin,
            size=self.tree.size,
            root=self.tree.root(),
            epoch=self.epoch,
            ledger_size=self.ledger_size,
            escrowed=min(self.escrowed, MAX_UNITS),
            block_version=self.block_version,
            at=at,
        )


@dataclass(slots=True, kw_only=True)
class Transaction:
    """One read-write transaction: its connection, its time, and what is to be logged."""

    connection: Connection
    context: Context
    now: datetime
    epoch: EpochRow
    ledger_rows: int = 0
    escrowed: int = 0
    _events: list[Event] = field(default_factory=list)

    def record(self, kind: EventKind, actor: Actor | str, subject: str, /, **details: DetailValue) -> None:
        """Log what happened, in this transaction."""
        name = actor if isinstance(actor, str) else actor.label
        self._events.append(Event(kind=kind, actor=name, subject=subject, details=details))

    def record_all(self, events: Iterable[Event]) -> None:
        """Log what a pure decision says happened."""
        self._events.extend(events)

    def post(self, postings: Iterable[Posting]) -> None:
        """Move units in the ledger."""
        moved = tuple(postings)
        post(self.connection, moved, now=self.now)
        self.ledger_rows += len(moved)
        self.escrowed += sum(item.units for item in moved if item.debit_account == ALLOWANCE)

    def write_entries(self, log: AuditLog) -> list[bytes]:
        """Write the recorded events as audit entries behind ``log``; return their leaf hashes."""
        leaves: list[bytes] = []
        previous = log.previous
        for event in self._events:
            entry = next_entry(event, index=log.tree.size + len(leaves), at=self.now, previous=previous)
            append_entry(self.connection, index=entry.index, at=entry.at, entry=entry.dump())
            previous = entry.leaf
            leaves.append(previous)
        return leaves


class Context:
    """Store, vault, verifier, clock and randomness, and the log they all write to."""

    def __init__(
        self,
        *,
        store: Store,
        vault: Vault,
        verifier: Verifier,
        config: Config,
        clock: Callable[[], datetime],
        rng: Callable[[int], bytes],
        log: AuditLog,
        checkpoint_path: Path,
    ) -> None:
        """Keep the parts; nothing is read or written yet, and no endorsement is to be had."""
        self.endorsements: Endorsements = Given({})
        self.store, self.vault, self.verifier, self.config = store, vault, verifier, config
        self.rng = rng
        self._clock = clock
        self._log = log
        self._checkpoint_path = checkpoint_path
        self._checkpointed = -1
        self._lock = threading.Lock()
        self._checkpoint_lock = threading.Lock()

    @contextlib.contextmanager
    def begin(self) -> Iterator[Transaction]:
        """Run one transaction; it is committed, logged and checkpointed when this returns.

        Raises ``Unavailable``: fenced, clock behind, disk full; then nothing has happened, or it has
        happened and the answer must be asked for again.
        """
        with self._lock:
            with self.store.writing() as connection:
                epoch = read_epoch(connection)
                verify_epoch(held=self._log.epoch, stored=epoch.epoch)
                now = custodian_time(self._clock(), latest=epoch.latest)
                transaction = Transaction(connection=connection, context=self, now=now, epoch=epoch)
                yield transaction
                leaves = transaction.write_entries(self._log)
                set_latest(connection, now)
                block_version = read_epoch(connection).block_version
            self._advance(transaction, leaves, block_version)
        self.catch_up()

    def _advance(self, transaction: Transaction, leaves: list[bytes], block_version: int) -> None:
        """Follow a commit in memory."""
        log = self._log
        for leaf in leaves:
            log.tree.append_hash(leaf)
            log.previous = leaf
        log.ledger_size += transaction.ledger_rows
        log.escrowed += transaction.escrowed
        log.block_version = block_version

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run one read-only transaction."""
        with self.store.reading() as connection:
            yield connection

    def now(self) -> datetime:
        """Return the custodian's time for what writes nothing."""
        return self._clock()

    @property
    def size(self) -> int:
        """How many entries the audit log has."""
        return self._log.tree.size

    @property
    def tree(self) -> MerkleTree:
        """The tree over the committed log as it stands now; what is added later is not in it."""
        return self._log.tree.copy()

    @property
    def epoch(self) -> int:
        """The epoch this process speaks for."""
        return self._log.epoch

    def checkpoint(self) -> Checkpoint:
        """Return a checkpoint of the log as it stands."""
        with self._lock:
            return self._log.checkpoint(self.vault.signing_key.verify_key, self._clock())

    def catch_up(self) -> None:
        """Bring the checkpoint outside the database up to date. Waiting callers share one write."""
        with self._checkpoint_lock:
            if self._log.tree.size <= self._checkpointed:
                return
            checkpoint = self.checkpoint()
            write_checkpoint(self._checkpoint_path, sign_checkpoint(checkpoint, self.vault.signing_key))
            self._checkpointed = checkpoint.size

    def once(self, key: OnceKey | None, work: Callable[[Transaction], Json]) -> Json:
        """Run ``work`` in one transaction; with a key, at most once for this actor and key.

        The answer is kept wrapped by the vault, for it may show a fresh token. Raises ``Rejected``
        (``idempotency_mismatch``) for another request under the same key.
        """
        with self.begin() as transaction:
            if key is None:
                return work(transaction)
            aad = _ANSWER_LABEL + lp(key.actor.encode(), key.key.encode())
            purge_answers(transaction.connection, transaction.now)
            known = find_answer(transaction.connection, key.actor, key.key, transaction.now)
            if known is not None:
                if known.digest != key.digest:
                    raise Rejected.because("idempotency_mismatch", "idempotency-key")
                return parse_json(self.vault.unwrap(known.answer, aad=aad), what="remembered answer")
            result = work(transaction)
            answer = Answer(digest=key.digest, answer=self.vault.wrap(dump_json(result), aad=aad))
            expires_at = transaction.now + timedelta(seconds=self.config.idempotency_ttl_s)
            insert_answer(transaction.connection, key.actor, key.key, answer, expires_at)
            return result

    def refuse(
        self, kind: EventKind, actor: Actor | str, subject: str, refusal: CloisterError, /, **details: DetailValue
    ) -> None:
        """Log a refusal in a transaction of its own: what is refused is audited too."""
        with self.begin() as transaction:
            transaction.record(kind, actor, subject, codes=_codes(refusal), **details)


def _codes(refusal: CloisterError) -> str:
    """Return the codes of a refusal as the log spells them."""
    if not isinstance(refusal, Rejected):
        return type(refusal).__name__.lower()
    return ",".join(dict.fromkeys(reason.code for reason in refusal.reasons))
