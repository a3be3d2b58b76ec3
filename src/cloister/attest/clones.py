"""Whether attested memory can be copied and run twice: the one question that a refund hangs on (T50).

The answer comes from what the vendor's root vouches for, TEE by TEE, and is "not proven" for everything that is
not in the table. Devices beside the CPU hold no counters and are not asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloister.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.attest.rats import AttestationResult

__all__ = ["clone_doubts"]

_SNP = {"debug": False, "migratable": False}  # SEV-SNP ABI, guest policy: DEBUG, MIGRATE_MA
_TDX = {"debug": False, "td_attributes.migratable": False}  # TDX module ABI, TD attributes: DEBUG, MIGRATABLE
_EXCLUDED: Mapping[str, Mapping[str, bool]] = {
    "azure-snp-vtpm": _SNP,
    "azure-tdx-vtpm": _TDX,
    "nitro": {"debug": False},  # an enclave cannot be paused, saved or moved
    "sgx": {"debug": False},  # pages leave the processor under keys and versions of that processor only
    "snp": _SNP,
    "tdx": _TDX,
}
"""What must be claimed, and how, for the memory to be one of a kind. A TEE that is not here proves nothing."""


def clone_doubts(result: AttestationResult) -> tuple[Reason, ...]:
    """Return why a copy of this instance's memory is not excluded; empty where it is.

    A claim that is missing is a doubt. Proves nothing about hardware whose keys were extracted.
    """
    wanted = _EXCLUDED.get(result.tee)
    if wanted is None:
        return (Reason(code="clone_possible", subject=f"tee {result.tee}", want=" or ".join(_EXCLUDED)),)
    return tuple(
        Reason(
            code="clone_possible", subject=name, got=str(result.claims.get(name, "nothing")).lower()[:80],
            want=str(value).lower(),
        )
        for name, value in wanted.items()
        if result.claims.get(name) is not value
    )  # fmt: skip
