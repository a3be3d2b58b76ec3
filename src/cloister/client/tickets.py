"""Tickets as a consumer takes them: the custodian's signature for just this answer (docs/spec/ticket.md, section 3).

The attested keyset says which models are ticketed. An answer of such a model without a ticket that fits its receipt
is no answer: somebody was asked without the custodian, or the enclave is not what it was attested to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Malformed, Reason, Rejected
from cloister.lending.ticket import verify_ticket
from cloister.wire import parse_b64u

if TYPE_CHECKING:
    from cloister.channel.fields import FieldLines
    from cloister.client.receipts import VerifiedReceipt
    from cloister.crypto.sign import VerifyKey
    from cloister.lending.messages import Receipt, Ticket

__all__ = ["MAX_TICKET_BYTES", "TicketNotProven", "prove_ticket", "ticket_of"]

MAX_TICKET_BYTES = 16 * 1024  # bytes of one signed ticket
_TICKET = "cloister-ticket"


class TicketNotProven(Rejected):
    """An answer of a ticketed model has no ticket, or one that is not for it; nothing of the answer counts.

    ``reasons`` say what is wrong: ``ticket_missing``, ``ticket_malformed``, ``ticket_mismatch``, ``ticket_reused``, or
    what was wrong with the signature. ``receipt`` is the answer's own, proven, where there was an answer: with the
    ticket, if one came, it shows who lost the units.
    """

    receipt: VerifiedReceipt | None

    def __init__(self, *reasons: Reason) -> None:
        """Say everything that is wrong with the ticket."""
        self.receipt = None
        hint = "keep the receipt and tell the custodian: it was not asked for this answer"
        super().__init__("; ".join(map(str, reasons)), reasons=reasons, hint=hint)


def ticket_of(trailers: FieldLines) -> bytes | None:
    """Return the signed ticket out of the trailer fields, None where there is none. Raises ``TicketNotProven``."""
    values = [value for name, value in trailers if name == _TICKET]
    if not values:
        return None
    if len(values) > 1:
        raise TicketNotProven(Reason(code="ticket_malformed", subject=f"trailer {_TICKET}", got="twice", want="once"))
    try:
        return parse_b64u(values[0], what=f"trailer {_TICKET}", cap=MAX_TICKET_BYTES)
    except Malformed as exc:
        raise TicketNotProven(Reason(code="ticket_malformed", subject=f"trailer {_TICKET}")) from exc


def prove_ticket(statement: bytes | None, custodian: VerifyKey, receipt: Receipt) -> Ticket:
    """Return the ticket once it is proven to be the custodian's, for just the inference of ``receipt``.

    ``receipt`` must have been verified before. Raises ``TicketNotProven``.
    """
    if statement is None:
        raise TicketNotProven(Reason(code="ticket_missing", subject="response", want="a ticket: the model takes one"))
    try:
        return verify_ticket(statement, custodian, receipt)
    except Malformed as exc:
        raise TicketNotProven(Reason(code="ticket_malformed", subject="ticket")) from exc
    except Rejected as exc:
        raise TicketNotProven(*exc.reasons) from exc
