"""Errors as the attestation service's answers: ONE table from codes to statuses; every other refusal is 403."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STATUSES"]

STATUSES: Mapping[str, int] = {
    "unauthenticated": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "payload_too_large": 413,
    "media_type_unsupported": 415,
    "policy_unknown": 422,
    "unsupported_format": 422,
    "unsupported_tee": 422,
    "too_many_requests": 429,
}
