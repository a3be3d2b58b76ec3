"""What the pages say of what has short names elsewhere: codes, operations, what was done, roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.codes import CODES, plain

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DONE", "OPERATIONS", "ROLES", "cause_of", "fix_of"]

DONE: Mapping[str, str] = {
    "answered": "The request was answered, and the borrower sees it.",
    "approved": "Approved, and carried out.",
    "asked-units": "The request was approved, and its units are there.",
    "blocked": "Blocked. Nothing more is released from this moment; what runs stops within the bound that is shown.",
    "denied": "Denied. Nothing was changed.",
    "policy-changed": "The policy was replaced. Enclaves attest again before they get another lease.",
    "distrusted": "The issuer's word counts no more.",
    "ended": "The session is over.",
    "named": "The device has that name now.",
    "readmitted": "The device may enrol again.",
    "retired": "The device gets no key any more, and what ran on it is blocked.",
    "revoked": "The token is good no more.",
    "rotated": "The keys were rotated.",
    "scheduled": "The schedule was changed.",
    "proposed": "A second person has to approve this. Nothing was changed yet.",
    "set": "What the allowance still holds was set.",
    "topped-up": "The units were added.",
    "unblocked": "The block is lifted. Blocked enclaves do not come back: they start anew.",
    "withdrawn": "Taken back.",
    "withdrawn-model": "The model is withdrawn from every loan, for good.",
}
"""What a page says once something was done, by the code in its address: an address brings no words of its own."""

OPERATIONS: Mapping[str, str] = {
    "erasure": "Erase from the log what names a person",
    "issuer": "Remove who vouches for callers",
    "key_export": "Split the key of the vault among holders",
    "key_recovery": "Open the vault by the shares of two holders",
    "person": "Let another person in",
    "policy": "Change what evidence has to satisfy",
    "rotation": "Destroy or schedule keys",
    "unblock": "Lift a block",
}
"""What two persons decide (docs/spec/proposal.md)."""

ROLES: Mapping[str, str] = {
    "admin": "administrator: may do everything here",
    "auditor": "auditor: reads everything, changes nothing",
    "lender": "lender: models, loans and blocks",
    "viewer": "viewer: looks, changes nothing",
}


def cause_of(code: str) -> str:
    """Return what a code means, as a sentence; the code itself where nothing is known of it."""
    known = CODES.get(code)
    return code if known is None else _sentence(known.cause)


def fix_of(code: str) -> str:
    """Return what is to be done about it, empty where nothing is known."""
    known = CODES.get(code)
    return "" if known is None else _sentence(known.fix)


def _sentence(text: str) -> str:
    said = plain(text).strip()
    return f"{said[:1].upper()}{said[1:].rstrip('.')}."
