"""The formats by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.lending.audit import parse_line
from cloister.lending.exports.cef import Cef
from cloister.lending.exports.ocsf import Ocsf
from cloister.lending.exports.otel import Otel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.lending.exports.form import Format

__all__ = ["FORMATS", "JsonLines"]


class JsonLines:
    """The log as it is."""

    def dump(self, line: bytes) -> bytes:
        """Return the line. Raises ``Malformed`` for one that is none."""
        parse_line(line)
        return line

    def take(self, record: bytes) -> bytes:
        """Return the line."""
        return record


FORMATS: Mapping[str, Format] = {"cef": Cef(), "jsonl": JsonLines(), "ocsf": Ocsf(), "otel": Otel()}
"""Every format there is."""
