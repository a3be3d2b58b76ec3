"""What custodian (K), enclave (E) and consumer (U) say to each other.

Each message is a value with ``dump`` to canonical JSON and ``parse`` back, and travels as a signed
``Statement`` under its ``LABEL``. Parsing proves form only: signatures, freshness and meaning are for
``release`` and ``lease``. The formats are in docs/spec: release.md, lease.md, voucher.md, ticket.md, certificates.md,
receipt.md and usage.md.
"""

from __future__ import annotations

from cloister.lending.messages.certificates import CertificateRequest, InstanceCertificate
from cloister.lending.messages.form import Units
from cloister.lending.messages.issuers import IssuersAnswer, IssuersRequest
from cloister.lending.messages.leasing import Close, Lease, LeaseRequest, Refusal
from cloister.lending.messages.proofs import Receipt, Status
from cloister.lending.messages.registration import AttestRequest, Challenge, Grant, ReleasedKey
from cloister.lending.messages.statement import UsageLine, UsageSpan, UsageStatement
from cloister.lending.messages.tickets import Ticket, TicketRequest
from cloister.lending.messages.usage import UsageAck, UsageRecord, UsageReport
from cloister.lending.messages.vouchers import Consumption, Voucher, VoucherRequest

__all__ = [
    "AttestRequest",
    "CertificateRequest",
    "Challenge",
    "Close",
    "Consumption",
    "Grant",
    "InstanceCertificate",
    "IssuersAnswer",
    "IssuersRequest",
    "Lease",
    "LeaseRequest",
    "Receipt",
    "Refusal",
    "ReleasedKey",
    "Status",
    "Ticket",
    "TicketRequest",
    "Units",
    "UsageAck",
    "UsageLine",
    "UsageRecord",
    "UsageReport",
    "UsageSpan",
    "UsageStatement",
    "Voucher",
    "VoucherRequest",
]
