"""The procedure for one quote, SGX and TDX alike (docs/spec/evidence-intel.md section 4).

Follows Intel's verifier (SGX-TDX-DCAP-QuoteVerificationLibrary, section 4.1.2.4 of its specification) and adds the
windows and the revocation lists. What it proves: an Intel platform whose TCB is known, with a Quoting Enclave of
Intel's, signed this body. What it does not: that the body is anybody's in particular, that its attributes are good, or
that the TCB is a good one (the policy).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from cloister.attest.intel.assess import assess, collateral_differences, module_differences
from cloister.attest.intel.chain import (
    PCK_NAME,
    TCB_SIGNING_NAME,
    is_signed,
    verify_path,
    verify_revocation,
    verify_signed,
    verify_window,
)
from cloister.attest.intel.quote import INTEL_QE_VENDOR
from cloister.attest.intel.second import second_opinion
from cloister.attest.intel.tcb import TcbStatus
from cloister.attest.intel.td import TdReport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cloister.attest.chain import Certificate
    from cloister.attest.findings import Findings
    from cloister.attest.intel.assess import Assessment
    from cloister.attest.intel.collateral import Collateral
    from cloister.attest.intel.pck import Pck
    from cloister.attest.intel.quote import Quote

__all__ = ["Platform", "verify_collateral", "verify_platform", "verify_second", "verify_tcb"]

_PCK_PATH = 3  # leaf, platform or processor authority, root
_SIGNING_PATH = 2  # leaf, root


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A quote, its PCK certificate and the chain that came with it: parsed, unverified."""

    quote: Quote
    pck: Pck
    chain: tuple[Certificate, ...]


def verify_platform(
    found: Findings, platform: Platform, roots: Sequence[Certificate], now: datetime
) -> tuple[Certificate, ...]:
    """Record whether the platform signed the quote; return the PCK path, empty where it does not hold."""
    quote = platform.quote
    # 2. The attestation key signed header and body (4.1.2.4.16).
    found.expect(_is_attested(quote), "signature_invalid", "quote signature")
    # 3. The PCK signed the report of the Quoting Enclave (4.1.2.4.12).
    key = platform.pck.certificate.x509.public_key()
    found.expect(is_signed(key, quote.qe_signature, quote.qe_report.raw), "signature_invalid", "qe report signature")
    # 4. That enclave vouches for the attestation key (4.1.2.4.13): SHA-256 of key and authentication data, then zeros.
    bound = hashlib.sha256(quote.attestation_key + quote.qe_auth).digest() + bytes(32)
    found.equal(quote.qe_report.report_data, bound, "key_binding_mismatch", "qe report data")
    # 5. Intel vouches for the PCK.
    path = verify_path(found, platform.chain, roots, now, subject="pck certificate", name=PCK_NAME)
    shape = str(len(path) or "none")
    found.expect(len(path) in (0, _PCK_PATH), "chain_invalid", "pck path", got=shape, want=str(_PCK_PATH))
    # 6. The Quoting Enclave is Intel's, of a kind nobody can look into (the identity says which, step 13).
    found.equal(quote.qe_vendor, INTEL_QE_VENDOR, "unsupported_format", "qe vendor")
    found.expect(not quote.qe_report.debug, "debug_enabled", "qe report attributes")
    return path if len(path) == _PCK_PATH else ()


def _is_attested(quote: Quote) -> bool:
    try:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + quote.attestation_key)
    except ValueError:  # no point of the curve
        return False
    return is_signed(point, quote.signature, quote.signed)


