"""The one procedure that turns evidence into an attestation result (RFC 9334 section 8, RATS Verifier).

Everything TEE-specific is behind ``Scheme``; everything that decides is here and in ``appraise``, so that
custodian and consumer run the same steps with their own policy.

Not done here: fetching endorsements, remembering nonces (the custodian takes a nonce once, before this).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from cloister.attest.appraise import appraise, not_allowed
from cloister.attest.binding import NO_DEVICES, ReleaseBinding
from cloister.attest.composite import composite_checks, count_devices, demand_cpu, name_devices
from cloister.attest.devices import parse_devices
from cloister.attest.findings import refuse_failed
from cloister.attest.rats import MAX_EVIDENCE_BYTES, AttestationResult, Check, Submodule, TeeKind, TrustTier, Verdict
from cloister.attest.trust_vector import WARNS, trust_vector
from cloister.errors import Malformed, Rejected, Unavailable, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from cloister.attest.binding import Binding
    from cloister.attest.policy import Policy
    from cloister.attest.rats import Evidence, VerifiedClaims

__all__ = ["Scheme", "Verifier"]


class Scheme(Protocol):
    """How the evidence of one TEE is verified: one file in ``schemes/``.

    Contract: a scheme raises ``Malformed`` for bytes that do not parse, ``Rejected`` for evidence whose
    chain or signature does not hold, ``Unavailable`` for nothing (it has no I/O). It proves who says so,
    not that it is good: claims are appraised by the policy alone. It never compares report data.
    """

    @property
    def tee(self) -> TeeKind:
        """The kind of evidence this scheme verifies."""
        ...

    @property
    def report_data_bytes(self) -> int:
        """Size of the field that carries the binding, at least 32."""
        ...

    @property
    def required(self) -> frozenset[str]:
        """Claims a policy must have a rule for."""
        ...

    @property
    def software_claims(self) -> frozenset[str]:
        """Claims that are the SHA-256 of the dumped software manifest wherever the TEE makes them; often none."""
        ...

    def needs(self, evidence: Evidence) -> tuple[str, ...]:
        """Return the names of the endorsements that ``verify`` wants, for somebody else to fetch."""
        ...

    def verify(self, evidence: Evidence, endorsements: Mapping[str, bytes], now: datetime) -> VerifiedClaims:
        """Prove that the vendor's root vouches for the claims, at the time ``now``."""
        ...


