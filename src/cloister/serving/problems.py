"""Errors as HTTP answers: RFC 9457 problem documents with a code and every reason.

Each server has ONE table from codes of rejections to statuses; what is not in it is 403.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable, UsageError
from cloister.wire import Json, dump_json, reason_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROBLEM_TYPE", "code_of", "problem", "problem_json", "status_of"]

PROBLEM_TYPE = "application/problem+json"

_TITLES = {
    400: "Malformed request",
    401: "Not authenticated",
    402: "Allowance exhausted",
    403: "Refused",
    404: "Not found",
    405: "Method not allowed",
    408: "Request too slow",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Wrong media type",
    422: "Cannot be done",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
}
_STATUS_OF_KIND = {"malformed": 400, "usage": 400, "unavailable": 503, "internal": 500}
_RETRY_AFTER_S = 2


def code_of(error: CloisterError) -> str:
    """Return the code of a rejection, for other errors that of their kind."""
    match error:
        case Rejected():
            return error.code
        case Malformed():
            return "malformed"
        case UsageError():
            return "usage"
        case Unavailable():
            return "unavailable"
        case _:
            return "internal"


def status_of(error: CloisterError, statuses: Mapping[str, int]) -> int:
    """Return the status of an error; a rejection that ``statuses`` does not name is 403."""
    return statuses.get(error.code, 403) if isinstance(error, Rejected) else _STATUS_OF_KIND[code_of(error)]


def problem(error: CloisterError, statuses: Mapping[str, int]) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers for ``error``. Its message names no secret, by house rule."""
    status = status_of(error, statuses)
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_s or _RETRY_AFTER_S)
    if status == 429:  # noqa: PLR2004 - Too Many Requests
        headers["Retry-After"] = str(_RETRY_AFTER_S)
    if status == 401:  # noqa: PLR2004 - Unauthorized
        headers["WWW-Authenticate"] = "Bearer"
    reasons = error.reasons if isinstance(error, Rejected) else ()
    return status, problem_json(status, code_of(error), error.message, reasons=reasons, hint=error.hint), headers


def problem_json(
    status: int, code: str, detail: str, *, reasons: tuple[Reason, ...] = (), hint: str | None = None
) -> bytes:
    """Return one problem document (RFC 9457 section 3)."""
    members: dict[str, Json] = {
        "code": code,
        "detail": detail,
        "status": status,
        "title": _TITLES.get(status, "Error"),
        "type": f"urn:cloister:problem:{code}",
    }
    if reasons:
        members["reasons"] = [reason_json(item) for item in reasons]
    if hint is not None:
        members["hint"] = hint
    return dump_json(members)
