"""The enclave's side of usage: number every charged inference, chain its record, report it (docs/spec/usage.md).

Lives in enclave memory beside the meters. A record stays here until the custodian acknowledged the report it
is in; a report that was made is sent with the same bytes until then. Reports end where a lease
request, a voucher request or a consumption statement was made: the custodian knows the chain head that it names.

Not done here: the meters, the lease, time. What is unreported when the process is killed is lost: its units
are written off and never itemised.
"""

from __future__ import annotations

import hmac
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.errors import Rejected
from cloister.lending.messages import Receipt, UsageAck, UsageRecord, UsageReport
from cloister.lending.messages.usage import MAX_RECORDS, minute_of
from cloister.lending.receipt import GENESIS, next_head, record_of
from cloister.lending.terms import Consumer, InstanceId, LoanId, consumer_meter

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.crypto.sign import SigningKey, VerifyKey
    from cloister.lending.lease_state import Reservation

__all__ = ["MAX_UNREPORTED", "UsageChain"]

MAX_UNREPORTED = 20_000  # records; an enclave that cannot report more of them stops serving


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """One report on its way: its exact bytes, and the acknowledgement that ends it."""

    statement: bytes
    last: int
    head: bytes
    records: int


class UsageChain:
    """Index, chain head and unreported records of one instance."""

    def __init__(self, *, instance: InstanceId, loan: LoanId) -> None:
        """Start with nothing served."""
        self.index = 0
        self.head = GENESIS
        self._instance = instance
        self._loan = loan
        self._latest: datetime | None = None
        self._records: deque[tuple[UsageRecord, bytes]] = deque()  # each with the head after it
        self._reported = GENESIS  # the head before the first record that is in no report yet
        self._made: deque[_Made] = deque()
        self._on_their_way = 0  # records in those
        self._filed = 0  # records that lie in files and are not acknowledged
        self._told = 0  # the last index that a voucher says the custodian has

    @property
    def unreported(self) -> int:
        """How many records the custodian has not acknowledged."""
        return len(self._records) + self._on_their_way

    def demand_room(self, running: int) -> None:
        """Prove that the records of ``running`` inferences and one more have a place (``usage_unreported``)."""
        waiting = self.unreported - self._filed
        if waiting + running >= MAX_UNREPORTED:
            want = f"less than {MAX_UNREPORTED}"
            raise Rejected.because("usage_unreported", "usage records", got=str(waiting), want=want)

    def receipt(
        self,
        reservation: Reservation,
        units: int,
        commitments: tuple[bytes, bytes],
        *,
        policy_digest: str,
        now: datetime,
    ) -> bytes:
        """Chain one inference and return its receipt to sign. Its time never runs back, whatever the clock does.

        ``commitments`` are those to the request and to the response.
        """
        consumer = _consumer(reservation)
        metered = consumer is not None and _names_consumer(reservation)
        receipt = Receipt(
            instance=self._instance,
            index=self.index + 1,
            loan=self._loan,
            model=reservation.model.digest,
            consumer=None if consumer is None else consumer.id,
            metered=metered,
            units=units,
            request=commitments[0],
            response=commitments[1],
            previous=self.head,
            policy_digest=policy_digest,
            issued_at=self._forward(now),
        )
        self._append(record_of(receipt))
        return receipt.dump()

    def unreceipted(self, reservation: Reservation, *, units: int, now: datetime) -> None:
        """Chain units that were charged and have no receipt: an answer cut after charging, or never finished."""
        consumer = _consumer(reservation)
        record = UsageRecord(
            index=self.index + 1,
            model=reservation.model.digest,
            consumer=consumer.id if consumer is not None and _names_consumer(reservation) else None,
            units=units,
            at=minute_of(self._forward(now)),
            content=None,
        )
        self._append(record)

    def report(self, key: SigningKey | None, *, upto: int) -> bytes | None:
        """Return the signed report to send, the same bytes until it is acknowledged; None where nothing is due.

        A new one is made over the records up to index ``upto``, at most ``MAX_RECORDS`` of them, and only
        while there is a ``key``.
        """
        if not self._made and key is not None:
            self._make(key, upto)
        return self._made[0].statement if self._made else None

    @property
    def full(self) -> int:
        """The index of the last record that whole reports of ``MAX_RECORDS`` would hold, were they all made now."""
        return self.index - len(self._records) % MAX_RECORDS

    def due(self, upto: int) -> int:
        """Return how many reports are to be sent before everything up to index ``upto`` is reported."""
        unmade = min(upto, self._records[-1][0].index) - self._records[0][0].index + 1 if self._records else 0
        return len(self._made) + math.ceil(max(0, unmade) / MAX_RECORDS)

    def seal(self, key: SigningKey, *, upto: int) -> None:
        """Sign everything that is left: first up to ``upto``, then the rest. For a file, or before the key goes."""
        while self._make(key, upto):
            pass
        while self._make(key, self.index):
            pass

    def files(self) -> tuple[tuple[int, bytes], ...]:
        """Return all reports on their way, each with its first index.

        For a place without a network: they are kept here as bytes until they are acknowledged.
        """
        return tuple((made.last - made.records + 1, made.statement) for made in self._made)

    def filed(self, upto: int) -> None:
        """Note that the reports on their way lie in files, up to the one that begins at index ``upto``.

        What can be carried holds up no inference any more. A report made since is not among them.
        """
        self._filed = sum(made.records for made in self._made if made.last - made.records < upto)

    def acknowledge(self, statement: bytes, custodian: VerifyKey) -> None:
        """Let go of the report on its way once the custodian has it.

        One that comes late, after a voucher has said the same, is old news. Raises ``Malformed`` and ``Rejected``
        (``not_pending`` for an acknowledgement of anything else).
        """
        ack = UsageAck.parse(Statement.parse(statement, label=UsageAck.LABEL).verify([custodian]))
        if ack.instance == self._instance and ack.last <= self._told:
            return
        made = self._made[0] if self._made else None
        fits = made is not None and (ack.instance, ack.last) == (self._instance, made.last)
        if made is None or not fits or not hmac.compare_digest(ack.head, made.head):
            raise Rejected.because("not_pending", "usage ack", got=str(ack.last))
        self._let_go()

    def reported(self, upto: int) -> None:
        """Let go of the reports up to this index: the custodian signed something that it signs only with them."""
        self._told = max(self._told, upto)
        while self._made and self._made[0].last <= upto:
            self._let_go()

    def _let_go(self) -> None:
        records = self._made.popleft().records
        self._on_their_way -= records
        self._filed = max(0, self._filed - records)

    def _make(self, key: SigningKey, upto: int) -> bool:
        """Sign one more report over what is unreported up to ``upto``. Tells whether there was anything."""
        taken: list[UsageRecord] = []
        head = self._reported
        while self._records and self._records[0][0].index <= upto and len(taken) < MAX_RECORDS:
            record, head = self._records.popleft()
            taken.append(record)
        if not taken:
            return False
        report = UsageReport(instance=self._instance, loan=self._loan, previous=self._reported, records=tuple(taken))
        statement = Statement.sign(key, UsageReport.LABEL, report.dump()).dump()
        self._made.append(_Made(statement=statement, last=report.last, head=head, records=len(taken)))
        self._on_their_way += len(taken)
        self._reported = head
        return True

    def _append(self, record: UsageRecord) -> None:
        self.index, self.head = record.index, next_head(self.head, record)
        self._records.append((record, self.head))

    def _forward(self, now: datetime) -> datetime:
        if self._latest is None or now > self._latest:
            self._latest = now
        return self._latest


def _consumer(reservation: Reservation) -> Consumer | None:
    """Return the contract's consumer who asked; whom the borrower lets in by a sub-allowance is its own affair."""
    return reservation.consumer if isinstance(reservation.consumer, Consumer) else None


def _names_consumer(reservation: Reservation) -> bool:
    """Tell whether the inference is charged to a meter of its consumer: only then its record names it (T61).

    That of a ticketed model is charged by its ticket, which takes from no ceiling here.
    """
    consumer = _consumer(reservation)
    if consumer is None:
        return False
    if reservation.model.ticketed:
        return consumer.metered
    return consumer_meter(consumer.id) in reservation.meters
