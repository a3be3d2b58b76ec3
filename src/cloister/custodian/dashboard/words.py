"""What the pages say of what has short names elsewhere: alarms, operations, what was done, roles."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALARMS", "DONE", "OPERATIONS", "ROLES"]

ALARMS: Mapping[str, str] = {
    "allowance_low": "Loans in use have little left of what they were granted.",
    "attestations_failing": "Several enclaves were refused lately: their evidence was not as it has to be.",
    "certificate_ending": "A certificate ends soon.",
    "checkpoint_stale": "Entries wait for the checkpoint outside of the database.",
    "clock_anomaly": "The clock of an enclave went another way than ours.",
    "disk_low": "A disk of the custodian is nearly full.",
    "endorsements_ending": "What vendors publish about their hardware is old, or ends soon.",
    "extraction": "Somebody asks a model the way one asks to copy it.",
    "fork_detected": "An enclave's memory was copied, or it served more than it had.",
    "heartbeat_missing": "An enclave was not heard of when it had to be, or was written off.",
    "key_old": "The key that wraps the models' keys is older than it should be.",
    "requests_waiting": "A borrower has waited for an answer for more than a day.",
    "unhealthy": "A part of the custodian does not work.",
    "vault_failing": "The vault does not answer: no key can be released.",
    "witness_behind": "A witness of the log is late.",
}
"""Alarms by their code (docs/reference/observability.md)."""

DONE: Mapping[str, str] = {
    "answered": "The request was answered, and the borrower sees it.",
    "approved": "Approved, and carried out.",
    "asked-units": "The request was approved, and its units are there.",
    "blocked": "Blocked. Nothing more is released from this moment; what runs stops within the bound that is shown.",
    "denied": "Denied. Nothing was changed.",
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