class Verifier:
    """A table of schemes and the procedure over it. A TEE outside the table is refused."""

    def __init__(self, schemes: Iterable[Scheme]) -> None:
        """Take the schemes; two for one TEE are a mistake of ours."""
        self._schemes: dict[TeeKind, Scheme] = {}
        for scheme in schemes:
            if scheme.tee in self._schemes:
                msg = f"verifier: two schemes for {scheme.tee}"
                raise UsageError(msg)
            self._schemes[scheme.tee] = scheme

    @property
    def tees(self) -> frozenset[TeeKind]:
        """The TEEs this verifier knows."""
        return frozenset(self._schemes)

    @property
    def required(self) -> Mapping[TeeKind, frozenset[str]]:
        """The claims that a policy must have a rule for, by TEE."""
        return {tee: scheme.required for tee, scheme in self._schemes.items()}

    def needs(self, evidence: Evidence, devices: bytes = NO_DEVICES) -> tuple[str, ...]:
        """Return the names of the endorsements to fetch before ``verify``, those of the devices too."""
        _demand_size(evidence)
        names: dict[str, None] = {}
        for item in (evidence, *parse_devices(devices)):
            names |= dict.fromkeys(self._scheme(item.tee).needs(item))
        return tuple(names)

    def verify(
        self,
        evidence: Evidence,
        binding: Binding,
        policy: Policy,
        now: datetime,
        endorsements: Mapping[str, bytes] | None = None,
    ) -> AttestationResult:
        """Return the result of evidence that is genuine, fresh and ours, and satisfies ``policy``.

        The devices that ``binding`` names are appraised one by one; none is left out. Raises ``Malformed`` for bytes
        that are no evidence, ``Unavailable`` for a missing endorsement and ``Rejected`` with every mismatch (the
        vendor's chain and signature come first: claims nobody vouches for are not compared).
        """
        if now.tzinfo is None:
            msg = "verifier: now is naive, want an aware time"
            raise UsageError(msg)
        given = {} if endorsements is None else endorsements
        # 1. The CPU's evidence: its report data binds the nonce, the keys and the devices' exact bytes.
        demand_cpu(evidence.tee, policy.tees)
        scheme, claims = self._claims(evidence, policy, given, now)
        devices = parse_devices(binding.devices)
        claims = replace(claims, claims={**claims.claims, **count_devices(devices)})
        checks = (
            *claims.checks,
            _report_data(claims, binding.field(scheme.report_data_bytes)),
            *_software(claims, binding, scheme.software_claims),
            *appraise(claims, policy, scheme.required),
        )
        refuse_failed(f"{evidence.tee} evidence", checks)
        # 2. Every device, bound to the same nonce and keys: a submodule each.
        submodules = tuple(
            self._device(name, item, binding=binding, policy=policy, given=given, now=now)
            for name, item in name_devices(devices)
        )
        # 3. What binds them together, and what does not.
        checks = (*checks, *composite_checks(submodules))
        refuse_failed(f"{evidence.tee} evidence", checks)
        tier = _tier(claims, checks, scheme.required, trust_vector(claims.tee, claims.claims, checks))
        return AttestationResult(
            tee=claims.tee,
            claims=dict(claims.claims),
            checks=checks,
            bound=binding.bound(),
            tier=TrustTier.WARNING if any(item.tier is TrustTier.WARNING for item in submodules) else tier,
            policy_digest=policy.digest,
            verified_at=now,
            nonce=binding.nonce,
            submodules=submodules,
        )

    def _device(
        self,
        name: str,
        evidence: Evidence,
        *,
        binding: Binding,
        policy: Policy,
        given: Mapping[str, bytes],
        now: datetime,
    ) -> Submodule:
        """Return one device's result. Its refusal names the device."""
        scheme, claims = self._claims(evidence, policy, given, now, name=name)
        checks = (
            *claims.checks,
            _report_data(claims, binding.device_field(scheme.report_data_bytes)),
            *appraise(claims, policy, scheme.required),
        )
        refuse_failed(name, checks)
        tier = _tier(claims, checks, scheme.required, trust_vector(claims.tee, claims.claims, checks))
        return Submodule(name=name, tee=claims.tee, claims=dict(claims.claims), checks=checks, tier=tier)

    def _claims(
        self, evidence: Evidence, policy: Policy, given: Mapping[str, bytes], now: datetime, *, name: str = ""
    ) -> tuple[Scheme, VerifiedClaims]:
        """Return what the vendor's root vouches for, with the scheme that proved it."""
        # 1. Bounded before anything reads it.
        _demand_size(evidence)
        # 2. A TEE that this build verifies, and that the policy names: before its parser runs.
        scheme = self._scheme(evidence.tee)
        if evidence.tee not in policy.tees:
            refuse_failed(name or f"{evidence.tee} evidence", (not_allowed(evidence.tee, policy),))
        # 3. Everything the scheme needs is there; a missing endorsement is no yes.
        missing = [item for item in scheme.needs(evidence) if item not in given]
        if missing:
            msg = f"{evidence.tee} evidence: endorsement {missing[0]} is missing"
            raise Unavailable(msg)
        # 4. Chain, signature, fields (RFC 9334 section 8.1: Evidence has to be authentic).
        claims = scheme.verify(evidence, given, now)
        if claims.tee != scheme.tee:
            msg = f"verifier: scheme {scheme.tee} returned claims of {claims.tee}"
            raise UsageError(msg)
        return scheme, claims

    def _scheme(self, tee: TeeKind) -> Scheme:
        scheme = self._schemes.get(tee)
        if scheme is None:
            want = ", ".join(sorted(self._schemes)) or "none in this build"
            raise Rejected.because("unsupported_tee", "tee", got=tee[:64], want=want)
        return scheme


def _demand_size(evidence: Evidence) -> None:
    if len(evidence.payload) > MAX_EVIDENCE_BYTES:
        msg = f"evidence: {len(evidence.payload)} bytes, want at most {MAX_EVIDENCE_BYTES}"
        raise Malformed(msg)


def _report_data(claims: VerifiedClaims, want: bytes) -> Check:
    """Return the check that the report carries exactly ``want``, length included."""
    same = hmac.compare_digest(claims.report_data, want)
    return Check(
        code="report_data_mismatch",
        subject="report_data",
        verdict=Verdict.PASSED if same else Verdict.FAILED,
        got=claims.report_data[:64].hex(),
        want=want.hex(),
    )


def _software(claims: VerifiedClaims, binding: Binding, names: frozenset[str]) -> tuple[Check, ...]:
    """Return the checks that the bound manifest hashes to what the TEE measured (T10)."""
    if not isinstance(binding, ReleaseBinding):
        return ()  # nobody else is sent a manifest: their policies have the measured value
    want = hashlib.sha256(binding.software).hexdigest()
    return tuple(
        Check(
            code="software_mismatch",
            subject=f"software manifest in {name}",
            verdict=Verdict.PASSED if claims.claims[name] == want else Verdict.FAILED,
            got=str(claims.claims[name])[:128],
            want=want,
        )
        for name in sorted(names)
        if name in claims.claims
    )


def _tier(
    claims: VerifiedClaims, checks: tuple[Check, ...], required: frozenset[str], vector: Mapping[str, int]
) -> TrustTier:
    """Return affirming, or warning where something important was left unchecked or is known to be weak."""
    skipped = [check for check in claims.checks if check.verdict is Verdict.NOT_CHECKED]
    skipped += [check for check in checks if check.verdict is Verdict.NOT_CHECKED and check.subject in required]
    return TrustTier.WARNING if skipped or any(value >= WARNS for value in vector.values()) else TrustTier.AFFIRMING
