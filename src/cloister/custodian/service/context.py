"""What every use case stands on: one transaction with its time, its epoch and its audit entries.

``Context.transact`` runs a use case in one read-write transaction. What happened in it is recorded in the audit log;
after the commit, and before anybody is answered, the signed checkpoint outside the database is brought up to date.
No audit, no answer.

A use case may be run more than once: where several custodians share a database, one that met another's is run
again. It must do nothing but through its transaction.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from cloister.attest.endorse import Given
from cloister.custodian.checkpoint import sign_checkpoint, write_checkpoint
from cloister.custodian.metrics import CustodianMetrics
from cloister.custodian.service.audit_log import Batch, leave_pending, sequence_pending
from cloister.custodian.service.kept import Kept
from cloister.custodian.service.turns import Turns
from cloister.custodian.service.veiling import veil
from cloister.custodian.store.book import (
    Answer,
    EpochRow,
    find_answer,
    insert_answer,
    purge_answers,
    read_epoch,
)
from cloister.custodian.store.faults import Contended
from cloister.custodian.store.loans import post
from cloister.custodian.store.veils import shred_deleted
from cloister.custodian.vaults.watched import WatchedVault
from cloister.errors import CloisterError, Rejected, Unavailable
from cloister.lending.clock import custodian_time
from cloister.lending.events import Event, EventKind
from cloister.lending.lease_grant import verify_epoch
from cloister.lending.ledger import ALLOWANCE, ISSUED, SPENT, WITHDRAWN, WRITTEN_OFF
from cloister.lending.terms import LOAN_METER
from cloister.wire import Json, dump_json, lp, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from sqlalchemy import Connection

    from cloister.attest.endorse import Endorsements
    from cloister.attest.verifier import Verifier
    from cloister.crypto.sign import VerifyKey
    from cloister.custodian.config import Config
    from cloister.custodian.service.audit_log import AuditLog
    from cloister.custodian.store import Store
    from cloister.custodian.tokens import Actor
    from cloister.custodian.vaults import Vault
    from cloister.lending.audit import Checkpoint
    from cloister.lending.events import DetailValue
    from cloister.lending.ledger import Posting
    from cloister.lending.merkle import MerkleTree
    from cloister.lending.terms import InstanceId
    from cloister.telemetry.spans import Spans

__all__ = ["Context", "OnceKey", "Transaction"]

T = TypeVar("T")

_ANSWER_LABEL = b"cloister/custodian/answer"
_TRIES = 8  # times a use case that met another one is run
_TRIES_BESIDE = 3  # of them beside others; then alone, so that the stop of a loan gets through whatever the load
_KEYS_KEPT = 4096  # keys of instances that are not looked up anew
_PAUSE_S = 0.01  # the longest pause between two tries


@dataclass(frozen=True, slots=True, kw_only=True)
class OnceKey:
    """An Idempotency-Key as one actor sent it, with the digest of the whole request."""

    actor: str
    key: str
    digest: bytes


@dataclass(slots=True, kw_only=True)
class Transaction:
    """One read-write transaction: its connection, its time, and what is to be logged."""

    connection: Connection
    context: Context
    now: datetime
    epoch: EpochRow
    batch: Batch

    def record(self, kind: EventKind, actor: Actor | str, subject: str, /, **details: DetailValue) -> None:
        """Log what happened, in this transaction."""
        name = actor if isinstance(actor, str) else actor.label
        self.batch.events.append(Event(kind=kind, actor=name, subject=subject, details=details))

    def destroying(self) -> None:
        """Say, before it is done, that what is deleted from here on must be in no file once this has committed."""
        shred_deleted(self.connection)
        self.batch.destroyed = True

    def record_all(self, events: Iterable[Event]) -> None:
        """Log what a pure decision says happened."""
        self.batch.events.extend(events)

    @contextlib.contextmanager
    def tentatively(self) -> Iterator[Transaction]:
        """Yield a part of this transaction that is taken back, entries and all, where it raises."""
        part = replace(self, batch=Batch(at=self.now))
        with self.connection.begin_nested():
            yield part
        self.batch.take(part.batch)

    @contextlib.contextmanager
    def undone(self) -> Iterator[Transaction]:
        """Yield a part of this transaction that is taken back in any case: to see whether it would work."""
        with contextlib.suppress(_Undone), self.tentatively() as part:
            yield part
            raise _Undone

    def post(self, postings: Iterable[Posting]) -> None:
        """Move units in the ledger."""
        moved = tuple(postings)
        post(self.connection, moved, now=self.now)
        for item in moved:
            account = _counted(item)
            if account is not None:
                self.batch.units[account] = self.batch.units.get(account, 0) + item.units
        self.batch.ledger_rows += len(moved)
        self.batch.escrowed += sum(item.units for item in moved if item.debit_account == ALLOWANCE)


class _Undone(Exception):
    """Takes a part of a transaction back that did all it should."""


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
        self.metrics = CustodianMetrics(verifier.tees)
        self.spans: Spans | None = None
        """Where spans go; set by who serves, where the settings name a place."""
        self.vault: Vault = WatchedVault(vault, self._vault_failed)
        self.store, self.verifier, self.config = store, verifier, config
        self.rng = rng
        self._clock = clock
        self._log = log
        self._checkpoint_path = checkpoint_path
        self._checkpointed = -1
        self.failures = 0
        """How many transactions could not be done: what was well before one may be so no more."""
        self.checkpointed_at = clock()
        """When the checkpoint outside was last found or made to be of the whole log."""
        self._lock = threading.Lock()
        self._checkpoint_lock = threading.Lock()
        self._sequence_lock = threading.Lock()
        self._turns: Turns[Callable[[Transaction], Any], Any] = Turns(self._run_as_the_one_writer)
        self.instance_keys: Kept[InstanceId, VerifyKey] = Kept(_KEYS_KEPT)
        self._ticket_lock = threading.Lock()
        self._ticket = 0
        self._sequenced = 0

    def _vault_failed(self, kind: str) -> None:
        self.metrics.add("cloister_custodian_vault_errors_total", label=kind)

    def transact(self, work: Callable[[Transaction], T], *, beside: bool = False) -> T:
        """Run one use case; it is committed, logged and checkpointed when this returns.

        ``beside``: other custodians over the database may run theirs meanwhile, and the log has what they did in
        an order that could have been; for that a use case takes its loan's turn (``loans.take_turn``) before it reads
        anything that others of the loan change. Without it, it waits until nobody else runs.

        Raises ``Unavailable``: fenced, clock behind, disk full; then nothing has happened, or it has
        happened and the answer must be asked for again.
        """
        try:
            if self.store.shared:
                result = self._run_shared(work, beside=beside)
            elif beside:
                result = self._turns.take(work)  # those that wait for one another share a commit and a checkpoint
            else:
                (result,) = self._run_as_the_one_writer([work])
            self.catch_up()
        except Unavailable:
            self.failures += 1
            raise
        return result

    def _run_as_the_one_writer(self, works: Sequence[Callable[[Transaction], T]]) -> list[T]:
        """Run them, all or none; their entries are in the log with the same commit."""
        with self._lock:
            with self.store.writing() as connection:
                transaction = self._begin(connection)
                results = [work(transaction) for work in works]
                veil(transaction)
                moved = self._log.put(connection, [transaction.batch])
                begun = time.perf_counter()
            self._log.follow(moved)
        self._count(transaction.batch, begun)
        if transaction.batch.destroyed:
            self.store.scrub()
        return results

    def _count(self, batch: Batch, begun: float) -> None:
        """Count what was committed, and how long the commit took."""
        self.metrics.observe("cloister_custodian_commit_seconds", time.perf_counter() - begun)
        self.metrics.count(batch.events, batch.units)

    def _run_shared(self, work: Callable[[Transaction], T], *, beside: bool) -> T:
        """Run it, again where it met another, then see that its entries are in the log."""
        for tries in range(_TRIES):
            try:
                with self.store.writing(alone=not beside or tries >= _TRIES_BESIDE) as connection:
                    transaction = self._begin(connection)
                    result = work(transaction)
                    veil(transaction)
                    leave_pending(connection, transaction.batch)
                    begun = time.perf_counter()
            except Contended:
                if tries == _TRIES - 1:
                    raise
                time.sleep(_PAUSE_S * random.random())  # noqa: S311 - no secret
                continue
            self._count(transaction.batch, begun)
            self.sequence()
            return result
        raise AssertionError  # pragma: no cover - the last try returns or raises

    def _begin(self, connection: Connection) -> Transaction:
        epoch = read_epoch(connection)
        verify_epoch(held=self._log.epoch, stored=epoch.epoch)
        now = custodian_time(self._clock(), latest=self._log.latest)
        return Transaction(connection=connection, context=self, now=now, epoch=epoch, batch=Batch(at=now))

    def sequence(self) -> None:
        """Return once everything committed before this call is in the log. Waiting callers share one pass.

        Raises ``Rejected`` where the database is not the one it was (T38), ``Unavailable``.
        """
        with self._ticket_lock:
            self._ticket += 1
            ticket = self._ticket
        with self._sequence_lock:
            if self._sequenced >= ticket:
                return
            with self._ticket_lock:
                upto = self._ticket  # all of these had committed before the pass that starts now
            more = True
            while more:
                more = self._sequence_some()
            self._sequenced = upto

    def _sequence_some(self) -> bool:
        with self._lock:
            with self.store.sequencing() as connection:
                moved, more = sequence_pending(connection, self._log)
            if moved is not None:
                self._log.follow(moved)
        return more

    def refresh(self) -> None:
        """Take in what other custodians logged since. Does nothing where there are none."""
        if self.store.shared:
            with self._lock, self.store.reading() as connection:
                self._log.catch_up(connection)

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
            self._write_checkpoint()

    def rewrite_checkpoint(self) -> None:
        """Write the checkpoint though nothing is new, to see that it can be written. Raises ``Unavailable``."""
        with self._checkpoint_lock:
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        checkpoint = self.checkpoint()
        write_checkpoint(self._checkpoint_path, sign_checkpoint(checkpoint, self.vault.signing_key))
        self._checkpointed = checkpoint.size
        self.checkpointed_at = checkpoint.at

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint outside lies."""
        return self._checkpoint_path

    @property
    def unwritten(self) -> int:
        """How many entries the checkpoint outside does not have; all of them before the first was written."""
        return max(0, self._log.tree.size - max(0, self._checkpointed))

    @property
    def latest(self) -> datetime:
        """The largest time that was ever written."""
        return self._log.latest

    def once(self, key: OnceKey | None, work: Callable[[Transaction], Json]) -> Json:
        """Run ``work`` in one transaction; with a key, at most once for this actor and key.

        The answer is kept wrapped by the vault, for it may show a fresh token. Raises ``Rejected``
        (``idempotency_mismatch``) for another request under the same key.
        """
        if key is None:
            return self.transact(work)
        return self.transact(lambda transaction: self._once(transaction, key, work))

    def _once(self, transaction: Transaction, key: OnceKey, work: Callable[[Transaction], Json]) -> Json:
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
        codes = _codes(refusal)
        self.transact(lambda work: work.record(kind, actor, subject, codes=codes, **details), beside=True)


def _counted(posting: Posting) -> str | None:
    """Return what a movement of a loan's own units counts as, None for one between balance and escrow."""
    if posting.meter != LOAN_METER:
        return None
    if posting.debit_account == ISSUED:
        return "granted"
    named = {SPENT: "spent", WITHDRAWN: "withdrawn", WRITTEN_OFF: "written_off"}
    return named.get(posting.credit_account)


def _codes(refusal: CloisterError) -> str:
    """Return the codes of a refusal as the log spells them."""
    if not isinstance(refusal, Rejected):
        return type(refusal).__name__.lower()
    return ",".join(dict.fromkeys(reason.code for reason in refusal.reasons))
