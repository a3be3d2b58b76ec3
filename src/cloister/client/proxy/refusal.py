"""What the proxy itself says no with: a problem document (RFC 9457) that the inference protocol's clients can read too.

An answer of the enclave's, refusals included, goes through as it is; ``from`` tells ours from those.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloister.channel.phrases import PHRASES
from cloister.client.proxy.gate import HOST, TOKEN
from cloister.errors import CloisterError, Malformed, Reason, Rejected, Unavailable, UsageError
from cloister.wire import reason_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.wire import Json

__all__ = ["STATUS_BY_CODE", "Reply", "refusal"]

PROBLEM_TYPE = "application/problem+json"

STATUS_BY_CODE: Mapping[str, int] = {
    HOST: 403,
    TOKEN: 401,
    "body_late": 408,
    "busy": 429,
    "content_encoding": 415,
    "method_not_allowed": 405,
    "not_found": 404,
    "too_large": 413,
}
"""Codes of the proxy's own; whatever else is rejected is an enclave or an answer that does not hold."""

_MAX_DETAIL = 1024
_MAX_REASONS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back to a program of this machine."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


def refusal(error: CloisterError) -> Reply:
    """Return the answer for an error."""
    status, code = _status(error)
    reasons: tuple[Reason, ...] = error.reasons if isinstance(error, Rejected) else ()
    detail = error.message[:_MAX_DETAIL]
    members: dict[str, Json] = {
        "code": code,
        "detail": detail,
        "error": detail if error.hint is None else f"{detail}; {error.hint}",
        "from": "proxy",
        "reasons": [reason_json(item) for item in reasons[:_MAX_REASONS]],
        "status": status,
        "title": PHRASES[status],
        "type": f"urn:cloister:problem:{code}",
    }
    if error.hint is not None:
        members["hint"] = error.hint
    headers = [("content-type", PROBLEM_TYPE)]
    if code == TOKEN:
        headers.append(("www-authenticate", 'Bearer realm="cloister proxy"'))
    if isinstance(error, Unavailable) and error.retry_after_s is not None:
        headers.append(("retry-after", str(error.retry_after_s)))
    return Reply(status=status, headers=tuple(headers), body=json.dumps(members, separators=(",", ":")).encode())


def _status(error: CloisterError) -> tuple[int, str]:
    match error:
        case Rejected():
            return STATUS_BY_CODE.get(error.code, 502), error.code
        case UsageError():
            return 400, "usage"
        case Malformed():
            return 502, "malformed"
        case Unavailable():
            return 503, "unavailable"
        case _:
            return 500, "internal"
