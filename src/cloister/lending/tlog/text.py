"""What the text formats of a transparency log share: lines, decimals and standard base64, one spelling each.

RFC 4648 section 4 with padding; C2SP formats write every number without a leading zero.
"""

from __future__ import annotations

import base64
import re

from cloister.errors import Malformed
from cloister.lending.merkle import HASH_BYTES

__all__ = ["MAX_LOG_SIZE", "dump_base64", "parse_base64", "parse_hash", "parse_number", "parse_text"]

MAX_LOG_SIZE = (1 << 53) - 1
"""Most leaves of a log: indexes are JSON integers in entries. More would not be read exactly."""

_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")


def parse_text(data: bytes, *, what: str, cap: int) -> str:
    """Return UTF-8 without control characters other than the line feed. Raises ``Malformed``."""
    if len(data) > cap:
        msg = f"{what}: {len(data)} bytes, want at most {cap}"
        raise Malformed(msg)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        msg = f"{what}: not utf-8"
        raise Malformed(msg) from exc
    if any(byte < 0x20 and byte != 0x0A for byte in data):  # noqa: PLR2004 - signed-note, "Format"
        msg = f"{what}: control character"
        raise Malformed(msg)
    return text


def dump_base64(data: bytes) -> str:
    """Return standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def parse_base64(text: str, *, what: str) -> bytes:
    """Return the bytes of standard base64 in its one spelling. Raises ``Malformed``."""
    if len(text) % 4 or not _BASE64.fullmatch(text):
        msg = f"{what}: not base64"
        raise Malformed(msg)
    data = base64.b64decode(text)
    if dump_base64(data) != text:
        msg = f"{what}: base64 with stray bits"
        raise Malformed(msg)
    return data


def parse_hash(text: str, *, what: str) -> bytes:
    """Return one SHA-256 hash. Raises ``Malformed``."""
    data = parse_base64(text, what=what)
    if len(data) != HASH_BYTES:
        msg = f"{what}: {len(data)} bytes, want {HASH_BYTES}"
        raise Malformed(msg)
    return data


def parse_number(text: str, *, what: str) -> int:
    """Return a decimal without leading zeroes, at most ``MAX_LOG_SIZE``. Raises ``Malformed``."""
    if not _NUMBER.fullmatch(text) or int(text) > MAX_LOG_SIZE:
        msg = f"{what}: want a decimal of 0 to {MAX_LOG_SIZE}"
        raise Malformed(msg)
    return int(text)
