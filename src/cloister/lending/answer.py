"""The custodian's answer to a lease request, from bytes: a lease or a refusal, its signature proven."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.crypto.sign import Statement
from cloister.errors import Rejected
from cloister.lending.messages import Lease, Refusal

if TYPE_CHECKING:
    from cloister.crypto.sign import VerifyKey

__all__ = ["parse_answer"]


def parse_answer(statement: bytes, custodian: VerifyKey) -> Lease | Refusal:
    """Return the custodian's answer once its signature is proven. Raises ``Malformed`` and ``Rejected``."""
    try:
        signed = Statement.parse(statement, label=Lease.LABEL)
    except Rejected:
        refusal = Statement.parse(statement, label=Refusal.LABEL)
        return Refusal.parse(refusal.verify([custodian]))
    return Lease.parse(signed.verify([custodian]))
