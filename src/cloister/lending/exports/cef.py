r"""ArcSight Common Event Format, version 0 (CEF implementation standard, "Header" and "Extension").

``CEF:0|vendor|product|version|event class|name|severity|extension``. In the header a backslash and a pipe are escaped,
in a value of the extension a backslash, an equals sign and line ends. Records are ASCII: everything else is an escape
of the JSON in them. ``externalId`` is the index, ``cs2`` the leaf hash, ``rawEvent`` the entry.
"""

from __future__ import annotations

import re

from cloister.errors import Malformed
from cloister.lending.exports.form import Shown, ascii_json, ascii_line, canonical_line, milliseconds

__all__ = ["Cef", "escape_header", "escape_value"]

_SEVERITY = (3, 6, 9)
_RAW = " rawEvent="
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_VALUE_ESCAPES = {"\\": "\\\\", "=": "\\=", "\n": "\\n", "\r": "\\r"}
_ESCAPES_OF = {escape[1]: char for char, escape in _VALUE_ESCAPES.items()}


def escape_header(text: str) -> str:
    """Return a header field; line ends, which a header cannot have, become spaces."""
    return re.sub(r"([\\|])", r"\\\1", re.sub(r"[\r\n]", " ", text))


def escape_value(text: str) -> str:
    """Return a value of the extension."""
    return "".join(_VALUE_ESCAPES.get(char, char) for char in text)


def _unescape_value(text: str) -> str:
    def plain(found: re.Match[str]) -> str:
        if found.group(1) not in _ESCAPES_OF:
            raise Malformed("cef record: an escape that is none")
        return _ESCAPES_OF[found.group(1)]

    return _ESCAPED.sub(plain, text)


class Cef:
    """CEF, one record a line."""

    def dump(self, line: bytes) -> bytes:
        """Return the record of a line of the log."""
        shown = Shown.of(line)
        header = "|".join(
            escape_header(text)
            for text in (
                "CEF:0", "Cloister", "custodian", "2", shown.kind, shown.kind.replace("_", " "),
                str(_SEVERITY[shown.weight.level]),
            )
        )  # fmt: skip
        extension = {
            "rt": str(milliseconds(shown.at)),
            "cat": shown.kept,
            "externalId": str(shown.index),
            "outcome": "failure" if shown.weight.failed else "success",
            "suser": shown.actor,
            "cs1Label": "subject",
            "cs1": shown.subject,
            "cs2Label": "leaf",
            "cs2": shown.leaf.hex(),
            "cs3Label": "details",
            "cs3": ascii_json(dict(shown.details)),
        }
        values = " ".join(f"{key}={escape_value(value)}" for key, value in extension.items())
        return f"{header}|{values}{_RAW}{escape_value(ascii_line(line))}".encode("ascii")

    def take(self, record: bytes) -> bytes:
        """Return the line of a record."""
        text = record.decode("utf-8", "replace")
        _, there, raw = text.rpartition(_RAW)
        if not text.startswith("CEF:0|") or not there:
            raise Malformed("cef record: want CEF:0 and a rawEvent")
        return canonical_line(_unescape_value(raw))
