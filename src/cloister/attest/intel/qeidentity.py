"""Identity of Intel's Quoting Enclave (Intel PCS API version 4, "Get QE Identity" and "Get TD QE Identity").

Not done here: its signature (``verify``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cloister.attest.intel.published import take_component_levels, take_hex
from cloister.errors import Rejected
from cloister.wire import Fields

if TYPE_CHECKING:
    from datetime import datetime

    from cloister.attest.intel.enclave import EnclaveReport
    from cloister.attest.intel.tcb import ComponentLevel

__all__ = ["MAX_QE_IDENTITY_BYTES", "QeIdentity", "masked"]

MAX_QE_IDENTITY_BYTES = 64 * 1024  # bytes of one document; 2 KiB are usual
_VERSIONS = (2, 3)  # 3 is announced for the TD QE alone, with the same members


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity:
    """One document, unverified."""

    kind: str
    version: int
    issued: datetime
    next_update: datetime
    evaluation: int
    miscselect: bytes
    miscselect_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[ComponentLevel, ...]

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Parse one document. Raises ``Malformed``; ``Rejected`` (``unsupported_format``) for another version."""
        fields = Fields.parse(text, what="qe identity", cap=MAX_QE_IDENTITY_BYTES)
        version = fields.integer("version", cap=0xFFFF)
        if version not in _VERSIONS:
            raise Rejected.because("unsupported_format", "qe identity version", got=str(version), want="2 or 3")
        return cls(
            kind=fields.text("id", cap=16),
            version=version,
            issued=fields.time("issueDate"),
            next_update=fields.time("nextUpdate"),
            evaluation=fields.integer("tcbEvaluationDataNumber"),
            miscselect=take_hex(fields, "miscselect", 4),
            miscselect_mask=take_hex(fields, "miscselectMask", 4),
            attributes=take_hex(fields, "attributes", 16),
            attributes_mask=take_hex(fields, "attributesMask", 16),
            mrsigner=take_hex(fields, "mrsigner", 32),
            isvprodid=fields.integer("isvprodid", cap=0xFFFF),
            levels=take_component_levels(fields),
        )

    def differences(self, report: EnclaveReport) -> dict[str, tuple[str, str]]:
        """Return what in the report of an enclave is not this identity's: got and want by field."""
        compared = {
            "mrsigner": (report.mrsigner, self.mrsigner),
            "isvprodid": (report.isvprodid.to_bytes(2, "big"), self.isvprodid.to_bytes(2, "big")),
            "miscselect": (
                masked(report.miscselect, self.miscselect_mask),
                masked(self.miscselect, self.miscselect_mask),
            ),
            "attributes": (
                masked(report.attributes, self.attributes_mask),
                masked(self.attributes, self.attributes_mask),
            ),
        }
        return {name: (got.hex(), want.hex()) for name, (got, want) in compared.items() if got != want}


def masked(value: bytes, mask: bytes) -> bytes:
    """Return ``value`` with only the bits of ``mask``."""
    return bytes(left & right for left, right in zip(value, mask, strict=True))
