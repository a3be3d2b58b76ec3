"""The AR4SI trustworthiness vector of each TEE: what was proven, nothing beyond (draft-ietf-rats-ar4si section 2.3).

A member is there only where evidence of this kind can support it and its checks passed. Values of 2 and 3 affirm, 32
and more warn: a result is never better than its vector.

Left out on purpose: ``runtime-opaque`` for TPMs (they measure, they do not hide), Nitro and PSA (isolated, their memory
is not encrypted), and everything for tokens (the vector is their issuer's to state).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.attest.rats import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloister.attest.rats import Check, ClaimValue, TeeKind

__all__ = ["WARNS", "executables", "trust_vector"]

KNOWN_CONFIGURATION = 2  # section 2.3.4.2: recognized and approved
BOOTED_EXECUTABLES = 3  # section 2.3.4.3: only recognized ones, as of boot
GENUINE_HARDWARE = 2  # section 2.3.4.5
KNOWN_INSTANCE = 2  # section 2.3.4.1: recognized, and not known to be compromised
OPAQUE_RUNTIME = 2  # section 2.3.4.6: encrypted in memory, opaque to the host
WARNS = 32
"""The first value that warns: genuine, with something known to be wrong or not looked up."""

_CONFIGURATION = frozenset({"host_data", "mrconfigid", "software", "pcr.23"})
_NOT_LOOKED_UP = frozenset({"chain_invalid", "revocation_unknown", "revoked", "untrusted_root"})
_GOOD_TCB = "UpToDate"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What evidence of one kind supports. ``executables`` all have to have passed, one of ``identity``."""

    executables: tuple[str, ...]
    identity: tuple[str, ...] = ()
    hardware: tuple[str, ...] | None = ()
    opaque: bool = False


_BOOT = tuple(f"pcr.{index}" for index in range(8))
_RTMRS = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
_KINDS: Mapping[str, _Kind] = {
    "azure-snp-vtpm": _Kind(executables=("measurement", *_BOOT), identity=("chip_id", "vm.id"), opaque=True),
    "azure-tdx-vtpm": _Kind(executables=("mrtd", *_BOOT), identity=("vm.id",), opaque=True),
    "cca": _Kind(
        executables=("rim",),
        identity=("instance_id", "implementation_id"),
        hardware=("secured", "software"),
        opaque=True,
    ),
    "gce-vtpm": _Kind(executables=_BOOT, identity=("instance",), hardware=_BOOT),
    "nitro": _Kind(executables=("pcr.0",), identity=("module_id",)),
    "nvidia-gpu": _Kind(executables=("rim.driver", "rim.vbios"), identity=("device",), opaque=True),
    "nvidia-switch": _Kind(executables=("rim.vbios",), identity=("device",)),
    "psa": _Kind(executables=("software",), identity=("instance_id", "implementation_id"), hardware=("secured",)),
    "sgx": _Kind(executables=("mrenclave",), opaque=True),
    "simulated": _Kind(executables=("measurement",), identity=("chip_id",), hardware=None),
    "snp": _Kind(executables=("measurement",), identity=("chip_id",), opaque=True),
    "tdx": _Kind(executables=_RTMRS, opaque=True),
    "tpm": _Kind(executables=(*_BOOT, "software"), identity=("device",), hardware=_BOOT),
}


def executables(tee: TeeKind) -> tuple[str, ...]:
    """Return the claims that together say which software runs; none for tokens, whose issuers name it as they like."""
    kind = _KINDS.get(tee)
    return () if kind is None else kind.executables


def trust_vector(tee: TeeKind, claims: Mapping[str, ClaimValue], checks: Sequence[Check]) -> dict[str, int]:
    """Return the vector of verified and appraised evidence; empty for a kind that supports no statement."""
    kind = _KINDS.get(tee)
    if kind is None:
        return {}
    passed = {check.subject for check in checks if check.verdict is Verdict.PASSED}
    vector: dict[str, int] = {}
    if passed & _CONFIGURATION:
        vector["configuration"] = KNOWN_CONFIGURATION
    if passed.issuperset(kind.executables):
        vector["executables"] = BOOTED_EXECUTABLES
    if kind.hardware is not None and passed.issuperset(kind.hardware):
        vector["hardware"] = WARNS if _is_doubtful(claims, checks) else GENUINE_HARDWARE
    if passed & set(kind.identity):
        vector["instance-identity"] = KNOWN_INSTANCE
    if kind.opaque:
        vector["runtime-opaque"] = OPAQUE_RUNTIME
    return vector


def _is_doubtful(claims: Mapping[str, ClaimValue], checks: Sequence[Check]) -> bool:
    """Tell whether hardware is genuine but known to be weak, or was not looked up."""
    skipped = {check.code for check in checks if check.verdict is Verdict.NOT_CHECKED}
    tolerated = claims.get("tcb_status", _GOOD_TCB) != _GOOD_TCB or bool(claims.get("advisory_ids", ()))
    return tolerated or bool(skipped & _NOT_LOOKED_UP)