def verify_collateral(  # noqa: PLR0917 - what there is to compare
    found: Findings,
    platform: Platform,
    collateral: Collateral,
    path: Sequence[Certificate],
    roots: Sequence[Certificate],
    now: datetime,
) -> None:
    """Record whether Intel published the collateral, it is in its windows, and it revokes nothing of ``path``.

    Raises ``Rejected`` (``collateral_mismatch``) where it is about another platform: the rest means nothing then.
    """
    # 8. About this TEE and this platform (4.1.2.4.9, .10, .14).
    differences = collateral_differences(platform.quote, platform.pck, collateral)
    for name, (got, want) in differences.items():
        found.expect(False, "collateral_mismatch", name, got=got, want=want)  # noqa: FBT003 - a failure
    if differences:
        found.settle()
    # 9, 10. Signed exactly as they are, in their windows, by Intel's TCB signing key.
    info, identity = collateral.tcb_info, collateral.qe_identity
    texts = ((collateral.tcb_info_signed, info, "tcb info"), (collateral.qe_identity_signed, identity, "qe identity"))
    for signed, dated, subject in texts:
        verify_signed(found, signed, subject=subject)
        verify_window(found, dated.issued, dated.next_update, now, subject=subject)
    paths = [path] if path else []
    for chain in {signed.chain[0].der: signed.chain for signed, _, _ in texts}.values():
        signing = verify_path(found, chain, roots, now, subject="tcb signing certificate", name=TCB_SIGNING_NAME)
        if signing and found.expect(
            len(signing) == _SIGNING_PATH, "chain_invalid", "tcb signing path", got=str(len(signing)), want="2"
        ):
            paths.append(signing)
    # 11, 12. Nothing of these paths is revoked (4.1.2.4.6, .7), the root included.
    _verify_revocation(found, collateral, paths, now)


def _verify_revocation(
    found: Findings, collateral: Collateral, paths: Sequence[Sequence[Certificate]], now: datetime
) -> None:
    """Record whether every certificate has a list of its issuer (root, PCK authority) that leaves it out."""
    by_issuer: dict[Certificate, list[Certificate]] = {}
    for path in paths:
        for certificate, issuer in zip(path, [*path[1:], path[-1]], strict=True):
            issued = by_issuer.setdefault(issuer, [])
            if certificate not in issued:
                issued.append(certificate)
    for issuer, issued in by_issuer.items():
        of_root = issuer.x509.subject == issuer.x509.issuer
        listed = collateral.root_crl if of_root else collateral.pck_crl
        verify_revocation(found, listed, issuer, issued, now)


def verify_tcb(found: Findings, platform: Platform, collateral: Collateral) -> Assessment:
    """Record whether Intel knows the platform, its Quoting Enclave and its TDX module; return what they reach."""
    quote, result = platform.quote, assess(platform.quote, platform.pck, collateral)
    # 13. The Quoting Enclave is the one Intel published (4.1.2.4.15).
    differences = collateral.qe_identity.differences(quote.qe_report)
    found.expect(
        not differences, "collateral_mismatch", "qe identity", got=_shown(differences, 0), want=_shown(differences, 1)
    )
    # 14. So is the TDX module (4.1.2.4.11).
    if isinstance(quote.body, TdReport) and result.module is not None:
        identity = result.module.identity
        known = found.expect(identity is not None, "collateral_mismatch", "tdx module", got=result.module.name)
        if known and identity is not None:
            other = module_differences(quote.body, identity)
            found.expect(not other, "collateral_mismatch", "tdx module", got=_shown(other, 0), want=_shown(other, 1))
    # 15, 16. Each reaches a level (4.1.2.4.17), and none that was revoked: no policy can allow that.
    reached = {"platform": result.platform, "qe": result.qe}
    if result.module is not None and result.module.unmatched:
        reached["tdx module"] = None
    for name, level in reached.items():
        got = level.status.value if level is not None else "below every level"
        found.expect(level is not None, "no_matching_tcb_level", f"tcb level of {name}", got=got)
    if result.platform is not None and result.current is None and "tdx module" not in reached:
        found.expect(False, "no_matching_tcb_level", "tcb level of the module that runs now")  # noqa: FBT003 - a failure
    status = result.status.value if result.status is not None else ""
    found.expect(result.status is not TcbStatus.REVOKED, "tcb_status_not_allowed", "tcb status", got=status)
    return result


def verify_second(  # noqa: PLR0917 - what there is to compare
    found: Findings, platform: Platform, collateral: Collateral, result: Assessment, root: Certificate, now: datetime
) -> None:
    """Record whether the second verifier agrees (``verifiers_disagree``). For evidence in which we found no fault."""
    # 17. A refusal for attributes, which are the policy's to judge, comes last: all else held, but no status is named.
    said = second_opinion(platform.quote, collateral, root, now)
    if said.about_attributes:
        found.skip("verifiers_disagree", "second verifier", "it names no status for these attributes", got=said.refusal)
        return
    got = said.status if said.accepted else said.refusal
    want = result.status.value if result.status is not None else ""
    found.expect(got == want, "verifiers_disagree", "second verifier", got=got, want=want)


def _shown(differences: dict[str, tuple[str, str]], side: int) -> str:
    return ", ".join(f"{name} {values[side]}" for name, values in differences.items())[:240]
