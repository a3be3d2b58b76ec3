"""The nouns of RATS (RFC 9334 section 4 and 8), as values that know no verbs.

Unverified and verified data have different types: ``Evidence`` is what an Attester claims,
``VerifiedClaims`` is what a scheme has proven about a vendor's signature, ``AttestationResult`` is
what remains after appraisal. Only ``verifier`` makes an ``AttestationResult``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NewType, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = [
    "MAX_EVIDENCE_BYTES",
    "NONCE_BYTES",
    "AttestationResult",
    "Check",
    "ClaimValue",
    "Evidence",
    "Nonce",
    "Submodule",
    "TeeKind",
    "TrustTier",
    "Verdict",
    "VerifiedClaims",
]

TeeKind = NewType("TeeKind", str)
"""Name of a TEE as policies and evidence documents spell it: ``simulated``, ``tpm``, ..."""

Nonce = NewType("Nonce", bytes)
"""Freshness challenge of ``NONCE_BYTES`` bytes (RFC 9334 section 10.2)."""

ClaimValue: TypeAlias = "str | int | bool | tuple[str, ...]"
"""Bytes are carried as lower-case hex. A tuple is a set of words, sorted: advisories that apply."""

NONCE_BYTES = 32
MAX_EVIDENCE_BYTES = 512 * 1024  # bytes of one TEE's evidence, event log included


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What an Attester says about itself, unverified: ``payload`` is in the TEE's own format."""

    tee: TeeKind
    payload: bytes


class Verdict(Enum):
    """Outcome of one check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not_checked"


class TrustTier(Enum):
    """AR4SI trust tier (draft-ietf-rats-ar4si section 3.2)."""

    NONE = "none"
    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of an appraisal: what was compared, what was there, what had to be.

    ``code`` is the mismatch code that a failure has (``measurement_mismatch``, ``debug_enabled``);
    ``note`` says why something was not checked.
    """

    code: str
    subject: str
    verdict: Verdict
    got: str = ""
    want: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedClaims:
    """What a scheme has proven: the vendor's root vouches for these claims and this report data.

    Not yet appraised: a debug enclave with yesterday's firmware verifies too. ``checks`` are the
    scheme's own (chain, signature, ...), all passed, for the reader of the result.
    """

    tee: TeeKind
    claims: Mapping[str, ClaimValue]
    report_data: bytes
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submodule:
    """What was found out about one device beside the CPU: an EAT submodule (RFC 9711 section 4.2.18)."""

    name: str
    tee: TeeKind
    claims: Mapping[str, ClaimValue]
    checks: tuple[Check, ...]
    tier: TrustTier


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """Evidence verified, bound to what was expected and appraised by a policy. Made by ``verifier`` only.

    ``bound`` names what the report data binds: for key release ``instance_pub`` and ``kem_pub``, for a consumer the
    ``keyset``. Relying parties take keys from here, never from the request. ``nonce`` is the challenge that was
    answered. ``submodules`` are the devices, each appraised; ``tier`` is the lowest of all, ``checks`` say what binds
    them and what does not.
    """

    tee: TeeKind
    claims: Mapping[str, ClaimValue]
    checks: tuple[Check, ...]
    bound: Mapping[str, bytes]
    tier: TrustTier
    policy_digest: str
    verified_at: datetime
    nonce: bytes = b""
    submodules: tuple[Submodule, ...] = ()
