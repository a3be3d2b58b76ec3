"""Custodian and enclaves as the explorer sees them: the real code, each step of a part taken once and remembered.

A state of the world is a few numbers, each the number of a part's state: a database, an enclave, what is
on the wire. A step of a part is done by the product's own code (``LeaseHolder``, ``decide_lease`` and the
rest, through ``MemoryCustodian``) the first time, and looked up from then on. Two states of a part are one
where nothing that the protocol reads differs: the log's lines, the minutes of records and past times are left out.
"""

from __future__ import annotations

import copy
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from books import Books, Violation
from custodian_fake import EPOCH_START, Db, MemoryCustodian, attest_statement, instance_key
from explored_usage import Fate, bring_reports, chain_key, count_without_time, demand_reported, reports_due, reports_key
from world import SLOWEST

from cloister.errors import Rejected, Unavailable
from cloister.lending.release import verify_grant
from cloister.lending.terms import LOAN_METER, LoanId, ModelDigest, ModelTerms, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from cloister.lending.lease import LeaseHolder, Reservation
    from cloister.lending.terms import InstanceId

T = TypeVar("T")

TICK = timedelta(seconds=60)  # one T: an honest clock, as slow as may be, still serves one tick after it asked
LOAN = LoanId("loan-" + "x" * 16)
_NOTHING = bytes(32)


def true_time(tick: int) -> datetime:
    return EPOCH_START + TICK * (1 + tick)


def explored_terms(cap: int) -> Terms:
    model = ModelTerms(name="plain", digest=ModelDigest("a" * 64))
    return Terms(loan=LOAN, borrower="b", models=(model,), consumers=None, ttl=TICK, max_ceiling=cap, max_instances=9)


