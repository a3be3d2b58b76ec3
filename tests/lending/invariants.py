"""The invariants I1 to I9 of docs/spec/lease.md over a ``World``, checked against what really happened.

The truth is what left towards consumers and what the lender did, in real time, never what a party
says of itself. Conditions of the adversary table: a copied enclave memory relaxes I1 by what that copy
could hold; a manipulated enclave clock relaxes I3 to N further units; all else holds always.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.lending.clock import lifetime
from cloister.lending.ledger import (
    ALLOWANCE,
    ISSUED,
    OVERDRAFT,
    SPENT,
    WITHDRAWN,
    WRITTEN_OFF,
    balance_of,
    escrow,
    granted,
    verify_postings,
)
from cloister.lending.receipt import GENESIS, fork_evidence, record_of
from cloister.lending.state import InstanceStatus
from cloister.lending.terms import unserved_cap
from cloister.lending.usage_report import units_by_meter, verify_report

if TYPE_CHECKING:
    from custodian_fake import Db
    from world import Enclave, World

    from cloister.lending.messages import Receipt
    from cloister.lending.terms import InstanceId, LoanId, Meter


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant


class Invariants:
    """Remembers what was seen last, so that each step costs only what is new."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._before: Db = world.custodian.db
        self._chunks_seen = 0
        self._receipts_seen = 0
        self._late: dict[InstanceId, int] = defaultdict(int)
        self._by_place: dict[tuple[InstanceId, int], Receipt] = {}

    def start_anew(self) -> None:
        """Forget the database: another one was put in its place."""
        self._before = self.world.custodian.db

    def verify(self) -> None:
        """Raise ``Violation`` if one of I1 to I8 does not hold now."""
        self._verify_served()
        self._verify_books()
        self._verify_blocks()
        self._verify_loss()
        self._verify_monotone()
        self._verify_replies()
        self._verify_forks()
        self._verify_usage()
        self._before = self.world.custodian.db

    def _verify_served(self) -> None:
        for key, units in self.world.served.items():
            allowed = self.world.granted[key] + self.world.relaxed[key]
            if units > allowed:
                raise Violation("I1", f"{key}: served {units} of {allowed}")

    def _verify_books(self) -> None:
        db = self.world.custodian.db
        if db is self._before:
            return
        try:
            verify_postings(db.postings)
        except Rejected as exc:
            raise Violation("I5", str(exc)) from exc
        for loan, state in db.loans.items():
            for meter, balance in state.balances.items():
                self._verify_meter(db, loan, meter, balance)

    def _verify_meter(self, db: Db, loan: LoanId, meter: Meter, balance: int) -> None:
        mine = [item for item in db.postings if item.loan == loan and item.meter == meter]
        limits = sum(item.limits.get(meter, 0) for item in db.instances.values() if item.loan == loan)
        lost = sum(item.units for item in mine if (item.debit_account, item.credit_account) == (ALLOWANCE, WRITTEN_OFF))
        tickets = sum(item.units for item in mine if (item.debit_account, item.credit_account) == (ALLOWANCE, SPENT))
        total = granted(mine, loan=loan, meter=meter) - balance_of(mine, OVERDRAFT, loan=loan, meter=meter)
        if balance + limits + lost + tickets != total:
            raise Violation("I2", f"{meter}: {balance} + {limits} + {lost} + {tickets} is not {total}")
        if balance_of(mine, ALLOWANCE, loan=loan, meter=meter) != balance:
            raise Violation("I2", f"{meter}: the ledger's allowance is not the balance {balance}")
        for item in db.instances.values():
            held = 0 if item.written_off else item.limits.get(meter, 0) - item.used.get(meter, 0)
            if item.loan == loan and balance_of(mine, escrow(item.id), loan=loan, meter=meter) != held:
                raise Violation("I2", f"{meter}: the ledger's escrow is not {held}")
        accounts = {item.debit_account for item in mine} | {item.credit_account for item in mine}
        known = {ISSUED, ALLOWANCE, OVERDRAFT, SPENT, WITHDRAWN, WRITTEN_OFF} | {escrow(name) for name in db.instances}
        if accounts - known:
            raise Violation("I2", f"{meter}: units in {sorted(accounts - known)}")

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

    def _verify_loss(self) -> None:
        for item in self.world.custodian.db.instances.values():
            cap = unserved_cap(self.world.loans[item.loan])
            for meter, limit in item.limits.items():
                if limit - item.used.get(meter, 0) > cap:
                    raise Violation(
                        "I4", f"{meter}: one crash loses {limit} - {item.used.get(meter, 0)}, more than {cap}"
                    )

    def _verify_monotone(self) -> None:
        old, db = self._before, self.world.custodian.db
        if (db.epoch, db.block_version) < (old.epoch, old.block_version):
            raise Violation("I5", "epoch or block version went back")
        for name, before in old.instances.items() if db is not old else ():
            after = db.instances[name]
            pairs = [(before.seq, after.seq), (before.epoch, after.epoch)]
            pairs += [(units, after.limits.get(meter, 0)) for meter, units in before.limits.items()]
            pairs += [(units, after.used.get(meter, 0)) for meter, units in before.used.items()]
            if any(new < was for was, new in pairs):
                raise Violation("I5", f"instance {name[:8]}: seq, limit or used went back")
        for enclave in self.world.enclaves:
            if enclave.alive:
                self._verify_enclave(enclave)

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
        key = self.world.answered
        if key is not None:
            replies = self.world.replies[key]
            if self.world.debits[key] > 1:
                raise Violation("I6", f"one request, {self.world.debits[key]} debits")
            leases = sum(b"cloister.lease+json" in _kind(reply) for reply in replies)
            if leases > 1 or (len(replies) > 1 and not self.world.forked):
                raise Violation("I6", f"one request, {len(replies)} replies")
        if self.world.custodian.db is self._before:
            return
        old, leaves = self._before.instances, b"\n".join(self.world.custodian.db.lines)
        for name, item in self.world.custodian.db.instances.items():
            if item is old.get(name):
                continue
            if item.req_digest is not None and item.req_digest.hex().encode() not in leaves:
                raise Violation("I7", f"a reply to {name[:8]} without an audit leaf")
            if b'"key_released"' not in leaves or name.encode() not in leaves:
                raise Violation("I7", f"a release to {name[:8]} without an audit leaf")

    def _verify_forks(self) -> None:
        for name, item in self.world.custodian.db.instances.items():
            if item.status in (InstanceStatus.FORKED, InstanceStatus.OVERDRAWN) and name not in self.world.forked:
                raise Violation("I8", f"a false alarm about {name[:8]}")
        if false := [alarm for alarm in self.world.custodian.alarms if alarm.instance not in self.world.forked]:
            raise Violation("I8", f"a false alarm: {false[0].detail}")
        for receipt in self.world.receipts[self._receipts_seen :]:
            first = self._by_place.setdefault((receipt.instance, receipt.index), receipt)
            if fork_evidence(first, receipt) is not None and receipt.instance not in self.world.forked:
                raise Violation("I8", f"two receipts {receipt.index} of one honest instance")
        self._receipts_seen = len(self.world.receipts)

    def _verify_usage(self) -> None:
        """Hold every record that the custodian has against the receipts that were given (I9)."""
        world, db = self.world, self.world.custodian.db
        if db is self._before:
            return
        self._verify_granted()
        for name, reports in db.reports.items():
            known = self._before.reports.get(name, ())
            if reports == known or name in world.forked:
                continue
            state = db.instances[name]
            itemised = units_by_meter(db.reported(name).totals, world.loans[state.loan])
            if not state.written_off and any(units > state.limits.get(meter, 0) for meter, units in itemised.items()):
                raise Violation("I9", f"instance {name[:8]}: more itemised than granted")
            for stored in reports[len(known) :]:
                self._verify_report(name, stored.statement)

    def _verify_granted(self) -> None:
        """Hold every new lease against the reports: no report, no lease."""
        old, db = self._before.instances, self.world.custodian.db
        for name, item in db.instances.items():
            known = old.get(name)
            if name in self.world.forked or item.reply is None or (known is not None and item.reply == known.reply):
                continue
            heads = {GENESIS} | {report.head for report in db.reports.get(name, ())}
            if b"cloister.lease+json" in _kind(item.reply) and item.chain_head not in heads:
                raise Violation("I9", f"instance {name[:8]}: a lease for what was not reported")

    def _verify_report(self, name: InstanceId, statement: bytes) -> None:
        report = verify_report(statement, self.world.custodian.db.instances[name].key)
        for record in report.records:
            receipt = self._by_place.get((name, record.index))
            if (receipt is None) != (record.content is None):
                raise Violation("I9", f"record {record.index}: says of a receipt what is not so")
            if receipt is not None and record_of(receipt) != record:
                raise Violation("I9", f"record {record.index}: is not that of its receipt")


def _kind(statement: bytes) -> bytes:
    return statement[statement.index(b'"payloadType"') :]
