"""How evidence is obtained: one file per TEE, behind one Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cloister.attest.rats import Evidence, TeeKind

__all__ = ["Attester"]


class Attester(Protocol):
    """Collects evidence. Contract: ``Unavailable`` when the TEE does not answer, ``Rejected`` when it says no."""

    @property
    def tee(self) -> TeeKind:
        """The kind of evidence."""
        ...

    @property
    def report_data_bytes(self) -> int:
        """Size of the field that carries the binding."""
        ...

    def collect(self, report_data: bytes) -> Evidence:
        """Return fresh evidence that carries ``report_data``, which fills the field exactly (``binding.fold``)."""
        ...
