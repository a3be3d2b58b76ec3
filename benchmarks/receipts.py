"""What accounting for an inference costs: its receipt and its usage record in the enclave, its report at the custodian.

    python benchmarks/receipts.py --inferences 3000

``settle`` is all of it on the request path: charge, receipt, signature, record, chain. ``sign`` is one signature of
the same size alone, for comparison. Reports are made and taken outside of the request path. Medians; bytes are
those of the signed statement as it is sent and stored.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cloister.crypto.sign import Label, SigningKey, Statement
from cloister.lending.lease import LeaseHolder
from cloister.lending.messages import Grant, Lease, UsageAck
from cloister.lending.messages.usage import MAX_RECORDS
from cloister.lending.receipt import commit
from cloister.lending.state import InstanceState
from cloister.lending.terms import (
    LOAN_METER,
    Consumer,
    ConsumerId,
    LoanId,
    ModelDigest,
    ModelTerms,
    Terms,
    consumer_meter,
    instance_id,
)
from cloister.lending.usage_report import Reported, decide_report, head_of, sign_ack, verify_report

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
TOKEN = b"token"
UNITS = 1_000_000
CUSTODIAN = SigningKey(bytes(range(32)))
INSTANCE = SigningKey(bytes(range(32, 64)))
TERMS = Terms(
    loan=LoanId("loan-" + "a" * 16),
    borrower="General Hospital",
    models=(ModelTerms(name="digits", digest=ModelDigest("ab" * 32)),),
    consumers=(Consumer(id=ConsumerId("ward-7"), token_sha256=hashlib.sha256(TOKEN).digest(), metered=True),),
    max_ceiling=UNITS,
)


def serving() -> LeaseHolder:
    """Return an instance with a lease over everything."""
    grant = Grant(
        instance=instance_id(INSTANCE.verify_key.raw),
        request_digest=bytes(32),
        epoch=1,
        terms=TERMS,
        policy_digest="cd" * 32,
        result="",
        publisher=CUSTODIAN.verify_key,
        keys=(),
        block_version=0,
    )
    holder = LeaseHolder(key=INSTANCE, grant=grant, custodian=CUSTODIAN.verify_key)
    statement = holder.request(NOW, bytes(16))
    payload = Statement.parse(statement, label=Label.LEASE_REQUEST).payload
    meters = (LOAN_METER, consumer_meter(ConsumerId("ward-7")))
    lease = Lease(
        instance=holder.instance,
        epoch=1,
        seq=1,
        req_digest=hashlib.sha256(payload).digest(),
        limits=dict.fromkeys(meters, UNITS),
        balances={},
        ttl=timedelta(hours=1),
        models=(TERMS.models[0].digest,),
        consumers=TERMS.consumers,
        policy_digest="cd" * 32,
        block_version=0,
    )
    holder.receive(Statement.sign(CUSTODIAN, Lease.LABEL, lease.dump()).dump(), NOW)
    return holder


def timed(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes, in microseconds."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e6


def settle_once(holder: LeaseHolder, moment: datetime) -> tuple[float, bytes]:
    """Serve one inference; return what settling it took, and the receipt."""
    reservation = holder.reserve("digits", TOKEN, 1, moment)
    commitments = commit(bytes(32), b"question"), commit(bytes(32), b"answer")
    receipt = b""

    def settle() -> None:
        nonlocal receipt
        receipt = holder.settle(reservation, 1, *commitments, moment)

    return timed(settle), receipt


def take_reports(holder: LeaseHolder) -> tuple[list[float], list[float], int, int]:
    """Make and take every report: microseconds for each at both ends, records and bytes in all."""
    holder.request(NOW, bytes(16))
    made, taken, records, size = [], [], 0, 0
    while True:
        statement = b""

        def make() -> None:
            nonlocal statement
            statement = holder.report() or b""

        made.append(timed(make))
        if not statement:
            return made[:-1], taken, records, size
        report = verify_report(statement, INSTANCE.verify_key)
        taken.append(timed(lambda: take(statement)))  # noqa: B023 - called at once
        records, size = records + len(report.records), size + len(statement)
        ack = UsageAck(instance=report.instance, last=report.last, head=head_of(report))
        holder.acknowledge(sign_ack(ack, CUSTODIAN))


def take(statement: bytes) -> None:
    """Verify and decide a report as the custodian does, without its database."""
    report = verify_report(statement, INSTANCE.verify_key)
    instance = InstanceState(
        id=report.instance, loan=report.loan, key=INSTANCE.verify_key, epoch=1, policy_digest="cd" * 32,
        attested_at=NOW, committed_at=NOW, dead_at=NOW,
        limits={LOAN_METER: UNITS, consumer_meter(ConsumerId("ward-7")): UNITS},
    )  # fmt: skip
    reported = Reported(index=report.first - 1, head=report.previous)
    decide_report(report, statement, instance=instance, terms=TERMS, reported=reported, stored=None)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inferences", type=int, default=3000)
    wanted = parser.parse_args().inferences
    holder = serving()
    settled, receipt = [], b""
    for number in range(wanted):
        took, receipt = settle_once(holder, NOW + timedelta(seconds=number * 0.05))
        settled.append(took)
    payload = Statement.parse(receipt, label=Label.RECEIPT).payload
    signed = [timed(lambda: INSTANCE.sign(Label.RECEIPT, payload)) for _ in range(min(wanted, 1000))]
    made, taken, records, size = take_reports(holder)
    print(f"settle             {statistics.median(settled):8.0f} us an inference, of which one signature takes "
          f"{statistics.median(signed):.0f} us")  # fmt: skip
    print(f"receipt            {len(receipt):8d} bytes")
    print(f"report             {size / records:8.1f} bytes an inference, in reports of at most {MAX_RECORDS} records")
    print(f"report, made       {sum(made) / records:8.1f} us an inference in the enclave, off the request path")
    print(f"report, taken      {sum(taken) / records:8.1f} us an inference at the custodian, without its database")


if __name__ == "__main__":
    main()
