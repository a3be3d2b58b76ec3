"""Receipts as a consumer keeps them: verified against the attested key, the bytes they commit to, and each other.

A receipt proves that this instance of the enclave answered these bytes with those, for so many units. Kept
receipts are what shows a fork of the enclave's memory (invariant I8): one index, two receipts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.client.tickets import MAX_TICKET_BYTES, TicketNotProven, prove_ticket, ticket_of
from cloister.crypto.sign import VerifyKey
from cloister.errors import Malformed, Reason, Rejected
from cloister.lending.receipt import SALT_BYTES, fork_evidence, head_after, verify_commitment, verify_receipt
from cloister.private_file import write_private
from cloister.wire import Fields, Json, dump_b64u, dump_json, dump_time, parse_b64u

if TYPE_CHECKING:
    from pathlib import Path

    from cloister.channel.fields import FieldLines
    from cloister.client.trust import VerifiedEnclave
    from cloister.lending.messages import Receipt, Ticket

__all__ = ["ReceiptChain", "VerifiedReceipt", "receipt_of", "verify_answer", "verify_paid"]

MAX_RECEIPT_BYTES = 64 * 1024
MAX_FILE_BYTES = 256 * 1024  # bytes of one receipt file
_MAX_STATUS_BYTES = 64 * 1024
KEPT_RECEIPTS = 1024  # receipts one chain remembers

_RECEIPT = "cloister-receipt"
_REQUEST_SALT = "cloister-request-salt"
_RESPONSE_SALT = "cloister-response-salt"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class VerifiedReceipt:
    """A receipt whose signature and commitments were proven. Made by ``verify_answer`` and ``load`` only.

    Keep it with the request and response bytes: with the salts they prove to anybody what was asked and
    answered. ``statement`` is what the enclave signed.
    """

    receipt: Receipt
    statement: bytes
    key: VerifyKey
    request_salt: bytes
    response_salt: bytes
    status: bytes | None = None
    """The custodian's signed status of the instance, where the consumer asked for it: whose instance this is."""
    ticket: bytes | None = None
    """The custodian's signed ticket for this answer, of a ticketed model; ``prove_ticket`` proves it."""

    def __repr__(self) -> str:
        """Return what it is about; no salts, which let content be guessed."""
        made = self.receipt
        return (
            f"VerifiedReceipt(index={made.index}, units={made.units}, model={made.model[:16]!r}, "
            f"instance={made.instance[:16]!r}, issued_at={dump_time(made.issued_at)!r})"
        )

    def _repr_html_(self) -> str:
        """Return it as a notebook shows it."""
        from cloister.client.notebook.receipts import receipt_html  # noqa: PLC0415 - of notebooks alone

        return receipt_html(self)

    def dump(self) -> bytes:
        """Return the receipt file: statement, key and salts as canonical JSON (docs/spec/receipt-file.md)."""
        members: dict[str, Json] = {
            "key": self.key.dump(),
            "request_salt": dump_b64u(self.request_salt),
            "response_salt": dump_b64u(self.response_salt),
            "statement": dump_b64u(self.statement),
            "status": None if self.status is None else dump_b64u(self.status),
            "v": 2,
        }
        return dump_json(members | ({} if self.ticket is None else {"ticket": dump_b64u(self.ticket)}))

    def save(self, path: Path | str) -> None:
        """Write a new file of mode 0600, durably. Raises ``UsageError`` when it exists, ``Unavailable``."""
        write_private(path, self.dump() + b"\n", hint="choose another name: receipts are kept, not replaced")

    @classmethod
    def parse(cls, data: bytes) -> VerifiedReceipt:
        """Return a kept receipt; proves its signature by the key inside, which was attested when it was made.

        Proves nothing of status and ticket: ``prove_ticket`` takes the custodian's key. Raises ``Malformed`` and
        ``Rejected``.
        """
        fields = Fields.parse(data, what="receipt file", cap=MAX_FILE_BYTES)
        fields.literal("v", 2)
        key = VerifyKey.take(fields, "key")
        statement = fields.b64u("statement", cap=MAX_RECEIPT_BYTES)
        receipt = cls(
            receipt=verify_receipt(statement, key),
            statement=statement,
            key=key,
            request_salt=fields.b64u("request_salt", size=SALT_BYTES),
            response_salt=fields.b64u("response_salt", size=SALT_BYTES),
            status=_status(fields),
            ticket=fields.b64u("ticket", cap=MAX_TICKET_BYTES) if "ticket" in fields else None,
        )
        fields.end()
        return receipt

    def demand_content(self, *, request: bytes, response: bytes) -> None:
        """Prove that this receipt is about exactly these bytes. Raises ``Rejected`` (``commitment_mismatch``)."""
        verify_commitment(self.receipt.request, self.request_salt, request, what="request")
        verify_commitment(self.receipt.response, self.response_salt, response, what="response")

    def prove_ticket(self, custodian: VerifyKey) -> Ticket:
        """Return the kept ticket once proven to be ``custodian``'s, for this answer. Raises ``TicketNotProven``."""
        return prove_ticket(self.ticket, custodian, self.receipt)


def _status(fields: Fields) -> bytes | None:
    """Return the status statement as it was kept; its signature is for whoever relies on it."""
    value = fields.take("status")
    return (
        None if value is None else Fields({"status": value}, what="receipt file").b64u("status", cap=_MAX_STATUS_BYTES)
    )


