"""Text forms with one spelling each: base64url without padding (RFC 4648 section 5), RFC 3339 times."""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime

from cloister.errors import Malformed, UsageError

__all__ = ["dump_b64u", "dump_time", "parse_b64u", "parse_time"]

MAX_B64U_BYTES = 1 << 20  # bytes of one decoded string unless the caller says otherwise

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_B64U = re.compile(r"[A-Za-z0-9_-]*")
_OFFSET = "+00:00"  # as ``isoformat`` ends in UTC
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{6})?Z")


def dump_b64u(data: bytes) -> str:
    """Return base64url without padding (RFC 4648 section 5)."""
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


def parse_b64u(text: str, *, what: str, size: int | None = None, cap: int = MAX_B64U_BYTES) -> bytes:
    """Return the bytes of unpadded base64url; ``size`` demands an exact length, ``cap`` bounds it.

    The one spelling per value is enforced: stray bits in the last character are refused (RFC 4648
    section 3.5). Raises ``Malformed``.
    """
    if len(text) * 3 // 4 > cap:
        msg = f"{what}: {len(text)} base64url characters, want at most {cap} bytes"
        raise Malformed(msg)
    if len(text) % 4 == 1 or not _B64U.fullmatch(text):
        msg = f"{what}: not base64url without padding"
        raise Malformed(msg)
    data = binascii.a2b_base64(text.encode("ascii").translate(_FROM_URL_SAFE) + b"=" * (-len(text) % 4))
    if dump_b64u(data) != text:
        msg = f"{what}: base64url with stray bits"
        raise Malformed(msg)
    if size is not None and len(data) != size:
        msg = f"{what}: {len(data)} bytes, want {size}"
        raise Malformed(msg)
    return data


def dump_time(moment: datetime) -> str:
    """Return ``moment`` (aware) as RFC 3339 in UTC, microseconds only where there are any."""
    if moment.tzinfo is None:
        msg = "time: naive, want an aware one"
        raise UsageError(msg)
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat()[: -len(_OFFSET)] + "Z"


def parse_time(text: str, *, what: str) -> datetime:
    """Return the aware datetime of the one spelling that ``dump_time`` writes. Raises ``Malformed``."""
    try:
        if not _TIME.fullmatch(text):
            raise ValueError(text)  # noqa: TRY301 - one way out of this block
        moment = datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError as exc:
        msg = f"{what}: not an rfc 3339 time in utc"
        raise Malformed(msg) from exc
    if dump_time(moment) != text:
        msg = f"{what}: time has a second spelling"
        raise Malformed(msg)
    return moment
