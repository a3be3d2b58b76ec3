"""Text that forges lines, steers terminals or turns the direction of reading (T84, item 66 of the bad inputs)."""

from __future__ import annotations

__all__ = ["INJECTIONS", "harmless"]

INJECTIONS = (
    "two\nlines", "two\r\nlines",
    "\r", "\x00", "a\x00b", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "\x85", "\x7f",
    "\u2028", "\u2029", "\u202egnp.exe", "\u2066x\u2069", "\u200f", "\ufeff", "\ud800", "\U0001f600",
    '"}\n{"event":"ready"',
    '", "event": "ready', "'; DROP TABLE audit; --", "${jndi:ldap://x/y}", "%s%n%x", "{0.__class__}",
    "=1+1", "<script>", "a" * 129, "a" * 1_000_000, "", " ", "../../etc/passwd\n", "|CEF:0|", "\\n", "e\u0301",
)  # fmt: skip
"""Every one is tried in every field of every sink."""

_STEERING = (*range(0x20), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))


def harmless(line: str) -> bool:
    """Tell whether no character of a line does more than stand there."""
    return not any(ord(char) in _STEERING or 0xD800 <= ord(char) < 0xE000 for char in line)
