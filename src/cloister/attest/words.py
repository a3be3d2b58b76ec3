"""Plain words for what a verifier finds: tiers, checks, parts of a trustworthiness vector; for pages and notebooks.

What a claim means stands in ``attest.vocabulary``; here is what is asked by checks that are about no claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cloister.attest.appraise import NO_RULE, mismatch_code
from cloister.attest.rats import Verdict
from cloister.attest.vocabulary import describe_claim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import Check, TeeKind

__all__ = ["GROUPS", "OUTCOMES", "TIERS", "VECTOR", "group_of", "outcome_of", "question_of"]

TIERS: Mapping[str, tuple[str, str]] = {
    "affirming": ("Affirming", "Everything that had to hold was checked and holds."),
    "warning": (
        "Warning",
        "What was checked holds, but something that matters was left unchecked, or is known to be weak: see below.",
    ),
    "contraindicated": ("Contraindicated", "The evidence was refused. Do not rely on this machine."),
    "none": ("None", "The verifier says nothing about it."),
}
"""Trust tiers (draft-ietf-rats-ar4si section 2.3), each with what it means for the reader."""

OUTCOMES: Mapping[Verdict, str] = {
    Verdict.PASSED: "✓ as it has to be",
    Verdict.FAILED: "✗ not as it has to be",
    Verdict.NOT_CHECKED: "○ not checked",
}

VECTOR: Mapping[str, str] = {
    "configuration": "configuration: how it is set up",
    "executables": "executables: which software runs",
    "file-system": "file system: what is on its disks",
    "hardware": "hardware: whether it is genuine and up to date",
    "instance-identity": "instance identity: which machine it is",
    "runtime-opaque": "runtime opaque: whether its memory is hidden from its host",
    "sourced-data": "sourced data: where its data comes from",
    "storage-opaque": "storage opaque: whether its storage is hidden",
}
"""Parts of a trustworthiness vector (draft-ietf-rats-ar4si section 2.3.4)."""

_CHAIN, _TCB, _FRESH, _SOFTWARE, _LOAN, _REST = "chain", "tcb", "fresh", "software", "loan", "rest"
GROUPS: Mapping[str, str] = {
    _CHAIN: "Who vouches for it: chain and signatures",
    _FRESH: "Is it fresh, and for whom",
    _TCB: "Firmware and platform (TCB)",
    _SOFTWARE: "What runs",
    _LOAN: "Whose loan it serves, and who runs it",
    _REST: "Everything else",
}

_QUESTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "chain_invalid": (_CHAIN, "Do the certificates hold together, each signed by the next?"),
    "untrusted_root": (_CHAIN, "Do they end at a root of the vendor that is built into this program?"),
    "signature_invalid": (_CHAIN, "Did the key that the chain vouches for sign exactly these bytes?"),
    "cert_expired": (_CHAIN, "Is every certificate still in its time?"),
    "cert_not_yet_valid": (_CHAIN, "Has every certificate begun?"),
    "revoked": (_CHAIN, "Has the vendor taken none of the certificates back?"),
    "revocation_unknown": (_CHAIN, "Is it known whether the vendor took one of the certificates back?"),
    "algorithm_not_allowed": (_CHAIN, "Is it signed by an algorithm that is strong enough?"),
    "unknown_key": (_CHAIN, "Is the key one of its issuer's?"),
    "report_data_mismatch": (_FRESH, "Does it answer this challenge, and name the keys and data that came with it?"),
    "nonce_mismatch": (_FRESH, "Does it answer this challenge?"),
    "token_expired": (_FRESH, "Is the token still in its time?"),
    "token_not_yet_valid": (_FRESH, "Has the token begun?"),
    "issuer_mismatch": (_FRESH, "Is the token from an issuer that was chosen?"),
    "audience_mismatch": (_FRESH, "Was the token made for this verifier?"),
    "tcb_status_not_allowed": (_TCB, "Is the firmware as new as the policy wants it?"),
    "tcb_out_of_date": (_TCB, "Is the firmware at least as new as the policy wants it?"),
    "tcb_mismatch": (_TCB, "Are the firmware versions of the report those of the certificate?"),
    "svn_too_low": (_TCB, "Is the security version high enough?"),
    "collateral_expired": (_TCB, "Is what the vendor publishes about this platform still in its time?"),
    "measurement_mismatch": (_SOFTWARE, "Is what was measured at launch what the policy names?"),
    "pcr_mismatch": (_SOFTWARE, "Was what booted measured as the policy names it?"),
    "software_mismatch": (_SOFTWARE, "Is the software manifest the one that was measured?"),
    "debug_enabled": (_SOFTWARE, "Is debugging off, so that nobody looks inside?"),
    "keyset_not_yet_valid": (_FRESH, "Have the keys that it offers begun?"),
    "keyset_expired": (_FRESH, "Are the keys that it offers still in their time?"),
    "wrong_instance": (_FRESH, "Is it one and the same instance that attests and signs receipts?"),
    "status_stale": (_FRESH, "Is the custodian's word on it fresh?"),
    "custodian_mismatch": (_LOAN, "Does it serve the custodian that you trust?"),
    "contract_mismatch": (_LOAN, "Does it serve under the contract that you agreed to?"),
    "loan_mismatch": (_LOAN, "Is it the loan that its keys name?"),
    "model_mismatch": (_LOAN, "Is it exactly the sealed model that you chose?"),
    "instance_not_active": (_LOAN, "Does the custodian say that it may serve now?"),
    "operator_mismatch": (_LOAN, "Is it run by somebody whom you named?"),
    "composite_mismatch": (_REST, "Do the devices belong to this machine?"),
    "hardware_not_verified": (_REST, "Was the hardware's own evidence looked at by this verifier?"),
    "memory_not_protected": (_REST, "Is the memory hidden from whoever owns the machine?"),
    "simulated": (_REST, "Is there hardware behind it?"),
    "tee_not_allowed": (_REST, "Does the policy accept this kind of hardware?"),
    "claim_missing": (_REST, "Does the evidence say what the policy asks about?"),
    "policy_incomplete": (_REST, "Does the policy decide everything that it must?"),
}


def question_of(tee: TeeKind, check: Check) -> str:
    """Return what a check asks, in plain words: what the claim means where it is about one."""
    if mismatch_code(check.subject) == check.code:
        meaning = describe_claim(tee, check.subject).meaning
        if meaning:
            return meaning
    return _QUESTIONS.get(check.code, (_REST, ""))[1]


def group_of(check: Check) -> str:
    """Return the group that a check is shown in."""
    known = _QUESTIONS.get(check.code)
    if known is not None:
        return known[0]
    if any(word in check.subject for word in ("tcb", "svn", "firmware", "microcode")):
        return _TCB
    return _REST


def outcome_of(check: Check) -> str:
    """Return the outcome, with why something was not checked."""
    if check.verdict is Verdict.NOT_CHECKED:
        why = "nobody asked for it: the policy has no rule" if check.note == NO_RULE else check.note
        return f"{OUTCOMES[check.verdict]}: {why}" if why else OUTCOMES[check.verdict]
    return OUTCOMES[check.verdict]
