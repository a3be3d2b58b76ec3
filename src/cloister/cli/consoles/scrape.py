"""An enclave's metrics as it shows them: the text read back, what changed between two looks, quantiles.

Reads what our own exposition writes (Prometheus 0.0.4), and refuses all else: a line that is none is ``Malformed``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["MAX_TEXT_BYTES", "Look", "parse_look", "quantile"]

MAX_TEXT_BYTES = 4 << 20
_LINE = re.compile(r"(?P<name>[a-z_]{1,100})(?:\{(?P<labels>[^{}]{0,400})\})? (?P<value>[0-9.eE+-]{1,40}|\+Inf|NaN)")
_LABEL = re.compile(r'(?P<name>[a-z_]{1,32})="(?P<value>[^"\\]{0,200})"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Every series as of ``at``: the name, with the values of its labels."""

    at: datetime
    values: Mapping[tuple[str, str], float]

    def one(self, name: str, label: str = "") -> float | None:
        """Return a series' value, None where there is none."""
        return self.values.get((name, label))

    def total(self, name: str, *, but: str | None = None) -> float:
        """Return the sum over all labels, but one of them."""
        return sum(value for (found, label), value in self.values.items() if found == name and label != but)

    def labels(self, name: str) -> list[str]:
        """Return the labels of a family, in order."""
        return sorted(label for found, label in self.values if found == name)

    def bars(self, name: str) -> list[tuple[float, float]]:
        """Return a histogram as bounds, the last one infinite, and how many lie at or below each."""
        found = {float(label): value for (series, label), value in self.values.items() if series == f"{name}_bucket"}
        return sorted(found.items())


def parse_look(text: bytes, *, at: datetime) -> Look:
    """Return what a page of metrics says. Raises ``Malformed``."""
    if len(text) > MAX_TEXT_BYTES:
        msg = f"metrics: more than {MAX_TEXT_BYTES} bytes"
        raise Malformed(msg)
    values = {}
    for line in text.decode("utf-8", "replace").splitlines():
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            msg = f"metrics: {line[:60]!r} is no line of metrics"
            raise Malformed(msg, hint="is this the metrics address of an enclave?")
        labels = [match["value"] for match in _LABEL.finditer(found["labels"] or "")]
        try:
            values[found["name"], ",".join(labels)] = float(found["value"])
        except ValueError as exc:
            msg = f"metrics: {line[:60]!r} has no number"
            raise Malformed(msg) from exc
    return Look(at=at, values=values)


def quantile(
    bars: list[tuple[float, float]], part: float, *, before: list[tuple[float, float]] | None = None
) -> float | None:
    """Return the value below which ``part`` of what was observed lies, from bars, less those of an earlier look.

    Within a bar, as if it were spread evenly; above the last bound, that bound. None where nothing was observed.
    """
    known = dict(before or [])
    counts = [(bound, max(0.0, count - known.get(bound, 0.0))) for bound, count in bars]
    if not counts or counts[-1][1] <= 0:
        return None
    wanted, floor, below = part * counts[-1][1], 0.0, 0.0
    for bound, count in counts:
        if count >= wanted and count > below:
            return floor if bound == float("inf") else floor + (bound - floor) * (wanted - below) / (count - below)
        floor, below = (floor if bound == float("inf") else bound), count
    return floor
