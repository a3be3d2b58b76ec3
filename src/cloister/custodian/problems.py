"""Errors as the custodian's HTTP answers: ONE table from codes to statuses (the documents: ``serving.problems``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Rejected
from cloister.serving.problems import PROBLEM_TYPE, problem_json
from cloister.serving.problems import problem as _problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.errors import CloisterError

__all__ = ["PROBLEM_TYPE", "STATUS_BY_CODE", "problem", "problem_json"]

STATUS_BY_CODE: Mapping[str, int] = {
    "dpop_invalid": 401,
    "dpop_nonce_wanted": 401,
    "unauthenticated": 401,
    "allowance_exhausted": 402,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "already_decided": 409,
    "already_exists": 409,
    "borrower_key_fixed": 409,
    "consumers_open": 409,
    "contract_version_old": 409,
    "forgotten": 410,
    "held": 409,
    "last_admin": 409,
    "model_withdrawn": 409,
    "no_fork": 422,
    "permit_not_needed": 409,
    "policy_version_old": 409,
    "quorum_missed": 409,
    "tenant_state": 409,
    "too_many_tenants": 409,
    "too_many_versions": 409,
    "key_certified": 409,
    "wrong_seq": 409,
    "proposal_changed": 409,
    "proposal_expired": 409,
    "proposal_stale": 409,
    "proposer_gone": 409,
    "too_many_proposals": 409,
    "too_many_sessions": 409,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "media_type_unsupported": 415,
    "borrower_key_wanted": 422,
    "idempotency_mismatch": 422,
    "idempotency_unsupported": 422,
    "insecure_refused": 422,
    "loan_wanted": 422,
    "name_invalid": 422,
    "session_wanted": 422,
    "token_digest_wanted": 422,
    "token_wanted": 422,
    "too_many_units": 422,
    "statement_too_large": 422,
    "unsupported_tee": 422,
    "usage_gap": 409,
    "too_many_requests": 429,
}
"""The status of a rejection by its first code; every other rejection is 403."""

_PROOF_ERRORS = {"dpop_invalid": "invalid_dpop_proof", "dpop_nonce_wanted": "use_dpop_nonce"}  # RFC 9449


def problem(error: CloisterError) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers for ``error``."""
    status, body, headers = _problem(error, STATUS_BY_CODE)
    if isinstance(error, Rejected) and error.code in _PROOF_ERRORS:
        headers["WWW-Authenticate"] = f'DPoP error="{_PROOF_ERRORS[error.code]}", algs="ES256 EdDSA"'
    return status, body, headers
