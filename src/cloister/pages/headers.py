"""Headers of pages: nothing runs, loads, frames or is kept but what this server serves itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ASSET_HEADERS", "CONTENT_SECURITY_POLICY", "PAGE_HEADERS"]

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
"""No word of it is ``unsafe``: what somebody managed to write into a page would neither run nor be sent anywhere."""

_ALWAYS = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",  # none to others; with no-referrer a form would not say where it is from
    "x-content-type-options": "nosniff",
}
PAGE_HEADERS: Mapping[str, str] = {
    **_ALWAYS,
    "cache-control": "no-store",
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-frame-options": "DENY",
}
ASSET_HEADERS: Mapping[str, str] = {
    **_ALWAYS,
    "cache-control": "public, max-age=31536000, immutable",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
"""An asset's address has its digest, so that what is there never changes."""
