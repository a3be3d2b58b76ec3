"""Errors as answers: the one table of inner statuses, and the outer problems (docs/reference/enclave-api.md).

Problem documents are RFC 9457. Reasons carry codes and short values that name what was wrong, never content.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cloister.channel.bhttp import BinaryResponse
from cloister.channel.phrases import PHRASES
from cloister.enclave.web.exchange import Answer
from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable
from cloister.wire import reason_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = [
    "DATE_PROBLEM",
    "NO_STORE",
    "PROBLEM_TYPE",
    "STATUS_BY_CODE",
    "inner_problem",
    "outer_problem",
    "plain",
    "status_of",
]

PROBLEM_TYPE = "application/problem+json"
NO_STORE = ("cache-control", "no-store")
DATE_PROBLEM = "https://iana.org/assignments/http-problem-types#date"  # RFC 9458 section 6.5.2

STATUS_BY_CODE: Mapping[str, int] = {
    "allowance_exhausted": 402,
    "blocked": 403,
    "budget_spent": 429,
    "clock_step": 409,
    "consumer_stopped": 403,
    "date_missing": 400,
    "date_skewed": 400,
    "deadline_passed": 504,
    "draining": 503,
    "engine_failed": 500,
    "input": 422,
    "internal": 500,
    "lease_expired": 409,
    "malformed": 400,
    "method_not_allowed": 405,
    "not_found": 404,
    "output": 422,
    "output_withheld": 403,
    "outside_hours": 403,
    "parameter_refused": 422,
    "rate_limited": 429,
    "request_id_reused": 422,
    "request_id_too_long": 422,
    "request_in_flight": 409,
    "revocations_missing": 403,
    "sub_allowance_exhausted": 402,
    "sub_allowance_expired": 403,
    "sub_allowance_invalid": 401,
    "sub_allowance_rate": 429,
    "sub_allowance_revoked": 403,
    "sub_allowance_scope": 403,
    "sub_allowances_busy": 503,
    "sub_allowances_off": 403,
    "ticket_expired": 409,
    "ticket_refused": 403,
    "too_large": 413,
    "unauthorized": 401,
    "unavailable": 503,
    "unknown_model": 404,
    "usage_unreported": 503,
}
"""Code of the first reason to status; whatever is not here is a fault of ours."""


def status_of(error: CloisterError) -> tuple[int, str]:
    """Return status and code of an error on the way to a consumer."""
    if isinstance(error, Rejected) and error.code in STATUS_BY_CODE:
        return STATUS_BY_CODE[error.code], error.code
    if isinstance(error, Malformed):
        return 400, "malformed"
    if isinstance(error, Unavailable):
        return 503, "unavailable"
    return 500, "internal"


def inner_problem(error: CloisterError) -> BinaryResponse:
    """Return the sealed answer for an error: one document for RFC 9457 and for the inference protocol."""
    status, code = status_of(error)
    known = isinstance(error, Rejected) and code != "internal"
    reasons: tuple[Reason, ...] = error.reasons if known and isinstance(error, Rejected) else ()
    detail = "internal error" if code == "internal" else error.message[:1024]
    members: dict[str, Json] = {
        "code": code,
        "detail": detail,
        "error": detail,  # what clients of the inference protocol read; RFC 9457 section 3.2 lets it stand here
        "reasons": [reason_json(reason) for reason in reasons[:64]],
        "status": status,
        "title": PHRASES[status],
        "type": DATE_PROBLEM if code.startswith("date_") else f"urn:cloister:problem:{code}",
    }
    if error.hint is not None and code != "internal":
        members["hint"] = error.hint
    headers = [("content-type", PROBLEM_TYPE), ("cloister-units", "0")]
    if isinstance(error, Unavailable | Rejected) and error.retry_after_s is not None:
        headers.append(("retry-after", str(error.retry_after_s)))
    return BinaryResponse(status=status, headers=tuple(headers), body=_dump(members))


def outer_problem(status: int, kind: str = "about:blank") -> bytes:
    """Return a problem that anybody on the way may read: status and type, no detail."""
    return _dump({"status": status, "title": PHRASES[status], "type": kind})


def plain(status: int, kind: str = "about:blank", *, retry_after_s: int | None = None) -> Answer:
    """Return the answer in the clear that carries such a problem."""
    headers = [("content-type", PROBLEM_TYPE), NO_STORE]
    if retry_after_s is not None:
        headers.append(("retry-after", str(retry_after_s)))
    return Answer(status=status, headers=tuple(headers), body=outer_problem(status, kind))


def _dump(members: dict[str, Json]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode("utf-8")
