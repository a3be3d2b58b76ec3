"""The invariants I1 to I9 of docs/spec/lease.md over a ``World``, checked against what really happened.

The truth is what left towards consumers and what the lender did, in real time, never what a party
says of itself. Conditions of the adversary table: a copied enclave memory relaxes I1 by what that copy
could hold; a manipulated enclave clock relaxes I3 to N further units; all else holds always.

``verify`` looks at all that can have changed since the last time; ``verify_whole`` adds everything up
from nothing and must come to the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from books import Books, Violation

from cloister.lending.clock import lifetime
from cloister.lending.receipt import GENESIS, fork_evidence, record_of
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import unserved_cap
from cloister.lending.usage_report import units_by_meter, verify_report

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from custodian_fake import Db, Report
    from world import Enclave, World

    from cloister.lending.messages import Receipt
    from cloister.lending.state import InstanceState
    from cloister.lending.terms import InstanceId

_DIGEST = re.compile(rb'"req_digest":"([0-9a-f]{64})"')
_RELEASED = re.compile(rb'"kind":"key_released".*"subject":"([0-9a-f]{64})"')
_FOUND_OUT = (InstanceStatus.FORKED, InstanceStatus.OVERDRAWN)


class Invariants:
    """Remembers what was seen last, so that each step costs only what is new. ``verified`` counts the steps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.verified = 0
        self._highest = (0, 0)
        self._chunks_seen = self._receipts_seen = self._alarms_seen = 0
        self._late: dict[InstanceId, int] = defaultdict(int)
        self._by_place: dict[tuple[InstanceId, int], Receipt] = {}
        self._proven: set[bytes] = set()
        self.start_anew()

    def start_anew(self) -> None:
        """Forget the database: another one was put in its place."""
        self._db: Db | None = None
        self._books = Books()
        self._lines_seen = 0
        self._logged: set[bytes] = set()
        self._released: set[bytes] = set()
        self._new: list[tuple[InstanceState, InstanceState | None]] = []  # changed instances, and what they were
        self._reports: Mapping[InstanceId, tuple[Report, ...]] = {}

    def verify(self, touched: Iterable[Enclave] = ()) -> None:
        """Raise ``Violation`` if one of I1 to I9 does not hold now; only ``touched`` enclaves can have changed."""
        self.verified += 1
        news = self.world.custodian.db is not self._db
        if news or self._chunks_seen != len(self.world.chunks):
            self._verify_served()
        if news:
            self._verify_database(self.world.custodian.db)
        self._verify_blocks()
        for enclave in touched:
            if enclave.alive:
                self._verify_enclave(enclave)
        self._verify_replies()
        self._verify_forks()
        self._verify_usage()

    def verify_whole(self) -> None:
        """Verify with nothing taken for granted: the database from its first row, and every enclave."""
        books = self._books
        self.start_anew()
        self.verify(self.world.enclaves)
        if (self._books.accounts, self._books.limits, self._books.lost) != (books.accounts, books.limits, books.lost):
            raise Violation("I2", "the books followed and the books added up differ")

    def _verify_served(self) -> None:
        for key, units in self.world.served.items():
            allowed = self.world.granted[key] + self.world.relaxed[key]
            if units > allowed:
                raise Violation("I1", f"{key}: served {units} of {allowed}")

    def _verify_database(self, db: Db) -> None:
        before = self._books.instances
        changed = self._books.follow(db)
        self._new = [(item, before.get(item.id)) for item in changed]
        if self.world.custodian.running:  # one that was put in place and not started speaks for nobody
            if db.epoch < self._highest[0] or db.block_version < self._highest[1]:
                raise Violation("I5", "epoch or block version went back")
            self._highest = (db.epoch, db.block_version)
        self._verify_leaves(db, changed)
        for item in changed:
            if item.status in _FOUND_OUT and item.id not in self.world.forked:
                raise Violation("I8", f"a false alarm about {item.id[:8]}")
        self._db = db

    def _verify_leaves(self, db: Db, changed: Iterable[InstanceState]) -> None:
        for line in db.lines[self._lines_seen :]:
            self._logged.update(_DIGEST.findall(line))
            self._released.update(_RELEASED.findall(line))
        self._lines_seen = len(db.lines)
        for item in changed:
            if item.req_digest is not None and item.req_digest.hex().encode() not in self._logged:
                raise Violation("I7", f"a reply to {item.id[:8]} without an audit leaf")
            if item.id.encode() not in self._released:
                raise Violation("I7", f"a release to {item.id[:8]} without an audit leaf")

    def _verify_blocks(self) -> None:
        for chunk in self.world.chunks[self._chunks_seen :]:
            target = self.world.loans[chunk.loan].model(chunk.model)
            hit = [
                self.world.blocks.get(("loan", chunk.loan)),
                self.world.blocks.get(("instance", chunk.instance)),
                self.world.blocks.get(("consumer", f"{chunk.loan}/{chunk.consumer}")),
                self.world.blocks.get(("model", target.digest if target else "")),
            ]
            bound = lifetime(self.world.loans[chunk.loan].ttl)
            if not any(at is not None and chunk.at > at + bound for at in hit):
                continue
            self._late[chunk.instance] += chunk.units
            # With neither clock nor memory to trust, each copy of an enclave has an N of its own.
            copies = sum(1 for enclave in self.world.enclaves if enclave.id == chunk.instance)
            allowed = copies * unserved_cap(self.world.loans[chunk.loan]) if chunk.tampered else 0
            if self._late[chunk.instance] > allowed:
                raise Violation("I3", f"{self._late[chunk.instance]} units left after a block, {allowed} allowed")
        self._chunks_seen = len(self.world.chunks)

    def _verify_enclave(self, enclave: Enclave) -> None:
        view = enclave.holder.snapshot()
        for meter, limit in view.limits.items():
            if view.used.get(meter, 0) + view.reserved.get(meter, 0) > limit:
                raise Violation("I1", f"{meter}: used and reserved beyond the limit {limit}")
        now = {"seq": view.seq, "epoch": view.epoch, "block version": view.block_version, "served": view.served}
        now |= {f"limit of {meter}": limit for meter, limit in view.limits.items()}
        back = [name for name, was in enclave.before.items() if now.get(name, 0) < was]
        if back or min(now.values()) < 0:
            raise Violation("I5", f"enclave {enclave.name}: {back} went back")
        enclave.before = now

    def _verify_replies(self) -> None:
        key, self.world.answered = self.world.answered, None
        if key is None:
            return
        replies = self.world.replies[key]
        if self.world.debits[key] > 1:
            raise Violation("I6", f"one request, {self.world.debits[key]} debits")
        leases = sum(b"cloister.lease+json" in _kind(reply) for reply in replies)
        if leases > 1 or (len(replies) > 1 and not self.world.forked):
            raise Violation("I6", f"one request, {len(replies)} replies")

    def _verify_forks(self) -> None:
        alarms = self.world.custodian.alarms
        for alarm in alarms[self._alarms_seen :]:
            if alarm.instance not in self.world.forked:
                raise Violation("I8", f"a false alarm: {alarm.detail}")
        self._alarms_seen = len(alarms)
        for receipt in self.world.receipts[self._receipts_seen :]:
            first = self._by_place.setdefault((receipt.instance, receipt.index), receipt)
            if fork_evidence(first, receipt) is not None and receipt.instance not in self.world.forked:
                raise Violation("I8", f"two receipts {receipt.index} of one honest instance")
        self._receipts_seen = len(self.world.receipts)

    def _verify_usage(self) -> None:
        """Hold every new lease against the reports, and every new record against the receipts given (I9)."""
        db = self.world.custodian.db
        new, self._new = self._new, []
        for item, known in new:
            if item.id not in self.world.forked:
                self._verify_granted(db, item, known)
        if db.reports is self._reports:
            return
        for name, reports in db.reports.items():
            if reports is self._reports.get(name) or name in self.world.forked:
                continue
            state = db.instances[name]
            itemised = units_by_meter(db.reported(name).totals, self.world.loans[state.loan])
            if not state.written_off and any(units > state.limits.get(meter, 0) for meter, units in itemised.items()):
                raise Violation("I9", f"instance {name[:8]}: more itemised than granted")
            for stored in reports:
                self._verify_report(state, stored.statement)
        self._reports = db.reports

    def _verify_granted(self, db: Db, item: InstanceState, known: InstanceState | None) -> None:
        """Prove: no report, no lease. Of one that has ended since, the head is that of its close."""
        ended = item.status is InstanceStatus.CLOSED or (item.status is InstanceStatus.BLOCKED and item.written_off)
        if item.reply is None or ended or (known and item.reply == known.reply):
            return
        heads = {GENESIS} | {report.head for report in db.reports.get(item.id, ())}
        if item.chain_head not in heads and b"cloister.lease+json" in _kind(item.reply):
            raise Violation("I9", f"instance {item.id[:8]}: a lease for what was not reported")

    def _verify_report(self, state: InstanceState, statement: bytes) -> None:
        """Prove that records are those of the receipts. Neither changes any more: what was proven stays so."""
        if statement in self._proven:
            return
        for record in verify_report(statement, state.key).records:
            receipt = self._by_place.get((state.id, record.index))
            if (receipt is None) != (record.content is None):
                raise Violation("I9", f"record {record.index}: says of a receipt what is not so")
            if receipt is not None and record_of(receipt) != record:
                raise Violation("I9", f"record {record.index}: is not that of its receipt")
        self._proven.add(statement)


def _kind(statement: bytes) -> bytes:
    return statement[statement.index(b'"payloadType"') :]
