"""The report-data field: every attester takes exactly what fills it."""

from __future__ import annotations

from cloister.errors import UsageError

__all__ = ["demand_field"]


def demand_field(report_data: bytes, size: int, *, what: str) -> None:
    """Raise ``UsageError`` unless ``report_data`` fills the field exactly (``binding.fold``)."""
    if len(report_data) != size:
        msg = f"{what}: {len(report_data)} bytes, want {size}"
        raise UsageError(msg)