def receipt_of(trailers: FieldLines) -> tuple[bytes, bytes, bytes]:
    """Return statement, request salt and response salt out of the trailer fields. Raises as they are wrong."""
    found: dict[str, bytes] = {}
    for name, value in trailers:
        if name in (_RECEIPT, _REQUEST_SALT, _RESPONSE_SALT):
            if name in found:
                msg = f"trailer {name}: twice"
                raise Malformed(msg)
            found[name] = parse_b64u(value, what=f"trailer {name}", cap=MAX_RECEIPT_BYTES)
    if set(found) != {_RECEIPT, _REQUEST_SALT, _RESPONSE_SALT}:
        raise Rejected.because("receipt_missing", "response", want="a receipt in the trailers")
    return found[_RECEIPT], found[_REQUEST_SALT], found[_RESPONSE_SALT]


def verify_answer(
    enclave: VerifiedEnclave, model: str, *, request: bytes, response: bytes, trailers: FieldLines
) -> VerifiedReceipt:
    """Return the receipt of one answer, once everything it says is proven; its ticket is for ``verify_paid``.

    The attested key signed it, for this instance, loan and sealed model, about exactly these bytes. Raises
    ``Malformed`` and ``Rejected`` (``receipt_missing``, ``signature_invalid``, ``commitment_mismatch``, ...).
    """
    statement, request_salt, response_salt = receipt_of(trailers)
    receipt = verify_receipt(statement, enclave.receipt_key)
    served = enclave.model(model)
    if receipt.model != served.digest:
        raise Rejected.because("model_mismatch", "receipt", got=receipt.model, want=served.digest)
    if receipt.loan != enclave.keyset.loan:
        raise Rejected.because("loan_mismatch", "receipt", got=receipt.loan, want=enclave.keyset.loan)
    verified = VerifiedReceipt(
        receipt=receipt,
        statement=statement,
        key=enclave.receipt_key,
        request_salt=request_salt,
        response_salt=response_salt,
        status=enclave.status_statement or None,
    )
    verified.demand_content(request=request, response=response)
    return verified


def verify_paid(
    enclave: VerifiedEnclave, model: str, receipt: VerifiedReceipt, *, trailers: FieldLines, chain: ReceiptChain
) -> tuple[VerifiedReceipt, Ticket | None]:
    """Take a verified receipt into ``chain``; return it with its ticket, and the ticket once that is proven.

    A ticket that came is proven, and where the keyset calls the model ticketed one must have come: it is signed by the
    attested custodian's key, which is the trust file's where that pins one. The receipt counts for the chain whatever
    becomes of the ticket. Raises ``Rejected`` as ``ReceiptChain.add``, ``TicketNotProven`` with the receipt.
    """
    chain.add(receipt.receipt)
    kept = receipt
    try:
        kept = replace(receipt, ticket=ticket_of(trailers))
        if kept.ticket is None and not enclave.model(model).ticketed:
            return kept, None
        ticket = kept.prove_ticket(enclave.keyset.custodian)
        chain.add(receipt.receipt, ticket)
    except TicketNotProven as exc:
        exc.receipt = kept
        raise
    return kept, ticket


class ReceiptChain:
    """The receipts of one consumer, held against each other; by several threads. The oldest are forgotten."""

    def __init__(self, *, kept: int = KEPT_RECEIPTS) -> None:
        """Start with none."""
        self._kept = kept
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, int], Receipt] = OrderedDict()
        self._paid: OrderedDict[tuple[str, int], Receipt] = OrderedDict()

    def add(self, receipt: Receipt, ticket: Ticket | None = None) -> None:
        """Take a verified receipt and its ticket. Raises ``Rejected``: ``receipt_fork``, ``chain_broken``.

        Raises ``TicketNotProven`` (``ticket_reused``) for a ticket that paid for another answer before. Receipts of
        other consumers lie between ours, so only neighbours can be compared; a receipt seen before (an answer given
        again) is fine.
        """
        with self._lock:
            self._add(receipt)
            if ticket is not None:
                self._pay(receipt, ticket)

    def _add(self, receipt: Receipt) -> None:
        place = (receipt.instance, receipt.index)
        known = self._seen.get(place)
        if known is not None and fork_evidence(known, receipt) is not None:
            want = "one receipt for each index"
            raise Rejected.because("receipt_fork", f"receipt {receipt.index}", want=want, hint=_FORK_HINT)
        self._demand_link(self._seen.get((receipt.instance, receipt.index - 1)), receipt)
        self._demand_link(receipt, self._seen.get((receipt.instance, receipt.index + 1)))
        self._seen[place] = receipt
        if len(self._seen) > self._kept:
            self._seen.popitem(last=False)

    def _pay(self, receipt: Receipt, ticket: Ticket) -> None:
        """Hold one ticket to one receipt: the same request asked twice has two tickets."""
        place = (ticket.instance, ticket.index)
        paid = self._paid.setdefault(place, receipt)
        if paid != receipt:
            got, want = f"ticket {ticket.index} for answer {receipt.index}", f"for answer {paid.index} only"
            raise TicketNotProven(Reason(code="ticket_reused", subject="ticket", got=got, want=want))
        if len(self._paid) > self._kept:
            self._paid.popitem(last=False)

    def _demand_link(self, first: Receipt | None, second: Receipt | None) -> None:
        if first is None or second is None:
            return
        if head_after(first) != second.previous:
            raise Rejected.because("chain_broken", f"receipt {second.index}", hint=_FORK_HINT)


_FORK_HINT = "keep both receipts and tell the custodian: the enclave's memory was copied"
