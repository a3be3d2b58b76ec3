"""TPM 2.0 evidence: a quote by an attestation key that an enrolment authority certified (docs/spec/evidence-tpm.md).

What it proves: a TPM that the authority knows as ``device`` had these PCRs when the verifier's nonce was
fresh. What it does not: that memory is encrypted or that the operator stays out. A TPM measures a
machine; whoever runs it still holds it.

Not done here: comparing report data (``verifier``), reference values (``appraise``).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from cloister.attest.chain import Certificate, parse_certificates
from cloister.attest.policy import Policy, TeePolicy
from cloister.attest.rats import Check, TeeKind, Verdict, VerifiedClaims
from cloister.attest.rules import NotChecked, OneOf, Rule
from cloister.attest.tpm.akcert import verify_ak_certificate
from cloister.attest.tpm.eventlog import EventLog, secure_boot, verify_replay
from cloister.attest.tpm.evidence import TPM, TpmEvidence
from cloister.attest.tpm.policy import SOFTWARE_PCR, software_pcr_value
from cloister.attest.tpm.quote import verify_attestation_key, verify_pcrs, verify_signature
from cloister.attest.tpm.structures import Public, parse_signature
from cloister.errors import Rejected, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cloister.attest.rats import ClaimValue, Evidence
    from cloister.attest.tpm.akcert import AkCertificate
    from cloister.attest.tpm.structures import Quote

__all__ = ["TPM_TEE", "TpmScheme", "tpm_policy"]

TPM_TEE = TeeKind(TPM)
_BOOT_PCRS = range(8)  # firmware and its configuration (PFP 1.06 section 3.3)
_SECURE_BOOT_PCR = 7


class TpmScheme:
    """Verifies TPM evidence against pinned enrolment authorities."""

    tee: Final = TPM_TEE
    report_data_bytes: Final = 32
    software_claims: Final = frozenset({"software"})
    required: Final = frozenset({"device", "software", *(f"pcr.{index}" for index in _BOOT_PCRS)})
    """Device, software and the whole boot chain need a rule; PCR 23 means nothing without the rest (section 5)."""

    def __init__(self, authorities: Sequence[bytes]) -> None:
        """Pin the authorities' certificates (DER or PEM); there is no default. None at all is a ``UsageError``."""
        self._authorities: tuple[Certificate, ...] = tuple(
            certificate for item in authorities for certificate in parse_certificates(item)
        )
        if not self._authorities:
            msg = "tpm scheme: no enrolment authority to trust"
            raise UsageError(msg, hint="give the certificate of the authority that enrolled the device")

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return nothing: the chain travels inside the evidence."""
        del evidence
        return ()

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that a TPM known to a pinned authority signed this quote over these PCRs.

        Raises ``Malformed``; ``Rejected`` with the codes of ``verify_ak_certificate``,
        ``verify_attestation_key``, ``verify_signature``, ``verify_pcrs`` and ``verify_replay``.
        """
        del endorsements
        # 1. Every part parses to its end.
        parts = TpmEvidence.parse(evidence.payload)
        ak = Public.parse(parts.ak_public)
        signature = parse_signature(parts.signature)
        certificates = [Certificate.parse(item) for item in parts.certificates]
        log = EventLog.parse(parts.event_log) if parts.event_log else None
        # 2. A pinned authority certifies the key, attributes included, and it is an attestation key.
        vouched = verify_ak_certificate(certificates, ak, self._authorities, now)
        verify_attestation_key(ak)
        # 3. That key signed a quote, made by its TPM, over exactly these PCRs.
        quote = verify_signature(parts.attest, signature, ak)
        verify_pcrs(quote, signature.hash_alg, parts.pcrs)
        # 4. The event log arrives at the quoted PCRs; the software digest explains PCR 23.
        explained = verify_replay(log, parts.pcrs) if log is not None else frozenset()
        _verify_software(parts)
        # 5. Only what is proven becomes a claim.
        claims = _claims(parts, quote, ak, vouched)
        if log is not None and _SECURE_BOOT_PCR in explained:
            on = secure_boot(log)
            claims |= {} if on is None else {"secure_boot": on}
        return VerifiedClaims(
            tee=TPM_TEE, claims=claims, report_data=quote.extra_data, checks=_checks(vouched, explained)
        )


def _verify_software(parts: TpmEvidence) -> None:
    """Prove that PCR 23 holds exactly the claimed software digest."""
    if not parts.software:
        return
    want = software_pcr_value(parts.software)
    got = parts.pcrs.get(SOFTWARE_PCR, b"")
    if not hmac.compare_digest(got, want):
        raise Rejected.because("pcr_mismatch", f"software in pcr {SOFTWARE_PCR}", got=got.hex(), want=want.hex())


def _claims(parts: TpmEvidence, quote: Quote, ak: Public, vouched: AkCertificate) -> dict[str, ClaimValue]:
    claims: dict[str, ClaimValue] = {f"pcr.{index}": value.hex() for index, value in parts.pcrs.items()}
    claims |= {
        "ak": ak.name.hex(),
        "device": vouched.device,
        "firmware_version": f"{quote.firmware_version:016x}",  # vendors use all 64 bits: no JSON integer
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
    }
    if vouched.model.manufacturer:
        claims["manufacturer"] = vouched.model.manufacturer
    if vouched.model.model:
        claims["model"] = vouched.model.model
    if parts.software:
        claims["software"] = parts.software.hex()
    return claims


def _checks(vouched: AkCertificate, explained: frozenset[int]) -> tuple[Check, ...]:
    issuer = vouched.certificate.x509.issuer.rfc4514_string()[:120]
    checks = [
        Check(
            code="memory_not_protected",
            subject="memory encryption",
            verdict=Verdict.NOT_CHECKED,
            note="a tpm measures the machine; it keeps nobody out of its memory",
        ),
        Check(code="chain_invalid", subject="attestation key certificate", verdict=Verdict.PASSED, got=issuer),
        Check(code="ak_attributes_invalid", subject="attestation key", verdict=Verdict.PASSED),
        Check(code="signature_invalid", subject="quote signature", verdict=Verdict.PASSED),
        Check(code="pcr_mismatch", subject="pcr digest", verdict=Verdict.PASSED),
    ]
    if explained:
        got = ", ".join(map(str, sorted(explained)))
        checks.append(Check(code="pcr_mismatch", subject="event log", verdict=Verdict.PASSED, got=got))
    return tuple(checks)


def tpm_policy(
    devices: Sequence[str],
    software: Sequence[str],
    boot: Mapping[int, Sequence[str]] | None = None,
    *,
    version: int = 1,
    why: str = "",
) -> Policy:
    """Return a policy for these devices (hex), software digests (hex) and PCR values (hex, by index).

    PCRs 0 to 7 without values in ``boot`` are not checked, which needs a reason (``why``).
    """
    rules: dict[str, Rule] = {"device": OneOf(tuple(devices)), "software": OneOf(tuple(software))}
    given = boot or {}
    rules |= {f"pcr.{index}": OneOf(tuple(given[index])) for index in given}
    rules |= {f"pcr.{index}": NotChecked(why) for index in _BOOT_PCRS if index not in given}
    return Policy(version=version, tees={TPM_TEE: TeePolicy(rules)})
