"""The enclave's side of vouchers: units and time for a place without a network (docs/spec/voucher.md).

``OfflineHolder`` is the offline part of a ``LeaseHolder`` and lives in the same memory. Time runs from the making of
the request (rule two): a voucher that travelled for a day has a day less. Ceilings are absolute, and so is the
overdraft: it is bound to the voucher that promised it, and no later lease moves it.

Pure. Not done here: files (``enclave/vouchers``), signing
vouchers (``voucher_grant``).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.errors import Rejected
from cloister.lending.answers import parse_voucher
from cloister.lending.lease_clock import LeaseClock
from cloister.lending.lease_state import Pending
from cloister.lending.messages import Consumption, Voucher, VoucherRequest
from cloister.lending.terms import MAX_UNITS

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.lending.holding import Owner
    from cloister.lending.messages import Units
    from cloister.lending.terms import Terms

__all__ = ["OfflineHolder"]

_END_AT = 2  # times T: as without an offline term, where that is longer than the term (E9)


class OfflineHolder:
    """The pending voucher request, the accepted voucher and its time. Starts without any (E1)."""

    def __init__(self, owner: Owner, terms: Terms) -> None:
        """Take the terms of the grant; without an offline term every request is refused."""
        self._owner = owner
        self._terms = terms
        self._term = terms.clauses.offline
        self._clock = LeaseClock(end_after=1)
        self._pending: Pending | None = None
        self._asked_head, self._asked_index = b"", 0
        self._voucher: Voucher | None = None
        self._digest = b""
        self._first = 1
        self._seq = 0
        self._number = 0

    @property
    def live(self) -> bool:
        """Tell whether a voucher had time left at the latest reading."""
        return self._clock.live

    @property
    def deadline(self) -> datetime | None:
        """When the voucher ends; None without one, and after a clock step."""
        return self._clock.deadline

    @property
    def tops(self) -> Units:
        """The absolute ceilings, overdraft included, that stand while the voucher lives."""
        if self._voucher is None or not self.live:
            return {}
        return {meter: min(MAX_UNITS, limit + self._voucher.overdraft) for meter, limit in self._voucher.limits.items()}

    def observe(self, now: datetime) -> None:
        """Take a reading; the first one starts the time that an instance may stand without a word.

        Without an offline term there is never a voucher, and no time to keep.
        """
        if self._term is None:
            return
        moment = self._clock.observe(now)
        if not self._clock.has_end:
            self.heard(moment)

    def void(self, now: datetime) -> None:
        """Void the voucher's time because time took an unexplained step (E7): ask for another one."""
        self._clock.void(now)

    def heard(self, sent_at: datetime) -> None:
        """Note that a request sent at this time was answered: the end is put off (E9)."""
        if self._term is not None:
            self._clock.hold(sent_at, max(self._term.lasts, _END_AT * self._terms.ttl))

    def is_over(self, moment: datetime, *, lease_over: bool) -> bool:
        """Tell whether the model must be unloaded: the offline term replaces 2T where there is one (E9)."""
        return lease_over if self._term is None else self._clock.over(moment)

    def request(self, now: datetime, nonce: bytes) -> bytes:
        """Return a new signed voucher request: time runs from now (rule two), and one that was pending is given up.

        ``nonce`` is 16 fresh random bytes. Raises ``Rejected`` (``no_offline_term``).
        """
        if self._term is None:
            raise Rejected.because("no_offline_term", "loan", hint="the custodian makes a loan with an offline term")
        moment, key, counters = self._owner.observe(now), self._owner.signing_key(), self._owner.counters()
        self._owner.cut_report()
        self._seq += 1
        payload = VoucherRequest(
            instance=counters.instance,
            loan=self._terms.loan,
            epoch=counters.epoch,
            seq=self._seq,
            req_nonce=nonce,
            used=counters.used,
            reserved=counters.reserved,
            want=self._owner.wanted(self._term.units),
            served=counters.index,
            chain_head=counters.chain_head,
        ).dump()
        statement = Statement.sign(key, VoucherRequest.LABEL, payload).dump()
        self._clock.sent(moment, first=True, ttl=self._term.lasts)
        self._pending = Pending(statement=statement, digest=hashlib.sha256(payload).digest())
        self._asked_head, self._asked_index = counters.chain_head, counters.index
        return statement

    def receive(self, statement: bytes, now: datetime) -> Voucher:
        """Take the voucher that answers the pending request.

        Raises ``Malformed`` and ``Rejected``: as ``LeaseHolder.receive``, and ``wrong_chain`` where it names another
        chain head than the request did; then nothing changed.
        """
        self._owner.observe(now)
        voucher, payload = parse_voucher(statement, self._owner.custodian)
        self._owner.prove(voucher, "voucher", self._pending.digest if self._pending else None)
        if not hmac.compare_digest(voucher.chain_head, self._asked_head):
            raise Rejected.because("wrong_chain", "voucher", got=voucher.chain_head.hex())
        self._clock.extend(voucher.lasts)
        self._voucher, self._digest = voucher, hashlib.sha256(payload).digest()
        self._first = self._owner.counters().index + 1
        self._pending = None
        self._owner.take_word(voucher)
        self._owner.reported(self._asked_index)  # without their reports no voucher is signed (C13)
        return voucher

    def consumption(self, now: datetime) -> bytes:
        """Return a new signed statement of what was served. Raises ``Rejected`` (``voucher_unknown``) without one."""
        moment, key, counters = self._owner.observe(now), self._owner.signing_key(), self._owner.counters()
        if self._voucher is None:
            raise Rejected.because("voucher_unknown", "consumption statement", got="no voucher was accepted yet")
        self._owner.cut_report()
        self._number += 1
        message = Consumption(
            instance=counters.instance,
            loan=self._terms.loan,
            voucher=self._digest,
            number=self._number,
            used=counters.used,
            chain_head=counters.chain_head,
            first=self._first,
            last=counters.index,
            at=moment,
        )
        return Statement.sign(key, Consumption.LABEL, message.dump()).dump()
