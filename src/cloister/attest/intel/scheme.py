"""What the schemes of SGX and TDX share: parts, endorsements, the order of the procedure, memory of what was parsed.

Not done here: which claims are required, and what TDX adds (``schemes/sgx``, ``schemes/tdx``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.x509.oid import NameOID

from cloister.attest.intel.collateral import Collateral, pem_certificates
from cloister.attest.intel.pck import Pck
from cloister.attest.intel.quote import TEE_SGX, Quote
from cloister.attest.intel.verify import Platform, verify_collateral, verify_platform, verify_second, verify_tcb
from cloister.errors import Malformed, Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.findings import Findings
    from cloister.attest.intel.assess import Assessment
    from cloister.attest.rats import ClaimValue
    from cloister.attest.rules import NotChecked

__all__ = ["IntelVerifier", "Proven", "endorsement_name"]

_REMEMBERED = 64  # chains and collateral objects; one platform has one of each
_MAX_CHAIN = 4  # certificates sent along: leaf, authority, root, and one to spare


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A quote every check of which passed. ``assessment`` is None where collateral was not checked."""

    platform: Platform
    assessment: Assessment | None
    claims: dict[str, ClaimValue]


class IntelVerifier:
    """Verifies quotes to pinned roots; remembers parsed chains and collateral, never a verdict."""

    def __init__(self, roots: Sequence[Certificate], *, without_collateral: NotChecked | None = None) -> None:
        """Pin ``roots``; there is no default.

        ``without_collateral`` leaves out revocation, TCB and which Quoting Enclave is Intel's, and says why.
        """
        if not roots:
            msg = "intel verifier: no root to trust"
            raise UsageError(msg)
        self._roots = tuple(roots)
        self._without_collateral = without_collateral
        self._read_chain = lru_cache(maxsize=_REMEMBERED)(_read_chain)
        self._read_collateral = lru_cache(maxsize=_REMEMBERED)(Collateral.parse)

    @property
    def required(self) -> frozenset[str]:
        """The TCB's status; where no collateral says which Quoting Enclave is Intel's, who signed it.

        A host may run a quoting enclave of its own, for which its platform vouches as for any other.
        """
        return frozenset({"tcb_status"} if self._without_collateral is None else {"qe_mrsigner"})

    def read(self, quote: bytes, *, tdx: bool) -> Platform:
        """Parse a quote and its certificates. Raises ``Malformed``; ``Rejected`` (``unsupported_format``)."""
        parsed = Quote.parse(quote)
        if (parsed.tee != TEE_SGX) != tdx:
            raise Rejected.because("unsupported_format", "tee type", got=str(parsed.tee), want="129" if tdx else "0")
        pck, chain = self._read_chain(parsed.pck_chain)
        return Platform(quote=parsed, pck=pck, chain=chain)

    def needs(self, platform: Platform) -> tuple[str, ...]:
        """Return the name of the one endorsement, none where it is not checked."""
        return (endorsement_name(platform),) if self._without_collateral is None else ()

    def verify(self, found: Findings, platform: Platform, endorsements: Mapping[str, bytes], now: datetime) -> Proven:
        """Run the whole procedure. Raises ``Malformed``; ``Rejected`` with every check that failed."""
        path = verify_platform(found, platform, self._roots, now)
        claims = {"quote_version": platform.quote.version} | platform.quote.body.claims() | platform.pck.claims()
        claims["qe_mrsigner"] = platform.quote.qe_report.mrsigner.hex()
        if self._without_collateral is not None:
            found.skip("revocation_unknown", "collateral", self._without_collateral.why)
            found.settle()
            return Proven(platform=platform, assessment=None, claims=claims)
        collateral = self._collateral(platform, endorsements)
        verify_collateral(found, platform, collateral, path, self._roots, now)
        result = verify_tcb(found, platform, collateral)
        found.settle()
        verify_second(found, platform, collateral, result, path[-1], now)
        found.settle()
        return Proven(platform=platform, assessment=result, claims=claims | _tcb_claims(collateral, result, now))

    def _collateral(self, platform: Platform, endorsements: Mapping[str, bytes]) -> Collateral:
        name = endorsement_name(platform)
        if name not in endorsements:
            raise Rejected.because("revocation_unknown", "collateral", got="nothing", want=name)
        return self._read_collateral(endorsements[name])


def endorsement_name(platform: Platform) -> str:
    """Return the name of the collateral of a platform: ``intel/tdx/00806f050000/platform``."""
    tee = "sgx" if platform.quote.tee == TEE_SGX else "tdx"
    issuer = platform.pck.certificate.x509.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    processor = any("Processor" in str(item.value) for item in issuer)
    return f"intel/{tee}/{platform.pck.fmspc.hex()}/{'processor' if processor else 'platform'}"


def _read_chain(pem: bytes) -> tuple[Pck, tuple[Certificate, ...]]:
    chain = pem_certificates(pem)
    if len(chain) > _MAX_CHAIN:
        msg = f"quote: {len(chain)} certificates, want at most {_MAX_CHAIN}"
        raise Malformed(msg)
    return Pck.parse(chain[0]), chain


def _tcb_claims(collateral: Collateral, result: Assessment, now: datetime) -> dict[str, ClaimValue]:
    """Return what the collateral says of the platform, for a result in which every level was reached."""
    claims: dict[str, ClaimValue] = {
        "advisory_ids": result.advisories,
        "tcb.eval_number": collateral.tcb_info.evaluation,
        "tcb.qe_eval_number": collateral.qe_identity.evaluation,
    }
    if result.status is not None:
        claims["tcb_status"] = result.status.value
    levels = {"platform": result.platform, "qe": result.qe}
    if result.module is not None:
        claims["tdx_module"] = result.module.name
        levels["module"] = result.module.level
    for name, level in levels.items():
        if level is not None:
            claims[f"tcb_status.{name}"] = level.status.value
            claims[f"tcb.{name}_date"] = level.date.strftime("%Y-%m-%dT%H:%M:%SZ")
            claims[f"tcb.{name}_age"] = max(0, (now - level.date).days)
    return claims
