"""What was verified, as JSON: for ``--json`` and for the status of a proxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.wire import dump_time

if TYPE_CHECKING:
    from cloister.attest.rats import Check
    from cloister.client.trust import VerifiedEnclave
    from cloister.wire import Json

__all__ = ["check_json", "enclave_json"]


def check_json(check: Check) -> Json:
    """Return one check as ``--json`` prints it."""
    return {
        "code": check.code,
        "got": check.got,
        "note": check.note,
        "subject": check.subject,
        "verdict": check.verdict.value,
        "want": check.want,
    }


def enclave_json(enclave: VerifiedEnclave) -> dict[str, Json]:
    """Return a verified enclave as ``--json`` prints it."""
    return {
        "checks": [check_json(check) for check in enclave.checks],
        "custodian": enclave.keyset.custodian.dump(),
        "expires": dump_time(enclave.keyset.exp),
        "instance": enclave.instance,
        "kem": enclave.suite.kem.name,
        "loan": enclave.keyset.loan,
        "models": {model.name: model.digest for model in enclave.keyset.models},
        "operator": enclave.operator,
        "policy_digest": enclave.result.policy_digest,
        "state": enclave.status.state if enclave.status else "",
        "tee": enclave.result.tee,
        "ticketed": [model.name for model in enclave.keyset.models if model.ticketed],
        "tier": enclave.result.tier.value,
        "url": enclave.url,
    }
