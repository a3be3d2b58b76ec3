"""The payload of NVIDIA evidence: parts of one device (docs/spec/evidence-nvidia.md section 2).

Not done here: verifying any of it (``schemes/nvidia``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from cloister.attest.nvidia.devicechain import MAX_CHAIN_BYTES, DeviceChain
from cloister.attest.nvidia.ocsp import MAX_ANSWER_BYTES, Answer, parse_answers
from cloister.attest.nvidia.report import Report
from cloister.attest.nvidia.rim import MAX_RIM_BYTES, Rim
from cloister.attest.nvidia.spdm import MAX_REPORT_BYTES
from cloister.attest.parts import dump_parts, parse_parts

__all__ = ["NvidiaEvidence", "dump_nvidia_evidence"]

_CAPS = {
    "chain": MAX_CHAIN_BYTES,
    "driver_rim": MAX_RIM_BYTES,
    "ocsp": 8 * MAX_ANSWER_BYTES,
    "report": MAX_REPORT_BYTES,
    "vbios_rim": MAX_RIM_BYTES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaEvidence:
    """One device's report and certificates, and what it sent along. ``rims`` by part: ``driver_rim``, ``vbios_rim``."""

    report: Report
    chain: DeviceChain
    rims: dict[str, Rim]
    answers: tuple[Answer, ...]

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse every part to its end. Raises ``Malformed``; ``Rejected`` (``unsupported_format``)."""
        parts = parse_parts(payload, what="nvidia evidence", caps=_CAPS, required=("report", "chain"))
        return cls(
            report=Report.parse(parts["report"]),
            chain=DeviceChain.parse(parts["chain"]),
            rims={role: Rim.parse(parts[role]) for role in ("driver_rim", "vbios_rim") if role in parts},
            answers=parse_answers(parts.get("ocsp", b"")),
        )


def dump_nvidia_evidence(report: bytes, chain: bytes, **along: bytes) -> bytes:
    """Return the payload; ``along`` may have ``driver_rim``, ``vbios_rim`` and ``ocsp`` (answers one after another)."""
    return dump_parts({"report": report, "chain": chain, **along})
