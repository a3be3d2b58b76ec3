"""What cloud vTPM schemes have in common: parts of the payload, PCR claims, the software digest in PCR 23.

Not done here: who vouches for the key (``schemes/azure_vtpm``, ``schemes/gce_vtpm``), the quote itself (``quoted``).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from cloister.attest.tpm.algorithms import DIGEST_BYTES, Alg
from cloister.attest.tpm.eventlog import MAX_LOG_BYTES
from cloister.attest.tpm.policy import SOFTWARE_PCR, software_pcr_value
from cloister.attest.tpm.quoted import MAX_PCRS_BYTES, Quoted, parse_pcrs
from cloister.attest.tpm.structures import MAX_STRUCTURE_BYTES
from cloister.errors import Malformed
from cloister.wire import dump_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.findings import Findings
    from cloister.attest.rats import ClaimValue
    from cloister.attest.tpm.quoted import Explained

__all__ = ["MEASURED_CAPS", "MEASURED_REQUIRED", "claims_of", "dump_pcrs", "find_software", "take_quoted"]

_SOFTWARE_BYTES = DIGEST_BYTES[Alg.SHA256]
MEASURED_CAPS: Final[Mapping[str, int]] = {
    "quote": MAX_STRUCTURE_BYTES,
    "signature_tpmt": MAX_STRUCTURE_BYTES,
    "pcrs": MAX_PCRS_BYTES,
    "eventlog": MAX_LOG_BYTES,
    "software": _SOFTWARE_BYTES,
}
"""Roles of a measured machine, and the most bytes of each; ``eventlog`` and ``software`` may be absent."""

MEASURED_REQUIRED: Final = frozenset({"software", *(f"pcr.{index}" for index in range(8))})
"""Software and the whole boot chain need a rule: PCR 23 means nothing without the rest (evidence-tpm section 1)."""


def dump_pcrs(pcrs: Mapping[int, bytes]) -> bytes:
    """Return PCR values as the part ``pcrs``: hex by index, canonical JSON."""
    return dump_json({str(index): value.hex() for index, value in pcrs.items()})


def take_quoted(parts: Mapping[str, bytes]) -> Quoted:
    """Return the quote in ``parts``. Raises ``Malformed``."""
    software = parts.get("software", b"")
    if len(software) not in (0, _SOFTWARE_BYTES):
        msg = f"software digest: {len(software)} bytes, want {_SOFTWARE_BYTES}"
        raise Malformed(msg)
    return Quoted.parse(parts["quote"], parts["signature_tpmt"], parse_pcrs(parts["pcrs"]), parts.get("eventlog", b""))


def find_software(findings: Findings, parts: Mapping[str, bytes], quoted: Quoted) -> None:
    """Record whether PCR 23 holds exactly the software digest, where there is one."""
    if "software" in parts:
        got, want = quoted.pcrs.get(SOFTWARE_PCR, b""), software_pcr_value(parts["software"])
        same = hmac.compare_digest(got, want)
        findings.expect(same, "pcr_mismatch", f"software in pcr {SOFTWARE_PCR}", got=got.hex(), want=want.hex())


def claims_of(parts: Mapping[str, bytes], quoted: Quoted, explained: Explained) -> dict[str, ClaimValue]:
    """Return the claims of a quote whose checks all passed."""
    claims: dict[str, ClaimValue] = {f"pcr.{index}": value.hex() for index, value in quoted.pcrs.items()}
    claims |= {
        "firmware_version": f"{quoted.quote.firmware_version:016x}",
        "reset_count": quoted.quote.reset_count,
        "restart_count": quoted.quote.restart_count,
    }
    if "software" in parts:
        claims["software"] = parts["software"].hex()
    return claims if explained.secure_boot is None else claims | {"secure_boot": explained.secure_boot}