class Table(Generic[T]):
    """Values by number, each kept once by what can be told of it."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self._numbers: dict[Hashable, int] = {}

    def number(self, key: Hashable, value: T) -> int:
        found = self._numbers.setdefault(key, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


@dataclass(frozen=True)
class Cell:
    """One enclave process: its memory, which of the copies it is, and what its host did to its clock."""

    holder: LeaseHolder
    slot: int
    copy: int = 0
    streams: tuple[Reservation, ...] = ()
    frozen_at: int = -1

    def time(self, tick: int) -> datetime:
        shown = tick if self.frozen_at < 0 else self.frozen_at
        return EPOCH_START + TICK * (1 + shown * SLOWEST)

    def twin(self, **changes: Any) -> Cell:
        """Return a cell with a memory of its own."""
        memory = copy.copy(self.holder)
        for name in ("_clock", "_meters", "_usage", "_open"):  # the rest is frozen, or is nothing without consumers
            setattr(memory, name, _own(getattr(memory, name)))
        return replace(self, holder=memory, **changes)

    def key(self) -> Hashable:
        held, clock = self.holder, self.holder._clock
        view = (held._meters._limits.get(LOAN_METER, 0), held._meters._used.get(LOAN_METER, 0))
        times = (clock.deadline, clock._sent_at, clock._end_at, clock.seen if self.frozen_at >= 0 else None)
        pending = held._pending.digest if held._pending else b""
        counts = (held._seq, held._epoch, held._block_version, held._meters._reserved.get(LOAN_METER, 0), *view)
        streams = tuple(sorted(item.units for item in self.streams))
        usage = chain_key(held._usage)
        process = (self.slot, self.copy, self.frozen_at)
        return (*process, held._final, held._lease is None, counts, times, pending, streams, usage)


def db_key(db: Db) -> Hashable:
    loan = db.loans[LOAN]
    instances = tuple(
        (
            *(item.epoch, *item.limits.values(), *item.used.values(), item.seq, item.req_digest, item.reply),
            *(item.dead_at, item.status, item.written_off),
        )
        for item in db.instances.values()
    )
    balance = loan.balances[LOAN_METER]
    return (
        db.epoch,
        db.block_version,
        db.quiet_until,
        loan.blocked,
        balance,
        db.escrowed,
        tuple(db.instances),
        instances,
        reports_key(db),
    )


def _own(part: Any) -> Any:
    """Return a copy of a part of memory, whose own containers are copies too; what is in them is frozen."""
    mine = copy.copy(part)
    for name in (*getattr(type(part), "__slots__", ()), *getattr(part, "__dict__", ())):
        if isinstance(held := getattr(part, name), (dict, deque)):
            setattr(mine, name, held.copy())
    return mine


class Parts:
    """Every state of every part that was met, and every step that was taken between them."""

    def __init__(self, custodian: type[MemoryCustodian], holder: type[LeaseHolder], cap: int) -> None:
        self.custodian = custodian(0)
        self.custodian.boot_time = TICK
        self._holder_type = holder
        self.terms = explored_terms(cap)
        self.dbs: Table[Db] = Table()
        self.cells: Table[Cell] = Table()
        self.requests: Table[tuple[InstanceId, bytes]] = Table()
        self.answers: Table[tuple[bytes, tuple[int, int]]] = Table()
        self._steps: dict[tuple[Any, ...], Any] = {}

    # --- the custodian ---

    def start(self, quota: int) -> int:
        self.custodian.db = Db()
        self.custodian.create_loan(self.terms, {LOAN_METER: quota}, true_time(0))
        return self._db(self.custodian.db)

    def _db(self, db: Db) -> int:
        db.latest = EPOCH_START  # the same database may be met at an earlier time on another way
        return self.dbs.number(db_key(db), db)

    def _at(self, db: int) -> MemoryCustodian:
        custodian = self.custodian
        custodian.db = self.dbs.values[db]
        custodian.held_epoch, custodian.running, custodian.alarms = custodian.db.epoch, True, []
        return custodian

    def _custodian_step(self, name: tuple[Any, ...], work: Callable[..., Any]) -> tuple[int, Any, bool]:
        """Return the database after ``name`` (what, database, tick, more), what was heard, and whether an alarm rang.

        Proves on the way what concerns the custodian alone: I2, I4, I5, I7, and that no lease comes
        without the reports (I9).
        """
        done = self._steps.get(name)
        if done is None:
            custodian = self._at(name[1])
            before, heard = custodian.db, None
            with suppress(Rejected, Unavailable):
                heard = work(custodian, true_time(name[2]), *name[3:])
            _demand_books(before, custodian.db)
            done = self._steps[name] = (self._db(custodian.db), heard, bool(custodian.alarms))
        return done

    def attest(self, db: int, tick: int, slot: int) -> tuple[int, int | None]:
        """Launch the enclave of this slot: the database after it, and the fresh enclave where it got a grant."""
        after, cell, _ = self._custodian_step(("attest", db, tick, slot), self._attest)
        return after, cell

    def _attest(self, custodian: MemoryCustodian, now: datetime, slot: int) -> int:
        key, instance = instance_key(f"slot {slot}")
        statement, digest = attest_statement(key, LOAN, slot.to_bytes(16, "big") * 2)
        trusted = custodian.key.verify_key
        answer = custodian.attest(statement, now)
        grant = verify_grant(answer, custodian=trusted, request_digest=digest, instance=instance)
        holder = count_without_time(self._holder_type(key=key, grant=grant, custodian=trusted))
        return self._cell(Cell(holder=holder, slot=slot))

    def lease(self, db: int, tick: int, request: int) -> tuple[int, int | None, bool]:
        """Bring a request: the database after it, the answer, and whether an alarm rang."""
        return self._custodian_step(("lease", db, tick, request), self._lease)

    def _lease(self, custodian: MemoryCustodian, now: datetime, request: int) -> int:
        instance, statement = self.requests.values[request]
        reply = custodian.lease(instance, statement, now)
        asked = (custodian.db.epoch, request)
        return self.answers.number((reply, asked), (reply, asked))

    def report(self, db: int, tick: int, cell: int, fate: Fate) -> tuple[int, int, bool]:
        """Bring the reports of an enclave: the database after it, the enclave, and whether an alarm rang."""
        return self._custodian_step(("report", db, tick, cell, fate), self._report)

    def due(self, cell: int) -> bool:
        """Tell whether this enclave has reports to bring."""
        return reports_due(self.cells.values[cell].holder)

    def unreported(self, cell: int) -> int:
        return self.cells.values[cell].holder._usage.unreported

    def _report(self, custodian: MemoryCustodian, now: datetime, cell: int, fate: Fate) -> int:
        after = self.cells.values[cell].twin()
        bring_reports(custodian, after.holder, now, fate)
        return self._cell(after)

    def close(self, db: int, tick: int, cell: int, fate: Fate) -> tuple[int, None, bool]:
        """Close an enclave and bring its last reports, unless they are lost, and its last word."""
        return self._custodian_step(("close", db, tick, cell, fate), self._close)

    def _close(self, custodian: MemoryCustodian, now: datetime, cell: int, fate: Fate) -> None:
        closing = self.cells.values[cell].twin().holder
        last = closing.close(now)
        bring_reports(custodian, closing, now, fate)
        custodian.close(closing.instance, last, now)

    def block(self, db: int, tick: int, *, blocked: bool) -> int:
        return self._custodian_step(("block", db, tick, blocked), self._block)[0]

    def _block(self, custodian: MemoryCustodian, now: datetime, blocked: bool) -> None:  # noqa: FBT001 - a name's part
        custodian.block_loan(LOAN, now, blocked=blocked)

    def top_up(self, db: int, tick: int) -> int:
        """Add one unit."""
        return self._custodian_step(("top up", db, tick), self._top_up)[0]

    def _top_up(self, custodian: MemoryCustodian, now: datetime) -> None:
        custodian.top_up(LOAN, LOAN_METER, 1, now)

    def sweep(self, db: int, tick: int) -> int:
        return self._custodian_step(("sweep", db, tick), MemoryCustodian.sweep)[0]

    def restore(self, db: int, tick: int, backup: int, *, blocked: bool, with_checkpoint: bool) -> int:
        """Put an older database in place and start; where that is noticed, recover and lay the block again."""
        name = ("restore", db, tick, backup, blocked, with_checkpoint)
        if name not in self._steps:
            custodian = self._at(db)
            custodian._keep_outside()
            custodian.restore(self.dbs.values[backup])
            if with_checkpoint:
                custodian._keep_outside()
            try:
                custodian.start()
            except Rejected:
                custodian.recover(true_time(tick))
                if blocked and not custodian.db.loans[LOAN].blocked:
                    custodian.block_loan(LOAN, true_time(tick))
            Books.of(custodian.db)
            self._steps[name] = (self._db(custodian.db),)
        restored: int = self._steps[name][0]
        return restored

    # --- an enclave ---

    def _cell(self, cell: Cell) -> int:
        return self.cells.number(cell.key(), cell)

    def _cell_step(self, name: tuple[Any, ...], work: Callable[..., tuple[Cell, Any] | None]) -> tuple[int, Any]:
        """Return the enclave after ``name`` (what, enclave, tick, more) and what came of it; a no changes nothing.

        Proves on the way what concerns the enclave alone: I1 under its own ceiling, I5.
        """
        step = self._steps.get(name)
        if step is None:
            before, done = self.cells.values[name[1]], None
            with suppress(Rejected):
                done = work(before.twin(), before.time(name[2]), *name[3:])
            if done is not None:
                _demand_forward(before, done[0])
            step = self._steps[name] = (name[1], None) if done is None else (self._cell(done[0]), done[1])
        return step

    def request(self, cell: int, tick: int, most: int) -> tuple[int, int | None]:
        """Let an enclave ask, up to ``most`` times, unless it waits or has ended: itself after that, its message."""
        return self._cell_step(("request", cell, tick, most), self._request)

    def _request(self, cell: Cell, now: datetime, most: int) -> tuple[Cell, int] | None:
        holder = cell.holder
        if holder._seq >= most or holder._pending is not None or holder.must_end(now):
            return None
        statement = holder.request(now, bytes((cell.copy,)) * 16)
        return cell, self.requests.number(statement, (holder.instance, statement))

    def deliver(self, cell: int, tick: int, answer: int) -> int:
        return self._cell_step(("deliver", cell, tick, answer), self._deliver)[0]

    def _deliver(self, cell: Cell, now: datetime, answer: int) -> tuple[Cell, None]:
        cell.holder.receive(self.answers.values[answer][0], now)
        return cell, None

    def begin(self, cell: int, tick: int, units: int) -> int:
        return self._cell_step(("begin", cell, tick, units), self._begin)[0]

    def _begin(self, cell: Cell, now: datetime, units: int) -> tuple[Cell, None] | None:
        if len(cell.streams) > 1 or cell.holder.must_end(now):
            return None
        stream = cell.holder.reserve("plain", None, units, now)
        return replace(cell, streams=(*cell.streams, stream)), None

    def finish(self, cell: int, tick: int) -> tuple[int, int]:
        """Let all of the first stream leave, if it may, and settle it: the enclave, and the units that left."""
        after, left = self._cell_step(("finish", cell, tick), self._finish)
        return after, left or 0

    def _finish(self, cell: Cell, now: datetime) -> tuple[Cell, int]:
        stream, *rest = cell.streams
        return replace(cell, streams=tuple(rest)), _let_go(cell.holder, stream, now)

    def serve(self, cell: int, tick: int, units: int) -> tuple[int, int]:
        """Answer one inference whole: the enclave, and the units that left."""
        after, left = self._cell_step(("serve", cell, tick, units), self._serve)
        return after, left or 0

    def _serve(self, cell: Cell, now: datetime, units: int) -> tuple[Cell, int] | None:
        if cell.holder.must_end(now):
            return None
        return cell, _let_go(cell.holder, cell.holder.reserve("plain", None, units, now), now)

    def copied(self, cell: int, copies: int) -> int:
        return self._cell(self.cells.values[cell].twin(copy=copies))

    def frozen(self, cell: int, tick: int) -> int:
        return self._cell(self.cells.values[cell].twin(frozen_at=tick))

    def held(self, cell: int) -> int:
        """Return what a copy of this memory could serve on its own."""
        holder = self.cells.values[cell].holder
        room = max(0, holder._meters.room(LOAN_METER)) + holder._meters.reserved.get(LOAN_METER, 0)
        return room + (self.terms.max_ceiling if holder._pending is not None else 0)


def _let_go(holder: LeaseHolder, stream: Reservation, now: datetime) -> int:
    left = 0
    try:
        for produced in range(1, stream.units + 1):
            holder.permit(stream, produced, now)
            left = produced
        holder.settle(stream, left, _NOTHING, _NOTHING, now)
    except Rejected:
        if stream.number in holder._open:
            holder._release(stream, used=left)
    return left


def _demand_books(before: Db, db: Db) -> None:
    """Prove the custodian's books, that what an instance was told has a leaf in its log (I7), and its reports (I9)."""
    books = Books.of(before)
    changed = books.follow(db)
    lines = b"\n".join(db.lines)
    for item in changed:
        if item.req_digest is not None and item.req_digest.hex().encode() not in lines:
            raise Violation("I7", "a reply without an audit leaf")
        if item.id.encode() not in lines:
            raise Violation("I7", "a release without an audit leaf")
        demand_reported(item, db)


def _demand_forward(before: Cell, after: Cell) -> None:
    """Prove that an enclave counts within its ceiling (I1) and that nothing it knows goes back (I5)."""
    was, now = before.holder.snapshot(), after.holder.snapshot()
    limit = now.limits.get(LOAN_METER, 0)
    if now.used.get(LOAN_METER, 0) + now.reserved.get(LOAN_METER, 0) > limit:
        raise Violation("I1", f"used and reserved beyond the ceiling {limit}")
    old = (was.seq, was.epoch, was.block_version, was.limits.get(LOAN_METER, 0), was.used.get(LOAN_METER, 0))
    new = (now.seq, now.epoch, now.block_version, limit, now.used.get(LOAN_METER, 0))
    if any(fresh < known for known, fresh in zip(old, new, strict=True)):
        raise Violation("I5", f"an enclave went from {old} back to {new}")


__all__ = ["LOAN", "TICK", "Parts"]
